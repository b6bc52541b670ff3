package step

import (
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// Granted is the controller's answer to a renewal. It says which assignment the
// node must have applied before it runs an identity anew.
type Granted struct{ Grant state.Grant }

func (*Granted) event() {}

// Guarded is the fencer's answer: the identities that it guards and lets run.
// A fencer that doesn't answer guards none.
type Guarded struct{ Open []state.UID }

func (*Guarded) event() {}

func (m *Machine) guarded(e *Guarded) {
	before := m.guards
	m.guards = e.Open
	for _, p := range m.pods {
		p.dirty = p.dirty || slices.Contains(before, p.uid) != slices.Contains(m.guards, p.uid)
	}
}

// open says whether the fencer lets an identity start.
func (m *Machine) open(p *pod) bool {
	return !m.cfg.Fenced || p.class() == lease.Wait || slices.Contains(m.guards, p.uid)
}

// Word is what the fencer is to know: the leases, and the identities that end
// with them.
func (m *Machine) Word() fence.Word {
	w := fence.Word{Known: m.assignment != nil, Lease: m.lease, Endless: m.lease.Endless}
	for _, p := range m.pods {
		if class := p.class(); class != lease.Wait && p.life != gone {
			w.Wards = append(w.Wards, fence.Ward{UID: p.uid, Class: class, Grace: p.ownGrace(), Held: p.held, Ending: p.ending()})
		}
	}
	return w
}

// ending says whether the agent has asked the pod, or a part of it, to end.
func (p *pod) ending() bool {
	return slices.ContainsFunc(p.containers, func(c container) bool { return c.stage == ending })
}

// hold holds an identity, or lets it go.
func (p *pod) hold(held bool, why state.PodReason) {
	p.held = held
	if held {
		p.heldFor = why
	}
}

// Lease is what the node was granted, to be kept for a later process.
func (m *Machine) Lease() lease.Keeper { return m.lease }

// RenewEvery is how often the controller is to be asked.
func (m *Machine) RenewEvery() time.Duration {
	for _, p := range m.pods {
		if p.class() == lease.FailoverFast {
			return lease.RenewalFast
		}
	}
	return lease.Renewal
}

func (m *Machine) granted(now state.Instant, g *state.Grant) {
	for _, p := range m.pods { // an agent that was stopped may hear of the next lease before it looks at the last
		if p.class() != lease.Wait && p.life == living && !p.held && !m.lease.Live(now.Mono, p.class()) {
			p.hold(true, state.ReasonNodeLost)
			p.dirty = true
		}
	}
	if g.Endless {
		m.lease.Endless = true
	} else {
		m.lease.Grant(now.Mono, g.Sent)
	}
	if g.Epoch > m.floor.Epoch || g.Epoch == m.floor.Epoch && g.Generation > m.floor.Generation {
		m.floor = *g
	}
	m.unlease()
}

// reached ends an endless lease: every identity is given a deadline again.
func (m *Machine) reached(now state.Instant) {
	if !m.lease.Endless {
		return
	}
	m.lease.Reached(now.Mono)
	for _, p := range m.pods {
		p.dirty = p.dirty || p.class() != lease.Wait
	}
}

// unlease looks at the held pods again.
func (m *Machine) unlease() {
	for _, p := range m.pods {
		if p.held && p.class() != lease.Wait {
			p.dirty = true
		}
	}
}

// current says whether the applied assignment came from the controller in this
// process, and is no older than what the newest grant was given for.
func (m *Machine) current() bool {
	a := m.assignment
	return m.fresh && a != nil && (a.Epoch > m.floor.Epoch || a.Epoch == m.floor.Epoch && a.Generation >= m.floor.Generation)
}

// class is what becomes of the pod when the node's lease ends.
func (p *pod) class() lease.Class {
	if p.want == nil {
		return lease.Wait
	}
	return p.want.Loss
}

// abide holds an identity without a lease, and ends it: in time, whatever else
// goes on with it. Held, it stays so until there is a fresh grant and the
// assignment that belongs to it.
func (m *Machine) abide(now state.Instant, p *pod) {
	class := p.class()
	if class == lease.Wait || p.life == gone {
		return
	}
	if m.lease.Live(now.Mono, class) {
		if p.held && p.life == living && m.current() {
			p.held = false
		}
		if at, ends := m.lease.Begins(class); ends {
			p.at(at)
		}
		return
	}
	if !p.held {
		p.hold(true, state.ReasonNodeLost)
	}
	grace := m.lease.Grace(now.Mono, class, p.ownGrace())
	if p.busy() && !p.cancelled() {
		m.do(Action{Do: Cancel, UID: p.uid, Pod: p.want})
	}
	for i := range p.containers {
		c := &p.containers[i]
		if c.hooked() {
			c.act = 0 // the hook would take longer than the lease lasts
		}
		m.end(now, p, c, grace)
	}
}
