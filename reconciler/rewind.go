package reconciler

import (
	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// rewound says whether a revision waits for a person: it doesn't follow from the
// one before it, as after a forced push, a tag that was moved, or an old branch
// put back in place of the newer one by who can serve what we read. What runs
// stays as it is. said is kept, so that it goes on as soon as it is approved; a
// controller that was restarted meanwhile is told again.
func (m *Machine) rewound(app state.AppName, rev state.Revision, is bool, said state.Event) bool {
	a := m.fold.Apps[app]
	delete(m.later, app)
	if a == nil || a.Removed {
		return false // whoever called knows what that means
	}
	if !is {
		m.releaseApp(a, state.HoldRewind)
		return false
	}
	h := state.Held{Object: appHold(a), Code: state.HoldRewind, Params: []string{string(rev), string(a.Revision)}}
	if old := m.fold.Holds[plan.HoldID(h)]; old != nil && old.Approved && old.Params[0] == string(rev) {
		m.releaseApp(a, state.HoldRewind)
		return false
	}
	if old := m.fold.Holds[plan.HoldID(h)]; old != nil && old.Approved {
		m.releaseApp(a, state.HoldRewind) // another revision was approved, not this one
	}
	for _, code := range admissions() {
		m.releaseApp(a, code) // what waited before is overtaken
	}
	m.holdApp(a, h)
	m.later[app] = said
	return true
}

// goOn takes what was held back for a person, who approved it.
func (m *Machine) goOn(app state.AppName) {
	if said := m.later[app]; said != nil {
		m.event(said)
	}
}
