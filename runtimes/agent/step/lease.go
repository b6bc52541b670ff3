package step

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Granted is the controller's answer to a renewal. It says which assignment the
// node must have applied before it runs an identity anew.
type Granted struct{ Grant state.Grant }

func (*Granted) event() {}

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
		if p.held && m.current() {
			p.held = false
		}
		if at, ends := m.lease.Begins(class); ends {
			p.at(at)
		}
		return
	}
	p.held = true
	grace := m.lease.Grace(now.Mono, class, p.ownGrace())
	if p.busy() && !p.cancelled() {
		m.do(Action{Do: Cancel, UID: p.uid, Pod: p.want})
	}
	for i := range p.containers {
		c := &p.containers[i]
		if c.hooked() || c.stage == ending && c.act != 0 && c.stopBy > now.Mono+grace {
			c.stage, c.act = running, 0 // it would take longer than the lease lasts
		}
		m.end(now, p, c, grace)
	}
}
