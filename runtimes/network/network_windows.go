package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// How long to wait before trying again, and between two looks at what the network
// service still has: it forgets without a word.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	lookAgain  = 15 * time.Second
)

// A Node is a Windows node's network: it hands the node its range of pod
// addresses and programs Services as load balancers of the network service.
type Node struct {
	o    Options
	log  *slog.Logger
	hint chan struct{}

	mu     sync.Mutex
	newest *state.Network
	ready  chan struct{} // closed once pods can have addresses

	// What follows is the loop's alone.
	own  netip.Prefix
	kept *state.Network    // on disk
	told map[string]string // of Services that can't be served as written: why
}

// Missing says nothing: what a Windows node needs, the runtime looks for.
func Missing() string { return "" }

// MachineAddress is the address of the device that leads to other machines;
// empty where nothing does.
func MachineAddress() string {
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "udp4", "192.0.2.1:9") // nothing is sent
	if err != nil {
		return ""
	}
	defer c.Close()
	if a, is := c.LocalAddr().(*net.UDPAddr); is && !a.IP.IsLoopback() && !a.IP.IsUnspecified() {
		return a.IP.String()
	}
	return ""
}

// Open reads what a former process knew. Nothing is changed before Run.
func Open(o Options) (*Node, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{o: o, log: o.Logger.With(slog.String("node", string(o.Node))), hint: make(chan struct{}, 1), ready: make(chan struct{})}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(n.file())
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	var kept state.Network
	if err := json.Unmarshal(raw, &kept); err != nil {
		n.log.LogAttrs(context.Background(), slog.LevelWarn, "the kept network was damaged; waiting for the controller's", slog.Any("err", err))
		return n, nil
	}
	n.Update(&kept)
	return n, nil
}

func (n *Node) file() string { return filepath.Join(n.o.Dir, "network.json") }

func (n *Node) keep(w *state.Network) error {
	raw, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return atomicfile.Write(n.file(), raw, 0o600)
}

// Update hands over what there is: the newest counts. It doesn't block.
func (n *Node) Update(w *state.Network) {
	n.mu.Lock()
	n.newest = w
	n.mu.Unlock()
	select {
	case n.hint <- struct{}{}:
	default:
	}
}

// Resolver waits until pods can have addresses here. There are no lines: pods
// use the machine's own servers.
func (n *Node) Resolver(ctx context.Context, _ string) ([]string, error) {
	select {
	case <-n.ready:
		return nil, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the controller gave this node no addresses for pods", runtimes.ErrUnavailable)
	}
}

// Services are those of a namespace as last handed over, sorted by name.
func (n *Node) Services(namespace string) []*state.Service {
	n.mu.Lock()
	w := n.newest
	n.mu.Unlock()
	if w == nil {
		return nil
	}
	var found []*state.Service
	for _, s := range w.Services {
		if s.Ref.Namespace == namespace {
			found = append(found, s)
		}
	}
	return found
}

// Run does what Update asks for, until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var done *state.Network
	look, wait := false, retryFirst
	for {
		n.mu.Lock()
		newest := n.newest
		n.mu.Unlock()
		again := time.After(lookAgain)
		if newest != nil && (newest != done || look) {
			if err := n.sync(ctx, newest); err != nil {
				n.log.LogAttrs(ctx, slog.LevelWarn, "failed to program the network, trying again", slog.Any("err", err))
				again, done, wait = time.After(wait), nil, min(2*wait, retryMost)
			} else {
				done, wait = newest, retryFirst
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.hint:
			look = false
		case <-again:
			look = true
		}
	}
}

// sync makes the machine as w says.
func (n *Node) sync(ctx context.Context, w *state.Network) error {
	own, err := ownRange(w, n.o.Node)
	if err != nil || !own.IsValid() {
		return err // no range yet: nothing to do for pods
	}
	if n.o.Ranged != nil {
		if err := n.o.Ranged(own); err != nil {
			return err
		}
	}
	fresh := own != n.own
	n.own = own
	select {
	case <-n.ready:
	default:
		close(n.ready)
	}
	if err := n.program(ctx, w); err != nil {
		return err
	}
	if fresh {
		n.log.LogAttrs(ctx, slog.LevelInfo, "programmed the network", slog.String("range", own.String()), slog.Int("services", len(w.Services)))
	}
	if n.kept == w {
		return nil
	}
	n.kept = w
	return n.keep(w)
}

func ownRange(w *state.Network, name state.NodeName) (netip.Prefix, error) {
	for _, node := range w.Nodes {
		if node.Name != name {
			continue
		}
		own, err := netip.ParsePrefix(node.Range)
		if err != nil {
			return own, fmt.Errorf("range of node %s: %w", name, err)
		}
		return own, nil
	}
	return netip.Prefix{}, nil
}

// Shutdown removes everything that the node made of Services, and forgets what a
// later process would have used. Run must have ended.
func (n *Node) Shutdown(ctx context.Context) error {
	n.mu.Lock()
	newest := n.newest
	n.mu.Unlock()
	if newest != nil {
		if err := n.unprogram(ctx, newest); err != nil {
			return fmt.Errorf("remove the network of node %s: %w", n.o.Node, err)
		}
	}
	return os.RemoveAll(n.o.Dir)
}
