package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

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
	// Services are those of a namespace as last handed over, sorted by name.
	Services(namespace string) []*state.Service
}

// A NetworkPeer is a Peer that serves Services.
type NetworkPeer interface {
	// Network hands over the newest network, never to be changed. It doesn't block.
	Network(n *state.Network)
}

// serves says whether a node is told of the network: a simulated one has none.
func serves(f *state.NodeFacts) bool { return !f.Simulated }

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
	var lines []string
	var err error
	if a.cfg.Network != nil && (!spec.HostNetwork || spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet) {
		if lines, err = a.cfg.Network.Resolver(ctx, p.Key.Namespace); err != nil {
			return nil, fmt.Errorf("wait for this node's pod range: %w", err)
		}
	}
	switch {
	case spec.DNSPolicy == corev1.DNSNone:
		lines = nil
	case spec.DNSPolicy == corev1.DNSDefault || lines == nil:
		if lines, err = a.hostDNS(spec.DNSConfig != nil); err != nil {
			return nil, err
		}
	}
	return configured(lines, spec.DNSConfig), nil
}

// configured adds a pod's dnsConfig to the lines of a resolv.conf: servers and
// search paths after those that are there, options in place of them.
func configured(lines []string, c *corev1.PodDNSConfig) []string {
	if c == nil {
		return lines
	}
	var servers, search, out []string
	options := map[string]string{}
	var order []string
	option := func(name, text string) {
		if _, ok := options[name]; !ok {
			order = append(order, name)
		}
		options[name] = text
	}
	for _, line := range lines {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "nameserver":
			servers = append(servers, f[1])
		case f[0] == "search":
			search = append(search, f[1:]...)
		case f[0] == "options":
			for _, o := range f[1:] {
				name, _, _ := strings.Cut(o, ":")
				option(name, o)
			}
		default:
			out = append(out, line)
		}
	}
	for _, o := range c.Options {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		option(o.Name, text)
	}
	for _, s := range unique(append(servers, c.Nameservers...)) {
		out = append(out, "nameserver "+s)
	}
	if all := unique(append(search, c.Searches...)); len(all) > 0 {
		out = append(out, "search "+strings.Join(all, " "))
	}
	if len(order) > 0 {
		words := []string{"options"}
		for _, name := range order {
			words = append(words, options[name])
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// clusterDomain is what the names of Services end with.
const clusterDomain = "cluster.local"

// hostDNS is the resolv.conf of pods that use the machine's own servers; nil,
// where the lines aren't needed: the runtime takes the machine's file as it is.
func (a *Agent) hostDNS(needed bool) ([]string, error) {
	path := a.cfg.Resolv
	if path == "" {
		if !needed {
			return nil, nil
		}
		path = "/etc/resolv.conf"
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && a.cfg.Resolv == "" {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n"), nil
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
	Routing   state.Routing       `pb:"9"`
}

// encodeNetwork is n against last; nil: against nothing.
func encodeNetwork(last, n *state.Network) *wireNetwork {
	w := &wireNetwork{Seq: n.Seq, Whole: last == nil, Pods: n.Pods, Addresses: n.Addresses, Routing: n.Routing}
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
	n := &state.Network{Seq: w.Seq, Pods: w.Pods, Addresses: w.Addresses, Routing: w.Routing}
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
