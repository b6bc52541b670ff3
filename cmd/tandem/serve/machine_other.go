//go:build !windows

package serve

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// openMachine is a Linux node. What isn't Linux is refused by containerd.
func openMachine(ctx context.Context, o *MachineOptions) (*Machine, error) {
	var rt *containerd.Runtime
	address, _ := netip.ParseAddr(o.Address) // none: that of the device which leads to the others
	net, err := network.Open(network.Options{
		Node: o.Node, ID: nodeID(o.Dir), Dir: filepath.Join(o.Dir, "network"), Resolv: o.Resolv, Address: address, Logger: o.Logger,
		Ranged: func(block netip.Prefix) error { return rt.SetRange(block) }, // not before Run
	})
	if err != nil {
		return nil, err
	}
	rt, err = containerd.Open(ctx, containerd.Options{
		Node: o.Node, Dir: filepath.Join(o.Dir, "containerd"), Socket: o.Socket, Address: o.Address, Images: o.Images, Limits: o.Limits, Ports: net, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	m := &Machine{Runtime: rt, Network: net, Volatile: filepath.Join(rt.RunDir(), "agent"), Sizer: rt, close: rt.Close}
	m.shutdown = func(ctx context.Context) error {
		return errors.Join(fencer.End(ctx, rt.RunDir(), rt.Group()), rt.Shutdown(ctx), net.Shutdown(ctx))
	}
	if len(o.Fencer.Program) > 0 {
		m.Fencer = fencer.NewGuard(fencer.GuardOptions{
			Program: o.Fencer.Program, Dir: rt.RunDir(), Group: rt.Group(), Version: o.Fencer.Version, Log: filepath.Join(o.Dir, "fencer.log"), Logger: o.Logger,
		})
	}
	return m, nil
}

func lacks() (why []string) {
	for _, f := range containerd.Check() {
		if !f.OK && f.Fatal {
			why = append(why, lack(f.Name, f.Detail, f.Remedy))
		}
	}
	if m := network.Missing(); m != "" {
		why = append(why, "nftables: "+m)
	}
	return why
}
