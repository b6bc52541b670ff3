package serve

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/cmd/tandem/metrics"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// MachineOptions say which node this machine is and where it keeps its things.
type MachineOptions struct {
	Node    state.NodeName
	Dir     string // of all that the node keeps
	Address string // that others reach it at; empty: that of the device which leads to them
	Images  *images.Store
	Logger  *slog.Logger

	Socket string // Linux: of a containerd that runs already; empty: a private one is started
	Resolv string // Linux: file that names the servers for names of the world outside; empty: /etc/resolv.conf
	Fencer Fencer
	Limits containerd.ImageLimits // Linux: when images that no pod needs are removed; zero: as the kubelet does
	Keeper []string               // Windows: command line that keeps a container's log, see hcs.Options
}

// A Fencer says how the node's fencer is started.
type Fencer struct {
	Program []string // and its first arguments; empty: the node has none, and takes no identity that moves
	Version string
}

// A Machine is this machine as a node: what runs pods (containerd on Linux, the
// Host Compute Service on Windows), and what makes them reachable.
type Machine struct {
	Runtime  runtimes.Runtime
	Network  *network.Node
	Address  string             // that others reach it at
	Volatile string             // a directory in memory, for Secrets; empty: there is none
	Fencer   *fencer.Guard      // nil: none
	Sizer    metrics.ImageSizer // nil: what images take isn't known

	close    func() error
	shutdown func(context.Context) error
}

// OpenMachine takes over what a former process left below its directory.
func OpenMachine(ctx context.Context, o MachineOptions) (*Machine, error) {
	path, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = path
	if o.Address == "" {
		o.Address = network.MachineAddress()
	}
	m, err := openMachine(ctx, &o)
	if err != nil {
		return nil, err
	}
	m.Address = o.Address
	return m, nil
}

// nodeID tells nodes of one machine apart: eight hexadecimal digits of where one
// keeps its things.
func nodeID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("%x", sum[:4])
}

// Run is an agent with the network that its pods are in.
func (m *Machine) Run(ctx context.Context, a *agent.Agent) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return m.Network.Run(ctx) })
	all.Go(func() error { return a.Run(ctx) })
	return all.Wait()
}

// Close lets go of the machine: pods run on, and connections to Services go on.
func (m *Machine) Close() error { return m.close() }

// Shutdown removes every pod, and all that was made on this machine for them.
func (m *Machine) Shutdown(ctx context.Context) error { return m.shutdown(ctx) }

// Usable says whether this machine can be a node, and if not, why and what to do.
func Usable() (ok bool, why []string) {
	why = lacks()
	return len(why) == 0, why
}

// lack is a finding as a line for people.
func lack(name, detail, remedy string) string {
	return fmt.Sprintf("%s: %s; %s", name, detail, remedy)
}
