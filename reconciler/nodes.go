package reconciler

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// contact is what is known of an agent's session.
type contact struct {
	heard  time.Duration // steady time of the last renewal or report
	number uint64        // of the last report in this incarnation
	told   uint64        // generation of the last assignment that left for it
}

// checkTold is a law: a change of what a node should run is told at once. A grant
// names the newest generation, and an agent that never hears of it starts no identity.
func (m *Machine) checkTold() error {
	for _, name := range sorted(m.agents) {
		if n := m.fold.Nodes[name]; n != nil && n.Generation != m.agents[name].told {
			return fmt.Errorf("node %s was told assignment %d, and %d is the newest", name, m.agents[name].told, n.Generation)
		}
	}
	return nil
}

// hello is an agent that connects. A node that nobody knows joins.
func (m *Machine) hello(e *state.NodeHello) {
	n := m.fold.Nodes[e.Node]
	switch {
	case n == nil:
		m.emit("", &state.NodeJoined{Node: e.Node, Facts: e.Facts, BootID: e.BootID})
		n = m.fold.Nodes[e.Node]
	case n.BootID == e.BootID && e.Incarnation < n.Incarnation:
		return // an agent's process that another has replaced
	case !reflect.DeepEqual(n.Facts, e.Facts):
		m.emit("", &state.NodeChanged{Node: e.Node, Facts: e.Facts})
	}
	m.agents[e.Node] = &contact{}
	m.heard(e.Node)
	m.touched[e.Node] = true
	if !n.Ready || n.Parked || n.Silent > 0 || n.BootID != e.BootID || n.Incarnation != e.Incarnation {
		// What a clean stop left to an agent for ever it gives up once it is
		// answered, which it may never be.
		parked := n.Parked && n.Facts.Fences
		m.emit("", &state.NodeReady{Node: e.Node, BootID: e.BootID, Incarnation: e.Incarnation, Parked: parked})
	}
}

func (m *Machine) renewed(e *state.Renewed) {
	n, c := m.fold.Nodes[e.Node], m.agents[e.Node]
	if n == nil || c == nil {
		return
	}
	m.heard(e.Node)
	if !n.Ready || n.Parked || n.Silent > 0 {
		m.touched[e.Node] = true
		m.emit("", &state.NodeReady{Node: e.Node, BootID: n.BootID, Incarnation: n.Incarnation})
	}
	if e.Sent > 0 {
		m.renewals = append(m.renewals, e)
	}
}

// reported takes a report, unless its fencing tuple says that it speaks of an
// older life of the node, the agent or the pods.
func (m *Machine) reported(r *state.Report) {
	n, c := m.fold.Nodes[r.Node], m.agents[r.Node]
	if n == nil || c == nil || r.Epoch != n.Epoch || r.BootID != n.BootID || r.Incarnation != n.Incarnation || r.Number <= c.number {
		return
	}
	c.number = r.Number
	m.renewed(&state.Renewed{Node: r.Node})
	for i := range r.Pods {
		if p := m.fold.Pods[r.Pods[i].UID]; p != nil && p.Node == r.Node {
			m.observed(p, &r.Pods[i])
		}
	}
	gone := map[state.UID]bool{}
	for _, uid := range r.Gone {
		gone[uid] = true
	}
	if r.Full {
		for uid := range n.Pods {
			gone[uid] = true
		}
		for i := range r.Pods {
			delete(gone, r.Pods[i].UID)
		}
	}
	for _, uid := range slices.SortedFunc(maps.Keys(gone), state.UID.Compare) {
		p := m.fold.Pods[uid]
		if p == nil || p.Node != r.Node || r.Applied < p.PlacedGen {
			continue
		}
		m.gone(p, !p.Stopping)
	}
	m.volumesGone(r)
}

func (m *Machine) appOf(p *state.Pod) state.AppName {
	if w := m.fold.Workloads[p.Workload]; w != nil {
		return w.App
	}
	return ""
}

// observed records a change in what an agent says of a pod, unless the pod
// changes too often.
func (m *Machine) observed(p *state.Pod, s *state.PodStatus) {
	if p.Reported && !p.Flapping && sameStatus(p, s) || !p.Reported && begins(s) {
		return
	}
	cause := m.cause
	m.cause = p.PlacedSeq
	if m.calm(p, s) {
		m.emit(m.appOf(p), factOf(s))
	}
	m.cause = cause
}

// begins says whether a status tells no more than that the pod was placed. Words
// say what keeps it from beginning.
func begins(s *state.PodStatus) bool {
	return s.Phase == state.Pending && !s.Ready && s.Restarts() == 0 && s.Detail.IsZero() &&
		(s.Reason == state.ReasonContainerCreating || s.Reason == state.ReasonInitializing)
}

func factOf(s *state.PodStatus) *state.PodObserved {
	return &state.PodObserved{
		UID: s.UID, Phase: s.Phase, Ready: s.Ready, IP: s.IP, Reason: s.Reason, Detail: s.Detail, Containers: s.Containers,
	}
}

func sameStatus(p *state.Pod, s *state.PodStatus) bool {
	ip := ""
	if p.IP.IsValid() {
		ip = p.IP.String()
	}
	// The words' token is salted: the same words again are no change, so the
	// reason and the containers stand for them.
	return p.Phase == s.Phase && p.Ready == s.Ready && ip == s.IP && p.Reason == s.Reason && slices.EqualFunc(p.Containers, s.Containers, func(a, b state.ContainerStatus) bool {
		a.LastSaid = b.LastSaid
		return a == b
	})
}

// soonest is the earlier of two steady times, where 0 means never.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// removeNode forgets a node that will not come back, and the pods on it.
func (m *Machine) removeNode(n *state.Node) {
	for _, uid := range slices.SortedFunc(maps.Keys(n.Pods), state.UID.Compare) {
		m.gone(n.Pods[uid], true)
	}
	m.emit("", &state.NodeRemoved{Node: n.Name})
	m.unseen()
	delete(m.agents, n.Name)
}
