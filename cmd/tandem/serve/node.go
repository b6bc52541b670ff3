package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// localNode is this machine as a node of its own controller.
type localNode struct {
	machine *Machine
	agent   *agent.Agent
}

func openNode(ctx context.Context, s *Server, store *images.Store) (*localNode, error) {
	o := &s.opts
	dir := filepath.Join(o.Data, "node")
	m, err := OpenMachine(ctx, dir, "", containerd.Options{Node: o.Node, Images: store, Logger: o.Logger}, Fencer{o.Fencer, o.Version})
	if err != nil {
		return nil, fmt.Errorf("make this machine a node: %w", err)
	}
	meter := s.meter.Add()
	a, err := agent.New(ctx, agent.Config{
		Node: o.Node, Dir: filepath.Join(dir, "agent"), Volatile: filepath.Join(m.Runtime.RunDir(), "agent"), Runtime: m.Runtime, Network: m.Network, Address: m.Address,
		Link: s.Hub.Link(), Version: o.Version, Fencer: m.Fencer, Meter: meter, Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make this machine a node: %w", err), m.Close())
	}
	meter.Of(a, m.Runtime, nil)
	return &localNode{machine: m, agent: a}, nil
}

func (n *localNode) run(ctx context.Context) error { return n.machine.Run(ctx, n.agent) }

// close lets go of the machine: pods run on.
func (n *localNode) close() error { return n.machine.Close() }

// NodeName is what this machine is called as a node: its host name, in the
// letters that Kubernetes allows.
func NodeName() state.NodeName {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "this-machine"
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, host)
	return state.NodeName(strings.Trim(name[:min(len(name), 63)], "-"))
}

// Usable says whether this machine can be a node, and if not, why and what to do.
func Usable() (ok bool, why []string) {
	findings := containerd.Check()
	for _, f := range findings {
		if !f.OK && f.Fatal {
			why = append(why, fmt.Sprintf("%s: %s; %s", f.Name, f.Detail, f.Remedy))
		}
	}
	if m := network.Missing(); m != "" {
		why = append(why, "nftables: "+m)
	}
	return len(why) == 0, why
}
