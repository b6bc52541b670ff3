package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
	// touched says that a transaction was about the table, perhaps somebody else's.
	touched chan struct{}
	zone    atomic.Pointer[zone]

	mu          sync.Mutex
	newest      *state.Network
	ready       chan struct{} // closed once pods can have addresses
	published   map[state.UID]published
	publication uint64 // counts changes of published

	// What follows is the loop's alone.
	nft        *tables             // nil until it is needed, and after a failure
	generation uint32              // the kernel's newest, when the table was last known to be as programmed
	parts      map[state.Ref]*part // as programmed
	ports      hostPorts           // likewise
	counted    uint64              // the publication that ports is of
	framed     frameKey            // what the frame of the table was made for
	mended     time.Time           // when the table was last written anew because somebody had changed it
	warned     map[netip.Prefix]string
	own        netip.Prefix
	saved      saved
	savedAt    time.Time
	dns        *server
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
	kernel, err := openTables()
	if err != nil {
		return fmt.Sprintf("the kernel has no netfilter (%v); load it: modprobe nf_tables", err)
	}
	defer kernel.close()
	_, err = kernel.generation(nil)
	switch {
	case errors.Is(err, unix.EPERM):
		return "rules of nftables may not be changed by this user; run as root"
	case err != nil:
		return fmt.Sprintf("the kernel has no nftables (%v); load it: modprobe nf_tables", err)
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
		o: o, log: o.Logger.With(slog.String("node", string(o.Node))), table: "tandem-" + o.ID, hint: make(chan struct{}, 1), touched: make(chan struct{}, 1),
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
	stop, err := n.watch()
	if err != nil {
		// Changes by others are noticed at the next look.
		n.log.LogAttrs(ctx, slog.LevelWarn, "could not listen to the kernel's nftables", slog.Any("err", err))
		stop = func() {}
	}
	defer stop()
	defer n.disconnect()
	var done *state.Network
	var settled <-chan time.Time
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
				n.anew()
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
			continue
		case <-again:
			continue
		case <-n.touched:
			if settled == nil {
				settled = time.After(max(settleFor, mendEvery-time.Since(n.mended)))
			}
			continue
		case <-settled:
			settled = nil
		case <-look.C:
		}
		if done == nil {
			continue
		}
		if what := n.vary(ctx); what != "" {
			n.log.LogAttrs(ctx, slog.LevelWarn, "found the table of Services changed by somebody else, programming it anew", slog.String("table", n.table), slog.String("changed", what))
			n.anew()
			done, n.mended = nil, time.Now()
		}
	}
}

// anew has the table written whole the next time.
func (n *Node) anew() {
	n.disconnect()
	n.framed = frameKey{}
}

func (n *Node) disconnect() {
	if n.nft != nil {
		_ = n.nft.close()
		n.nft = nil
	}
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
	if err := n.program(w, key); err != nil {
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
func (n *Node) program(w *state.Network, key frameKey) (err error) {
	if n.nft == nil {
		if n.nft, err = openTables(); err != nil {
			return fmt.Errorf("%w: nftables: %w", runtimes.ErrUnavailable, err)
		}
	}
	c := &change{table: n.table}
	old, oldPorts := n.parts, n.ports
	if n.framed != key {
		c.begin(key.own, &key.cluster)
		old, oldPorts = nil, nil
	}
	n.mu.Lock()
	ports, counted := wantedPorts(n.published), n.publication
	n.mu.Unlock()
	types := shared()
	fresh := map[uint16]bool{}
	for _, name := range []string{anyAddress, oneAddress} {
		c.differ(name, types[name], oldPorts[name], ports[name])
		maps.Copy(fresh, came(n.ports[name], ports[name]))
	}
	now := make(map[state.Ref]*part, len(w.Services))
	var pairs [][2]*part
	gone := map[target]bool{}
	for _, s := range w.Services {
		was := old[s.Ref]
		if was != nil && was.source == s {
			now[s.Ref] = was
			continue
		}
		p := render(s, n.o.Node)
		now[s.Ref] = p
		pairs = append(pairs, [2]*part{was, p})
		before := n.parts[s.Ref]
		if before != nil {
			maps.Copy(gone, lost(before.source, s))
		}
		maps.Copy(fresh, came(before.leading(nodePorts), p.leads[nodePorts]))
	}
	for ref, was := range n.parts {
		if now[ref] == nil {
			if old != nil {
				pairs = append(pairs, [2]*part{was, nil})
			}
			maps.Copy(gone, lost(was.source, nil))
		}
	}
	c.parts(pairs)
	if err := n.commit(c, old == nil); err != nil {
		return fmt.Errorf("program table %s: %w", n.table, err)
	}
	goneTo := gonePorts(n.ports, ports)
	n.parts, n.framed, n.ports, n.counted = now, key, ports, counted
	return errors.Join(cut(gone), cutPorts(goneTo), divert(fresh))
}

// commit brings a change into force. The table is known to be as programmed
// after it when it was so before, or was written whole, and nobody else's
// transaction came between.
func (n *Node) commit(c *change, whole bool) error {
	if len(c.messages) == 0 {
		return nil
	}
	before, err := n.nft.generation(nil)
	if err != nil {
		return err
	}
	after, err := n.nft.run(c)
	if err != nil {
		return err
	}
	switch {
	case after == before+1 && (whole || before == n.generation):
		n.generation = after
	default:
		n.generation = 0
	}
	return nil
}

// Shutdown removes everything that the node made on this machine. Run must have
// ended.
func (n *Node) Shutdown(ctx context.Context) error {
	err := n.inside(func() error {
		kernel, err := openTables()
		if err != nil {
			return err
		}
		defer kernel.close()
		c := &change{table: n.table}
		c.addTable() // what isn't there can't be deleted
		c.deleteTable()
		if _, err := kernel.run(c); err != nil {
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
