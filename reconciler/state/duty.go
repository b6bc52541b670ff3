package state

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A Duty is what is asked of a node beside running pods: facts of its own that
// make pods leave it.
type Duty struct {
	Draining bool    // a person empties it; ends with its cordon
	Changed  Seq     // of the record that last changed its facts: pods placed later fit them
	Tainted  Instant // when its taints last changed: tolerationSeconds count from then
}

// duty folds what a record says of that.
func (s *State) duty(r *Record, before []Taint) {
	switch f := r.Fact.(type) {
	case *NodeChanged:
		n := s.Nodes[f.Node]
		n.Duty.Changed = r.Seq
		if !slices.Equal(before, n.Facts.Taints) {
			n.Duty.Tainted = r.At
		}
		s.watch(n)
	case *NodeCordoned:
		if n := s.Nodes[f.Node]; n != nil && !f.On {
			n.Duty.Draining = false
			s.watch(n)
		}
	case *Commanded:
		if n := s.Nodes[NodeName(f.Object.Name)]; n != nil && f.Verb == CmdDrain {
			n.Duty.Draining = true
			s.watch(n)
		}
	}
}

// restless says whether a pod may have to leave the node: it is emptied, its
// machine changed since some pods came, or a taint ends pods.
func (n *Node) restless() bool {
	return n.Duty.Draining || n.Duty.Changed > 0 || slices.ContainsFunc(n.Facts.Taints, func(t Taint) bool {
		return t.Effect == string(corev1.TaintEffectNoExecute)
	})
}

// watch keeps Restless what it says.
func (s *State) watch(n *Node) {
	if n.restless() {
		s.Restless[n.Name] = n
	} else {
		delete(s.Restless, n.Name)
	}
}

// CmdEvict stops a pod as far as disruption budgets let it.
const CmdEvict CommandVerb = 48

// ReplyBudget refuses an eviction that a disruption budget forbids now.
const ReplyBudget ReplyCode = 16
