package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A Network makes pods of this node reachable, and Services reachable from it.
type Network interface {
	// Update hands over what there is: the newest counts. It doesn't block.
	Update(n *state.Network)
	// Resolver waits until pods can have addresses here, and returns the lines of
	// resolv.conf for pods of a namespace.
	Resolver(ctx context.Context, namespace string) ([]string, error)
}

// A NetworkPeer is a Peer that serves Services.
type NetworkPeer interface {
	// Network hands over the newest network, never to be changed. It doesn't block.
	Network(n *state.Network)
}

// serves says whether a node is told of the network: a simulated one has none,
// and Windows's is not programmed yet.
func serves(f *state.NodeFacts) bool { return f.OS == state.Linux && !f.Simulated }

// Network makes n what nodes are told of each other and of Services. One that is
// older than what the hub has is ignored.
func (h *Hub) Network(n *state.Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.network != nil && n.Seq < h.network.Seq {
		return
	}
	h.network = n
	for _, node := range h.nodes {
		if node.port != nil {
			node.port.tell(n)
		}
	}
}

// tell hands a network to a node that serves it; the hub's mu is held.
func (p *port) tell(n *state.Network) {
	if peer, ok := p.peer.(NetworkPeer); ok && p.serves && n != nil {
		peer.Network(n)
	}
}

// Network hands over what nodes need to know of each other.
func (p *sessionPeer) Network(n *state.Network) {
	if p.cfg.Network != nil {
		p.cfg.Network.Update(n)
	}
}

// resolver is the resolv.conf of a pod, once pods can have addresses here.
func (a *Agent) resolver(ctx context.Context, p *state.AssignedPod) ([]string, error) {
	spec := &p.Template.Spec.Spec
	if a.cfg.Network == nil || spec.HostNetwork && spec.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		return a.cfg.DNS, nil
	}
	lines, err := a.cfg.Network.Resolver(ctx, p.Key.Namespace)
	if err != nil {
		return nil, fmt.Errorf("wait for this node's pod range: %w", err)
	}
	if spec.DNSPolicy == corev1.DNSDefault {
		return a.cfg.DNS, nil
	}
	return lines, nil
}

// wireNetwork is a network against the one before it on the same stream.
type wireNetwork struct {
	Seq       state.Seq           `pb:"1"`
	Base      state.Seq           `pb:"2"`
	Whole     bool                `pb:"3"`
	Pods      string              `pb:"4"`
	Addresses string              `pb:"5"`
	Nodes     []state.NodeNetwork `pb:"6"` // all: they are few and change rarely
	Services  []state.Service     `pb:"7"` // new or changed
	Gone      []state.Ref         `pb:"8"`
}

// encodeNetwork is n against last; nil: against nothing.
func encodeNetwork(last, n *state.Network) *wireNetwork {
	w := &wireNetwork{Seq: n.Seq, Whole: last == nil, Pods: n.Pods, Addresses: n.Addresses}
	for _, node := range n.Nodes {
		w.Nodes = append(w.Nodes, *node)
	}
	had := map[state.Ref]*state.Service{}
	if last != nil {
		w.Base = last.Seq
		for _, s := range last.Services {
			had[s.Ref] = s
		}
	}
	for _, s := range n.Services {
		if had[s.Ref] != s {
			w.Services = append(w.Services, *s)
		}
		delete(had, s.Ref)
	}
	w.Gone = slices.SortedFunc(maps.Keys(had), state.Ref.Compare)
	return w
}

// decodeNetwork is the network that w makes of last. What didn't change are the
// same pointers.
func decodeNetwork(last *state.Network, w *wireNetwork) (*state.Network, error) {
	n := &state.Network{Seq: w.Seq, Pods: w.Pods, Addresses: w.Addresses}
	for i := range w.Nodes {
		n.Nodes = append(n.Nodes, &w.Nodes[i])
	}
	now := map[state.Ref]*state.Service{}
	switch {
	case w.Whole:
	case last == nil || last.Seq != w.Base:
		return nil, fmt.Errorf("a change of network %d, which this stream did not carry: %w", w.Base, runtimes.ErrUnavailable)
	default:
		for _, s := range last.Services {
			now[s.Ref] = s
		}
	}
	for _, ref := range w.Gone {
		delete(now, ref)
	}
	for i := range w.Services {
		now[w.Services[i].Ref] = &w.Services[i]
	}
	n.Services = slices.SortedFunc(maps.Values(now), func(a, b *state.Service) int { return a.Ref.Compare(b.Ref) })
	return n, nil
}
