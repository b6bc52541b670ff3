package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/knftables"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// How long to wait before trying again, between two writes of the newest network
// to disk, and between two looks whether the rules are still there.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	saveEvery  = 2 * time.Second
	lookEvery  = 30 * time.Second
)

// A Node programs one node's network. Run does it; Update may be called before.
type Node struct {
	o     Options
	log   *slog.Logger
	table string
	hint  chan struct{}
	zone  atomic.Pointer[zone]

	mu          sync.Mutex
	newest      *state.Network
	ready       chan struct{} // closed once pods can have addresses
	published   map[state.UID]published
	publication uint64 // counts changes of published

	// What follows is the loop's alone.
	nft     knftables.Interface
	parts   map[state.Ref]*part // as programmed
	ports   hostPorts           // likewise
	counted uint64              // the publication that ports is of
	framed  frameKey            // what the frame of the table was made for
	warned  map[netip.Prefix]string
	own     netip.Prefix
	saved   saved
	savedAt time.Time
	dns     *server
}

// saved is what a later process needs.
type saved struct {
	Network    *state.Network `json:"network,omitempty"`
	Forwarding []string       `json:"forwarding,omitempty"` // devices where it was switched on
}

type frameKey struct {
	own     netip.Prefix
	cluster ranges
}

// Missing says what this machine lacks to serve Services, and what to do; empty
// where it lacks nothing.
func Missing() string {
	if _, err := exec.LookPath("nft"); err != nil {
		return "nft is not in PATH; install it: apt-get install nftables (Debian, Ubuntu)"
	}
	return ""
}

// Open reads what a former process knew. Nothing is changed before Run.
func Open(o Options) (*Node, error) {
	if m := Missing(); m != "" {
		return nil, fmt.Errorf("%w: %s", runtimes.ErrUnsupported, m)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		o: o, log: o.Logger.With(slog.String("node", string(o.Node))), table: "tandem-" + o.ID, hint: make(chan struct{}, 1),
		ready: make(chan struct{}), published: map[state.UID]published{}, parts: map[state.Ref]*part{}, warned: map[netip.Prefix]string{},
	}
	n.dns = &server{node: n, slots: make(chan struct{}, forwardsMost)}
	n.dns.at.Store(&netip.Addr{})
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(n.file())
	if err == nil {
		err = json.Unmarshal(raw, &n.saved)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.saved = saved{} // a cache: the controller tells it again
	}
	if n.saved.Network != nil {
		n.Update(n.saved.Network)
	}
	return n, nil
}

func (n *Node) file() string { return filepath.Join(n.o.Dir, "network.json") }

func (n *Node) save() error {
	raw, err := json.Marshal(n.saved)
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
	n.wake()
}

// Resolver waits until pods can have addresses here, and returns the lines of
// resolv.conf for pods of a namespace.
func (n *Node) Resolver(ctx context.Context, namespace string) ([]string, error) {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the controller gave this node no addresses for pods", runtimes.ErrUnavailable)
	}
	return n.dns.resolv(namespace), nil
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

// Run programs what Update hands over, until ctx ends. What it made stays:
// connections go on without it, names don't.
func (n *Node) Run(ctx context.Context) error {
	defer n.dns.close()
	look := time.NewTicker(cmp.Or(n.o.Look, lookEvery))
	defer look.Stop()
	var done *state.Network
	wait := retryFirst
	for {
		n.mu.Lock()
		newest, counted := n.newest, n.publication
		n.mu.Unlock()
		var again <-chan time.Time
		if newest != nil && (newest != done || counted != n.counted) {
			if err := n.inside(func() error { return n.sync(ctx, newest) }); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				n.log.LogAttrs(ctx, slog.LevelWarn, "failed to program the network, trying again", slog.Any("err", err))
				n.framed = frameKey{} // anew, from nothing
				again, wait = time.After(wait), min(2*wait, retryMost)
			} else {
				done, wait = newest, retryFirst
			}
		}
		if n.saved.Network != done && done != nil {
			if rest := saveEvery - time.Since(n.savedAt); rest > 0 && ctx.Err() == nil && again == nil {
				again = time.After(rest)
			} else {
				n.keep(ctx, done)
			}
		}
		select {
		case <-ctx.Done():
			if done != nil && n.saved.Network != done {
				n.keep(ctx, done)
			}
			return nil
		case <-n.hint:
		case <-again:
		case <-look.C:
			if done != nil && n.vanished(ctx) {
				n.log.LogAttrs(ctx, slog.LevelWarn, "found the table of Services gone, programming it anew", slog.String("table", n.table))
				n.framed, done = frameKey{}, nil
			}
		}
	}
}

// vanished says whether somebody took the table away: a firewall that is loaded
// anew flushes everybody's rules and tells nobody.
func (n *Node) vanished(ctx context.Context) bool {
	if !n.own.IsValid() {
		return false // no range yet: nothing was programmed
	}
	var raw []byte
	err := n.inside(func() (err error) {
		raw, err = exec.CommandContext(ctx, "nft", "--json", "list", "tables", "ip").Output()
		return err
	})
	var listed struct {
		Nftables []struct {
			Table struct {
				Name string `json:"name"`
			} `json:"table"`
		} `json:"nftables"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &listed)
	}
	if err != nil {
		return false // it can't be told; what programs next says why
	}
	for _, o := range listed.Nftables {
		if o.Table.Name == n.table {
			return false
		}
	}
	return true
}

func (n *Node) keep(ctx context.Context, w *state.Network) {
	n.saved.Network, n.savedAt = w, time.Now()
	if err := n.save(); err != nil {
		n.log.LogAttrs(ctx, slog.LevelWarn, "kept no copy of the network", slog.Any("err", err))
	}
}

// sync makes the machine as w says.
func (n *Node) sync(ctx context.Context, w *state.Network) error {
	at, err := n.placed(w)
	if err != nil {
		return err
	}
	own, cluster := at.own, &at.cluster
	if !own.IsValid() {
		n.zone.Store(newZone(w))
		return nil // no range yet: nothing to do for pods
	}
	key := frameKey{own, *cluster}
	if n.own.IsValid() && n.own != own {
		if err := n.clear(n.own, cluster); err != nil {
			return err
		}
	}
	if err := n.route(ctx, at); err != nil {
		return err
	}
	if err := n.program(ctx, w, key); err != nil {
		return err
	}
	n.zone.Store(newZone(w))
	n.own = own
	if err := n.dns.listen(ctx, own.Addr()); err != nil {
		return err
	}
	select {
	case <-n.ready:
		return nil
	default:
	}
	if n.o.Ranged != nil {
		if err := n.o.Ranged(own); err != nil {
			return err
		}
	}
	close(n.ready)
	n.log.LogAttrs(ctx, slog.LevelInfo, "programmed the network", slog.String("range", own.String()), slog.Int("services", len(w.Services)))
	return nil
}

// A place is where this node, its peers and the cluster are.
type place struct {
	own     netip.Prefix
	cluster ranges
	peers   map[netip.Prefix]netip.Addr
	routing state.Routing
}

func (n *Node) placed(w *state.Network) (*place, error) {
	p := &place{peers: map[netip.Prefix]netip.Addr{}, routing: w.Routing}
	var errs [2]error
	p.cluster.pods, errs[0] = netip.ParsePrefix(w.Pods)
	p.cluster.services, errs[1] = netip.ParsePrefix(w.Addresses)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("ranges of the cluster: %w", err)
	}
	for _, node := range w.Nodes {
		block, err := netip.ParsePrefix(node.Range)
		if err != nil {
			return nil, fmt.Errorf("range of node %s: %w", node.Name, err)
		}
		if node.Name == n.o.Node {
			p.own = block
			continue
		}
		if a, err := netip.ParseAddr(node.Address); err == nil && a.Is4() {
			p.peers[block] = a
		}
	}
	return p, nil
}

// program brings the table up to date: by the difference, or whole where its
// frame is another's or unknown.
func (n *Node) program(ctx context.Context, w *state.Network, key frameKey) error {
	if n.nft == nil {
		nft, err := knftables.New(knftables.IPv4Family, n.table)
		if err != nil {
			return fmt.Errorf("%w: nftables: %w", runtimes.ErrUnavailable, err)
		}
		n.nft = nft
	}
	tx := n.nft.NewTransaction()
	old := n.parts
	if n.framed != key {
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		tx.Add(&knftables.Table{})
		frame(tx, key.own, &key.cluster)
		old, n.ports = nil, hostPorts{}
	}
	n.mu.Lock()
	ports, counted := wantedPorts(n.published), n.publication
	n.mu.Unlock()
	goneTo := changePorts(tx, n.ports, ports)
	now := make(map[state.Ref]*part, len(w.Services))
	gone := map[target]bool{}
	for _, s := range w.Services {
		was := old[s.Ref]
		if was != nil && was.source == s {
			now[s.Ref] = was
			continue
		}
		p := render(s, n.o.Node)
		now[s.Ref] = p
		change(tx, was, p)
		if before := n.parts[s.Ref]; before != nil {
			for t := range lost(before.source, s) {
				gone[t] = true
			}
		}
	}
	for ref, was := range n.parts {
		if now[ref] == nil {
			if old != nil {
				change(tx, was, nil)
			}
			for t := range lost(was.source, nil) {
				gone[t] = true
			}
		}
	}
	if tx.NumOperations() > 0 {
		if err := n.nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("program table %s: %w", n.table, err)
		}
	}
	n.parts, n.framed, n.ports, n.counted = now, key, ports, counted
	return errors.Join(cut(gone), cutPorts(goneTo))
}

// Shutdown removes everything that the node made on this machine. Run must have
// ended.
func (n *Node) Shutdown(ctx context.Context) error {
	err := n.inside(func() error {
		nft, err := knftables.New(knftables.IPv4Family, n.table)
		if err != nil {
			return err
		}
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		if err := nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("remove table %s: %w", n.table, err)
		}
		n.mu.Lock()
		newest := n.newest
		n.mu.Unlock()
		if newest == nil {
			return nil
		}
		at, err := n.placed(newest)
		if err != nil {
			return err
		}
		own, cluster := at.own, &at.cluster
		if n.own.IsValid() {
			own = n.own
		}
		return errors.Join(n.clear(own, cluster), forget(func(c *netlink.ConntrackFlow) bool {
			return cluster.services.Contains(addr(c.Forward.DstIP)) || own.Contains(addr(c.Forward.SrcIP)) || own.Contains(addr(c.Reverse.SrcIP))
		}))
	})
	if err != nil {
		return fmt.Errorf("remove the network of node %s: %w", n.o.Node, err)
	}
	return os.RemoveAll(n.o.Dir)
}
