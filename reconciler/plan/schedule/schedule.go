// Package schedule says where pods go.
//
//	plan ──how many of which template──► [ schedule ] ──which nodes, and why not the others──► plan
//
// In: the state, a template and a count. Out: nodes, and each other node's
// reason. It is a pure function: integers, canonical order, no randomness.
package schedule

import "github.com/tandem-gitops/tandem/reconciler/state"

// A Request is a batch of pods of one template: one equivalence class.
type Request struct {
	Workload *state.Workload
	Variant  *state.WorkloadVariant
	Template *state.Template
	Count    int
	Node     state.NodeName // only here, where set (an identity that has data there)
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
