package reconciler

import (
	"maps"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// SetNext plants another rollout.
func (m *Machine) SetNext(next func(*state.Workload, state.Instant) rollout.Step) {
	m.planner.Next = next
}

// StepForgetting is Step, but for some events what they make dirty is forgotten;
// with timers, so is what a timer makes dirty; with leases, what a lapsed one does.
func (m *Machine) StepForgetting(now state.Instant, events []state.Event, forget func(state.Event) bool, timers, leases bool) Output {
	m.begin(now)
	for _, e := range events {
		m.cause, m.actor = 0, state.Text{}
		before := maps.Clone(m.dirty)
		m.event(e)
		if forget(e) {
			m.dirty = before
		}
	}
	m.cause, m.actor = 0, state.Text{}
	before := maps.Clone(m.dirty)
	m.leases()
	m.restoreDue()
	if leases {
		m.dirty = before
	}
	for ref, at := range m.wakes.at {
		if at <= m.now.Mono && !timers {
			m.dirty[ref] = true
		}
	}
	return m.finish()
}
