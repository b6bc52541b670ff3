package serve

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// openMachine is a Windows node.
func openMachine(ctx context.Context, o *MachineOptions) (*Machine, error) {
	rt, err := hcs.Open(ctx, hcs.Options{
		Node: o.Node, Dir: filepath.Join(o.Dir, "hcs"), Network: "l2bridge", Address: o.Address, Images: o.Images, Keeper: o.Keeper, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	net, err := network.Open(network.Options{
		Node: o.Node, ID: nodeID(o.Dir), Dir: filepath.Join(o.Dir, "network"), Pods: rt.NetworkName(), Ranged: rt.SetRange, Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, rt.Close())
	}
	m := &Machine{Runtime: rt, Network: net, close: rt.Close}
	fence, pods := filepath.Join(o.Dir, "fencer"), filepath.Join(o.Dir, "hcs")
	m.shutdown = func(ctx context.Context) error {
		return errors.Join(fencer.End(ctx, fence, pods), os.RemoveAll(fence), net.Shutdown(ctx), rt.Shutdown(ctx))
	}
	if len(o.Fencer.Program) > 0 {
		if err := os.MkdirAll(fence, 0o700); err != nil {
			return nil, errors.Join(err, rt.Close())
		}
		m.Fencer = fencer.NewGuard(fencer.GuardOptions{
			Program: o.Fencer.Program, Dir: fence, Group: pods, Version: o.Fencer.Version, Log: filepath.Join(o.Dir, "fencer.log"), Logger: o.Logger,
		})
	}
	return m, nil
}

func lacks() (why []string) {
	for _, f := range hcs.Check() {
		if !f.OK && f.Fatal {
			why = append(why, lack(f.Name, f.Detail, f.Remedy))
		}
	}
	return why
}
