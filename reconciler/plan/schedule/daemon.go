package schedule

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Host is a node that a DaemonSet's pod belongs on, or why it doesn't.
type Host struct {
	Node    *state.Node
	Variant *state.WorkloadVariant // the one for the node's OS; nil: the text has none
	Reason  state.NodeReason       // NodeFits: it belongs there
	Stays   bool                   // one that is there may stay (Kubernetes: NoSchedule taints don't end it)
}

// Hosts says of each node, by name, whether a DaemonSet wants a pod there: what
// the machine executes, the pod's own rules, and taints. Room and readiness
// don't matter.
func Hosts(s *state.State, w *state.Workload) []Host { return new(Roster).Hosts(s, w) }

// Hosts is Hosts with what the roster has of the nodes.
func (r *Roster) Hosts(s *state.State, w *state.Workload) []Host {
	r.follow(s)
	classes := make([]*class, len(w.Variants))
	for i, v := range w.Variants {
		if v.Update != nil {
			classes[i] = newClass(v.Update)
		}
	}
	out := make([]Host, 0, len(r.seats))
	for k := range r.seats {
		n := r.seats[k].node
		h := Host{Node: n, Reason: state.NodeOtherOS}
		for i, v := range w.Variants {
			if v.OS != state.AnyOS && v.OS != n.Facts.OS || classes[i] == nil {
				continue
			}
			h.Variant = v
			h.Reason, _ = classes[i].allows(n)
			h.Stays = h.Reason == state.NodeFits || h.Reason == state.NodeTainted && !classes[i].evicted(n)
		}
		out = append(out, h)
	}
	return out
}

// evicted says whether the node has a NoExecute taint that the pod doesn't tolerate.
func (c *class) evicted(n *state.Node) bool {
	return slices.ContainsFunc(n.Facts.Taints, func(t state.Taint) bool {
		return corev1.TaintEffect(t.Effect) == corev1.TaintEffectNoExecute && !tolerates(c.spec.Tolerations, &t)
	})
}

// Each places one pod on each of the named nodes that takes it now.
func (r *Roster) Each(s *state.State, req Request, nodes []state.NodeName) Answer {
	b := newBatch(r, s, &req)
	b.constrain()
	b.count()
	b.filter()
	var a Answer
	refused := map[state.NodeReason][]uint32{}
	for _, name := range nodes {
		i, ok := b.index(name)
		if !ok {
			continue
		}
		c := &b.nodes[i]
		reason := c.reason
		if reason == state.NodeFits {
			reason = b.others(i)
		}
		if reason == state.NodeFits {
			a.Spots = append(a.Spots, Spot{Node: c.node, Isolation: c.iso})
			continue
		}
		refused[reason] = append(refused[reason], c.node.Index)
	}
	for reason, at := range refused {
		a.Groups = append(a.Groups, newGroup(reason, at))
	}
	slices.SortFunc(a.Groups, func(x, y state.ReasonGroup) int { return cmp.Compare(x.Reason, y.Reason) })
	return a
}
