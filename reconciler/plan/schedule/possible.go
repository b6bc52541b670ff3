package schedule

import "github.com/tandem-gitops/tandem/reconciler/state"

// Possible says that some node could take a pod of the request if it were empty:
// then Place's answer isn't Static. It stops at the first such node. False: that
// must be found out by Place.
func Possible(s *state.State, req Request) bool {
	spec := &req.Template.Spec.Spec
	if len(spec.TopologySpreadConstraints) > 0 || spec.Affinity != nil && spec.Affinity.PodAffinity != nil {
		return false // labels of nodes count too
	}
	c := newClass(req.Template)
	for _, n := range s.Nodes {
		if req.Node != "" && n.Name != req.Node {
			continue
		}
		reason, iso := c.allows(n)
		if reason == state.NodeFits && c.awake(n) == state.NodeFits && short(n.Facts.Allocatable, state.Charge(req.Template.Requests, iso)) == state.NodeFits {
			return true
		}
	}
	return false
}
