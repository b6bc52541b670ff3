package serve

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/tandem-gitops/tandem/runtimes/hcs"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// openMachine is a Windows node. It has no fencer yet, and says so to the
// controller: identities that must end in time aren't placed here.
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
	m.shutdown = func(ctx context.Context) error { return errors.Join(net.Shutdown(ctx), rt.Shutdown(ctx)) }
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
