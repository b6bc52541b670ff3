package schedule

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Roster is what placements have in common: the nodes by name, what machines
// they are and the domains of their labels. It is worked out once and kept until
// a node joins, leaves or says something else of itself, so that one pod's
// placement doesn't pay for it. It has nothing that could change an answer: a
// new one gives the same. Its zero value is ready; it isn't safe for concurrent
// use.
type Roster struct {
	state  *state.State
	asOf   uint64
	seats  []seat // by node name
	byName map[state.NodeName]int32
	kinds  []*state.Node // one node of each kind of machine
	labels map[string]*topology

	// What one batch leaves for the next to use again.
	nodes []candidate
	heaps []int32
}

// A seat is what of a node stays until it says something else of itself.
type seat struct {
	node        *state.Node
	allocatable state.Resources
	kind        int32 // of Roster.kinds
	tainted     bool
	unfenced    bool
}

// follow brings the roster up to date with a state.
func (r *Roster) follow(s *state.State) {
	if r.state == s && r.asOf == s.Facts() && len(r.seats) == len(s.Nodes) {
		return
	}
	*r = Roster{
		state: s, asOf: s.Facts(), seats: make([]seat, 0, len(s.Nodes)), labels: map[string]*topology{},
		byName: make(map[state.NodeName]int32, len(s.Nodes)), nodes: r.nodes[:0], heaps: r.heaps[:0],
	}
	for _, n := range s.Nodes {
		r.seats = append(r.seats, seat{node: n, allocatable: n.Facts.Allocatable, tainted: len(n.Facts.Taints) > 0, unfenced: n.Facts.Unfenced})
	}
	slices.SortFunc(r.seats, func(a, b seat) int { return strings.Compare(string(a.node.Name), string(b.node.Name)) })
	kinds := map[machine]int32{}
	for i := range r.seats {
		n := r.seats[i].node
		r.byName[n.Name] = int32(i)
		key := machineOf(&n.Facts)
		kind, ok := kinds[key]
		if !ok {
			kind = int32(len(kinds))
			kinds[key] = kind
			r.kinds = append(r.kinds, n)
		}
		r.seats[i].kind = kind
	}
}

// topology returns the domains of a label.
func (r *Roster) topology(key string) *topology {
	t := r.labels[key]
	switch {
	case t != nil:
	case key == corev1.LabelHostname:
		t = hostnames(len(r.seats))
		r.labels[key] = t
	default:
		t = newTopology(key, r.seats)
		r.labels[key] = t
	}
	return t
}

// candidates are a batch's, one for each seat. What the batch before had is
// overwritten: there is one at a time.
func (r *Roster) candidates() []candidate {
	r.nodes = slices.Grow(r.nodes[:0], len(r.seats))[:len(r.seats)]
	for i := range r.seats {
		r.nodes[i] = candidate{seat: &r.seats[i], used: r.seats[i].node.Used}
	}
	return r.nodes
}

// heap is room for all nodes' numbers, for one batch at a time.
func (r *Roster) heap() []int32 {
	r.heaps = slices.Grow(r.heaps[:0], len(r.seats))[:len(r.seats)]
	return r.heaps
}
