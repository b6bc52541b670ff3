package reconciler

import (
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Leases, the controller's end (docs/design/0004). A node that isn't heard for
// as long as a lease of its classes may go on is lost, and its identities of
// that class are free: the agent has ended them, or the node is off. No grant
// leaves before what the step decided is durable, so a grant never stands
// against a move that was decided before it.

// heard notes that an agent lives.
func (m *Machine) heard(name state.NodeName) {
	if m.agents[name] == nil {
		m.agents[name] = &contact{}
	}
	m.agents[name].heard = m.now.Mono
	if at := m.now.Mono + lease.Suspicion; m.lapse == 0 || at < m.lapse {
		m.lapse = at
	}
}

// takeOver counts a node as granted now, since the controller before may just
// have done so; less what that one recorded of its silence, after which it
// granted nothing.
func (m *Machine) takeOver(n *state.Node) {
	m.heard(n.Name)
	m.agents[n.Name].heard -= n.Silent
	m.lapse = max(1, m.now.Mono)
}

// leases finds nodes whose leases lapsed. Renewals only put a lapse off, so the
// nodes are looked through no more often than one could come due.
func (m *Machine) leases() {
	if m.lapse == 0 || m.lapse > m.now.Mono || m.fold.Stopped {
		return
	}
	m.lapse = 0
	for _, n := range m.fold.SortedNodes() {
		if c := m.agents[n.Name]; c != nil {
			if at := m.silence(n, c); at > 0 {
				m.lapse = soonest(m.lapse, max(1, at))
			}
		}
	}
}

// silence decides what a node's silence means by now, and says when it will
// mean more; 0: never.
func (m *Machine) silence(n *state.Node, c *contact) time.Duration {
	silent := m.now.Mono - c.heard
	classes := identities(n)
	lost := lease.Failover.Terms().Wait
	if len(classes) > 0 && !n.Parked {
		lost = min(lost, classes[0].Terms().Wait)
	}
	if n.Ready && silent >= lost {
		m.emit("", &state.NodeLost{Node: n.Name, Since: state.Instant{Mono: c.heard}})
	}
	var next time.Duration
	if n.Ready {
		next = c.heard + lost
	}
	if n.Parked {
		return next
	}
	for _, class := range classes {
		if silent < class.Terms().Wait {
			next = soonest(next, c.heard+class.Terms().Wait)
			return soonest(next, m.suspect(n, c, silent))
		}
		m.fence(n, class)
	}
	return next
}

// identities are the classes of a node's pods that move, the shortest lease first.
func identities(n *state.Node) []lease.Class {
	var out []lease.Class
	if !n.Facts.Fences {
		return nil // its agent was replaced by one that ends nothing
	}
	for _, class := range []lease.Class{lease.FailoverFast, lease.Failover} {
		for _, p := range n.Pods {
			if p.Loss == class {
				out = append(out, class)
				break
			}
		}
	}
	return out
}

// suspect records a silence that may come to a move, so that a controller that
// keeps crashing gets there, and says when to do so again.
func (m *Machine) suspect(n *state.Node, c *contact, silent time.Duration) time.Duration {
	due := lease.Suspicion
	if n.Silent > 0 {
		due = n.Silent + lease.Progress
	}
	if silent >= due {
		m.emit("", &state.NodeSuspect{Node: n.Name, Epoch: n.Epoch, BootID: n.BootID, Silent: silent})
		due = silent + lease.Progress
	}
	return c.heard + due
}

// fence ends the lives of a class on a silent node: no copy runs there any
// more. What its agent says of them later is of a life that has ended.
func (m *Machine) fence(n *state.Node, class lease.Class) {
	var pods []*state.Pod
	for _, p := range n.Pods {
		if p.Loss == class {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *state.Pod) int { return a.UID.Compare(b.UID) })
	for _, p := range pods {
		m.emit(m.appOf(p), &state.PodGone{UID: p.UID, Fenced: true})
	}
}

// lossOf is the class of a pod that is placed: its workload's, on a node whose
// agent ends it by itself.
func lossOf(w *state.Workload, n *state.Node) lease.Class {
	if !n.Facts.Fences {
		return lease.Wait
	}
	return w.NodeLoss()
}

// grants answers the step's renewals, as of all that it decided.
func (m *Machine) grants() []state.Grant {
	var out []state.Grant
	for _, e := range m.renewals {
		if n := m.fold.Nodes[e.Node]; n != nil && n.Facts.Fences {
			out = append(out, state.Grant{Node: n.Name, Session: e.Session, Sent: e.Sent, Epoch: n.Epoch, Generation: n.Generation})
		}
	}
	m.renewals = nil
	if m.fold.Stopped {
		for _, n := range m.fold.SortedNodes() {
			if n.Facts.Fences && n.Ready {
				out = append(out, state.Grant{Node: n.Name, Epoch: n.Epoch, Generation: n.Generation, Endless: true})
			}
		}
	}
	return out
}
