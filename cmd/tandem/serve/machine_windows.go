package serve

import (
	"context"
	"net/netip"
	"path/filepath"

	"github.com/tandem-gitops/tandem/runtimes/hcs"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// openMachine is a Windows node. It has no fencer yet, and says so to the
// controller: identities that must end in time aren't placed here.
func openMachine(ctx context.Context, o *MachineOptions) (*Machine, error) {
	var rt *hcs.Runtime
	net, err := network.Open(network.Options{
		Node: o.Node, ID: nodeID(o.Dir), Dir: filepath.Join(o.Dir, "network"), Logger: o.Logger,
		Ranged: func(block netip.Prefix) error { return rt.SetRange(block) }, // not before Run
	})
	if err != nil {
		return nil, err
	}
	rt, err = hcs.Open(ctx, hcs.Options{
		Node: o.Node, Dir: filepath.Join(o.Dir, "hcs"), Network: "l2bridge", Address: o.Address, Images: o.Images, Keeper: o.Keeper, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Machine{Runtime: rt, Network: net, close: rt.Close, shutdown: rt.Shutdown}, nil
}

func lacks() (why []string) {
	for _, f := range hcs.Check() {
		if !f.OK && f.Fatal {
			why = append(why, lack(f.Name, f.Detail, f.Remedy))
		}
	}
	return why
}
