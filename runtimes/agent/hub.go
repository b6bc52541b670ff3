package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// HubConfig says how a Hub speaks for its controller.
type HubConfig struct {
	// Submit hands events to the machine. It may block: that is how a busy
	// controller slows its agents.
	Submit func(...state.Event)
	// Head is the durable end of the log; nil where there is none to tell.
	Head func() Head
	// Proof shows that the log at a later size only added to the log at an earlier
	// one; nil where there is none.
	Proof func(earlier, later uint64) ([]state.Digest, error)
	// Renew and Lease go to each agent; zero means those of package lease.
	Renew, Lease time.Duration
	Version      string // of the controller's program, for people
	Logger       *slog.Logger
}

// A Hub is the controller's end of all links. It keeps the newest assignment of
// each node and hands it to whoever speaks for the node: whole when a session
// begins, and again whenever it changes.
type Hub struct {
	cfg HubConfig

	mu    sync.Mutex
	nodes map[state.NodeName]*hubNode
	ports uint64 // that were opened: numbers sessions

	network   *state.Network
	templates templateCache
}

type hubNode struct {
	newest *state.Assignment
	port   *port
}

// NewHub is a hub that no agent has reached yet.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Renew == 0 {
		cfg.Renew = lease.Renewal
	}
	if cfg.Lease == 0 {
		cfg.Lease = lease.Failover.Terms().Length
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, nodes: map[state.NodeName]*hubNode{}}
}

func (h *Hub) node(name state.NodeName) *hubNode {
	n := h.nodes[name]
	if n == nil {
		n = &hubNode{}
		h.nodes[name] = n
	}
	return n
}

// Assign makes a the newest assignment of its node. One that is older than what
// the hub has is ignored. It doesn't block on the agent.
func (h *Hub) Assign(a state.Assignment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.node(a.Node)
	if o := n.newest; o != nil && (a.Epoch < o.Epoch || a.Epoch == o.Epoch && a.Seq < o.Seq) {
		return
	}
	n.newest = &a
	if n.port != nil {
		n.port.peer.Assign(n.newest)
	}
}

// Grant hands a lease to the session whose renewal it answers, after the
// assignment that it was given for.
func (h *Hub) Grant(g state.Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[g.Node]
	if n == nil || n.port == nil || g.Session != 0 && g.Session != n.port.session {
		return
	}
	if peer, ok := n.port.peer.(GrantPeer); ok {
		peer.Grant(g)
	}
}

// Forget drops what the hub knows of a node that was removed, and ends its session.
func (h *Hub) Forget(node state.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[node]; n != nil && n.port != nil {
		n.port.closed = true
		n.port.peer.Lost(fmt.Errorf("node %s was removed: %w", node, runtimes.ErrRejected))
	}
	delete(h.nodes, node)
}

// Resync asks a node for a full report.
func (h *Hub) Resync(node state.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[node]; n != nil && n.port != nil {
		n.port.peer.Resync()
	}
}

// Connected are the nodes with an open session, sorted.
func (h *Hub) Connected() []state.NodeName {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []state.NodeName
	for name, n := range h.nodes {
		if n.port != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Link is the in-process link to this hub.
func (h *Hub) Link() Link { return hubLink{h} }

type hubLink struct{ hub *Hub }

// Open attaches a peer. A session that the node already has is ended: the
// newest one speaks for the node.
func (l hubLink) Open(ctx context.Context, hello Hello, peer Peer) (Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return l.hub.attach(hello, peer)
}

func (h *Hub) attach(hello Hello, peer Peer) (*port, error) {
	if hello.Node == "" {
		return nil, fmt.Errorf("an agent without a node name: %w", runtimes.ErrRejected)
	}
	p := &port{hub: h, node: hello.Node, peer: peer, serves: serves(&hello.Facts), status: SessionStatus{Node: hello.Node, Heard: time.Now()}}
	if h.cfg.Head != nil {
		p.welcome.Head = h.cfg.Head()
	}
	p.welcome.Renew, p.welcome.Lease = h.cfg.Renew, h.cfg.Lease
	if err := h.prove(hello, &p.welcome); err != nil {
		return nil, err
	}
	h.mu.Lock()
	n := h.node(hello.Node)
	if old := n.port; old != nil {
		old.closed = true
		old.peer.Lost(fmt.Errorf("another agent of node %s connected: %w", hello.Node, runtimes.ErrUnavailable))
	}
	n.port = p
	h.ports++
	p.session = h.ports
	h.mu.Unlock()
	// The machine hears of the agent before anything that it reports.
	h.cfg.Submit(&state.NodeHello{Node: hello.Node, Facts: hello.Facts, BootID: hello.BootID, Incarnation: hello.Incarnation})
	h.mu.Lock()
	defer h.mu.Unlock()
	if !p.closed && n.newest != nil {
		peer.Assign(n.newest)
	}
	if !p.closed {
		p.tell(h.network)
	}
	return p, nil
}

// prove puts the proof that an agent wants into its welcome. Who restored an old copy
// is told so here as well, not only by the agent.
func (h *Hub) prove(hello Hello, w *Welcome) error {
	known := hello.Head
	w.Proves = h.cfg.Proof != nil
	err := sameLog(known, w.Head)
	if err == nil && h.cfg.Proof != nil && known.Size > 0 && known.Size < w.Head.Size && known.Log == w.Head.Log {
		if w.Proof, err = h.cfg.Proof(known.Size, w.Head.Size); err != nil {
			return fmt.Errorf("prove the log to node %s: %w: %w", hello.Node, err, runtimes.ErrUnavailable)
		}
		err = follows(known, w.Head, w.Proof)
	}
	if err != nil && h.cfg.Logger != nil {
		h.cfg.Logger.LogAttrs(context.Background(), slog.LevelError, "a node has seen another history of the log than this one",
			slog.String("node", string(hello.Node)), slog.Any("err", err))
	}
	return err
}

// A port is one open session, at the hub.
type port struct {
	hub     *Hub
	node    state.NodeName
	session uint64
	peer    Peer
	welcome Welcome
	serves  bool          // it is told of the network
	closed  bool          // guarded by hub.mu
	status  SessionStatus // likewise
}

func (p *port) Welcome() Welcome { return p.welcome }

func (p *port) open() error {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	p.status.Heard = time.Now()
	if p.closed {
		return fmt.Errorf("session of node %s has ended: %w", p.node, runtimes.ErrUnavailable)
	}
	return nil
}

func (p *port) Report(_ context.Context, r *state.Report) error {
	if err := p.open(); err != nil {
		return err
	}
	p.hub.cfg.Submit(&state.Reported{Report: *r})
	return nil
}

func (p *port) Renew(_ context.Context, sent time.Duration) error {
	if err := p.open(); err != nil {
		return err
	}
	p.hub.cfg.Submit(&state.Renewed{Node: p.node, Session: p.session, Sent: sent})
	if peer, ok := p.peer.(HeadPeer); ok && p.hub.cfg.Head != nil {
		peer.Head(p.hub.cfg.Head())
	}
	return nil
}

func (p *port) Close() {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	p.closed = true
	if n := p.hub.nodes[p.node]; n != nil && n.port == p {
		n.port = nil
	}
}

func (h *Hub) server(node state.NodeName) (Server, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[node]; n != nil && n.port != nil {
		return n.port.peer, nil
	}
	return nil, fmt.Errorf("node %s is not connected: %w", node, runtimes.ErrUnavailable)
}

// Logs is the output of a container of a pod on node.
func (h *Hub) Logs(ctx context.Context, node state.NodeName, r LogRequest) (io.ReadCloser, error) {
	s, err := h.server(node)
	if err != nil {
		return nil, err
	}
	return s.Logs(ctx, r)
}

// Exec runs a command in a container of a pod on node.
func (h *Hub) Exec(ctx context.Context, node state.NodeName, r ExecRequest) (int, error) {
	s, err := h.server(node)
	if err != nil {
		return 0, err
	}
	return s.Exec(ctx, r)
}

// PortForward joins conn to a port of a pod on node.
func (h *Hub) PortForward(ctx context.Context, node state.NodeName, uid state.UID, port uint16, conn io.ReadWriteCloser) error {
	s, err := h.server(node)
	if err != nil {
		return err
	}
	return s.PortForward(ctx, uid, port, conn)
}
