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
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// localNode is this machine as a node of its own controller.
type localNode struct {
	machine *Machine
	agent   *agent.Agent
}

func openNode(ctx context.Context, s *Server, store *images.Store) (*localNode, error) {
	o := &s.opts
	dir := filepath.Join(o.Data, "node")
	m, err := OpenMachine(ctx, MachineOptions{Node: o.Node, Dir: dir, Images: store, Logger: o.Logger, Fencer: Fencer{o.Fencer, o.Version}, Keeper: o.Keeper})
	if err != nil {
		return nil, fmt.Errorf("make this machine a node: %w", err)
	}
	meter := s.meter.Add()
	a, err := agent.New(ctx, agent.Config{
		Node: o.Node, Dir: filepath.Join(dir, "agent"), Volatile: m.Volatile, Runtime: m.Runtime, Network: m.Network, Address: m.Address,
		Link: s.Hub.Link(), Version: o.Version, Fencer: m.Fencer, Meter: meter, Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make this machine a node: %w", err), m.Close())
	}
	meter.Of(a, m.Sizer, nil)
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
