// Package schedule says where pods go.
//
//	plan ──how many of which template──► [ schedule ] ──which nodes, and why not the others──► plan
//
// In: the state, a template and a count. Out: nodes, and each other node's
// reason. It is a pure function: integers, canonical order, no randomness.
//
// The filters and scores are kube-scheduler's (its plugins are named where a
// rule is theirs), with three differences. The image index, the architecture,
// the Windows build and the isolation decide too: Kubernetes binds such a pod
// and the node fails it. Every node is looked at, none is sampled, and every
// refusal has a reason that is kept. Scores aren't normalised over the nodes at
// hand, so a batch is placed at once as it would be one by one.
package schedule

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Request is a batch of pods of one template: one equivalence class.
type Request struct {
	Workload *state.Workload
	Variant  *state.WorkloadVariant
	Template *state.Template
	Count    int
	Node     state.NodeName // only here, where set (an identity that has data there)
	After    []Placed       // decided in the same step and not yet in the state
	Gone     []*state.Pod   // told to stop in the same step: Preempt counts on that
}

// Placed is what an earlier request of the same step was answered: its pods
// count as if they ran.
type Placed struct {
	Workload *state.Workload
	Template *state.Template
	Spots    []Spot
}

// A Spot is where one pod goes, and how it is kept apart there.
type Spot struct {
	Node      *state.Node
	Isolation state.Isolation
}

// An Answer has up to Count spots in the order in which pods should take them;
// a node may stand there several times. Groups has every node that couldn't take
// one more pod at the end, by reason.
type Answer struct {
	Spots  []Spot
	Groups []state.ReasonGroup
	// Static: no node could take such a pod even if it were empty.
	Static bool
}

// Place says where the pods of a request go. With Count 0 it only says why nodes
// couldn't take one. Ties are broken by node name.
func Place(s *state.State, req Request) Answer { return new(Roster).Place(s, req) }

// Place is Place with what the roster has of the nodes.
func (r *Roster) Place(s *state.State, req Request) Answer {
	b := newBatch(r, s, &req)
	b.constrain()
	b.count()
	b.filter()
	b.rank()
	spots := b.pick(req.Count)
	return Answer{Spots: spots, Groups: b.refusals(), Static: b.static}
}

// newGroup names nodes as a ReasonGroup keeps them: ascending, each as the
// difference to the one before.
func newGroup(reason state.NodeReason, nodes []uint32) state.ReasonGroup {
	slices.Sort(nodes)
	for i := len(nodes) - 1; i > 0; i-- {
		nodes[i] -= nodes[i-1]
	}
	return state.ReasonGroup{Reason: reason, Nodes: nodes}
}

// Members are the indexes of a group's nodes, ascending: the reverse of how it
// is kept.
func Members(g state.ReasonGroup) []uint32 {
	out := slices.Clone(g.Nodes)
	for i := 1; i < len(out); i++ {
		out[i] += out[i-1]
	}
	return out
}
