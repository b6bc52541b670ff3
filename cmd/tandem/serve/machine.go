package serve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// A Machine is this machine as a Linux node: what runs pods, and what makes
// them and Services reachable.
type Machine struct {
	Runtime *containerd.Runtime
	Network *network.Node
	Address string // that others reach it at
	Fencer  *fencer.Guard
}

// A Fencer says how the node's fencer is started.
type Fencer struct {
	Program []string // and its first arguments; empty: the node has none, and takes no identity that moves
	Version string
}

// OpenMachine takes over what a former process left below dir. Resolv is the
// file that names the servers for names of the world outside; empty:
// /etc/resolv.conf.
func OpenMachine(ctx context.Context, dir, resolv string, o containerd.Options, f Fencer) (*Machine, error) {
	if o.Address == "" {
		o.Address = network.MachineAddress()
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(path))
	var rt *containerd.Runtime
	address, _ := netip.ParseAddr(o.Address) // none: that of the device which leads to the others
	net, err := network.Open(network.Options{
		Node: o.Node, ID: fmt.Sprintf("%x", sum[:4]), Dir: filepath.Join(dir, "network"), Resolv: resolv, Address: address, Logger: o.Logger,
		Ranged: func(block netip.Prefix) error { return rt.SetRange(block) }, // not before Run
	})
	if err != nil {
		return nil, err
	}
	o.Dir, o.Ports = filepath.Join(dir, "containerd"), net
	if rt, err = containerd.Open(ctx, o); err != nil {
		return nil, err
	}
	m := &Machine{Runtime: rt, Network: net, Address: o.Address}
	if len(f.Program) > 0 {
		m.Fencer = fencer.NewGuard(fencer.GuardOptions{
			Program: f.Program, Dir: rt.RunDir(), Group: rt.Group(), Version: f.Version, Log: filepath.Join(path, "fencer.log"), Logger: o.Logger,
		})
	}
	return m, nil
}

// Run is an agent with the network that its pods are in.
func (m *Machine) Run(ctx context.Context, a *agent.Agent) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return m.Network.Run(ctx) })
	all.Go(func() error { return a.Run(ctx) })
	return all.Wait()
}

// Close lets go of the machine: pods run on, and connections to Services go on.
func (m *Machine) Close() error { return m.Runtime.Close() }

// Shutdown removes every pod, and all that was made on this machine for them.
func (m *Machine) Shutdown(ctx context.Context) error {
	return errors.Join(fencer.End(ctx, m.Runtime.RunDir(), m.Runtime.Group()), m.Runtime.Shutdown(ctx), m.Network.Shutdown(ctx))
}
