package reconciler

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/plan/promote"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// admits says whether a manifest may be applied now. What waits (for a person,
// a time, another application) is kept, so that it goes on by itself as soon as
// it may; a newer revision takes its place. A person may let the one revision go
// on that waits, whatever it waits for. A controller that was restarted
// meanwhile is told again.
func (m *Machine) admits(a *state.App, rev state.Revision, commit state.Commit, manifest *state.Manifest) bool {
	name := a.Spec.Name
	code, params, wake := m.waitsFor(a, rev)
	if failed, ok := a.FailedAs(manifest.Digest); ok {
		code, params, wake = state.HoldQuarantined, []string{string(failed.Revision), string(a.Revision)}, 0
	}
	for _, other := range admissions() {
		if other != code {
			m.releaseApp(a, other)
		}
	}
	if code == 0 {
		delete(m.later, name)
		return true
	}
	h := state.Held{Object: appHold(a), Code: code, Params: append([]string{string(rev)}, params...)}
	if old := m.fold.Holds[plan.HoldID(h)]; old != nil && old.Approved && old.Params[0] == string(rev) {
		m.releaseApp(a, code)
		delete(m.later, name)
		return true
	}
	m.holdApp(a, h)
	m.later[name] = &state.Rendered{App: name, Revision: rev, Commit: commit, Manifest: manifest}
	m.admitAt[name] = wake
	return false
}

// admissions are what a revision that is to be applied may wait for.
func admissions() []state.HoldCode {
	return []state.HoldCode{state.HoldSuspended, state.HoldDependency, state.HoldWindow, state.HoldManual, state.HoldQuarantined}
}

// waitsFor is what keeps a revision from being applied, and when that changes by
// itself with time: steady time, 0 where it doesn't.
func (m *Machine) waitsFor(a *state.App, rev state.Revision) (code state.HoldCode, params []string, wake time.Duration) {
	if until, on := a.SuspendedAt(m.now.Wall); on {
		if until > 0 {
			wake = m.now.Mono + time.Duration(until-m.now.Wall)
		}
		return state.HoldSuspended, nil, wake
	}
	for _, name := range a.Spec.DependsOn {
		if !m.dependable(a, name, rev) {
			params = append(params, string(name))
		}
	}
	if len(params) > 0 {
		return state.HoldDependency, params, 0
	}
	if wake, shut := m.shut(a); shut {
		return state.HoldWindow, nil, wake
	}
	if a.Spec.Sync == state.SyncManual {
		return state.HoldManual, nil, 0
	}
	return 0, nil, 0
}

// dependable says whether an application that another depends on is as its own
// text says. Where both follow the same source, it must have reached the same
// revision first: else the dependent would overtake it within one commit.
func (m *Machine) dependable(a *state.App, name state.AppName, rev state.Revision) bool {
	b := m.fold.Apps[name]
	if b == nil || b.Removed || !b.Converged || b.Rejected != nil || m.later[name] != nil {
		return false
	}
	return a.Spec.Source != b.Spec.Source || b.Revision == rev
}

// shut says whether an application has sync windows and none of them is open.
func (m *Machine) shut(a *state.App) (wake time.Duration, shut bool) {
	for i := range a.Spec.SyncWindows {
		open, at := promote.Window(&a.Spec.SyncWindows[i], m.now)
		if open {
			return 0, false
		}
		if at > 0 && (wake == 0 || at < wake) {
			wake = at
		}
	}
	return wake, len(a.Spec.SyncWindows) > 0
}

// touchAdmissions notes that something happened which a waiting revision may
// have waited for.
func (m *Machine) touchAdmissions(f state.Fact) {
	switch f.(type) {
	case *state.Converged, *state.AppDeclared, *state.AppRemoved, *state.AppSuspended, *state.RevisionSeen, *state.RevisionsSeen, *state.RevisionApplied, *state.Released, *state.ClockStepped:
		m.admitDirty = true
	}
}

// admissible is what waits for an application to be free to take it; nil: nothing
// does, or what waits is a branch put back, which a person has to allow first.
func (m *Machine) admissible(name state.AppName) *state.Rendered {
	said, ok := m.later[name].(*state.Rendered)
	if !ok || said.Rewound {
		return nil
	}
	return said
}

// admit applies what waited and may go on now. It says whether it did anything.
func (m *Machine) admit() bool {
	due := m.admitDirty
	for _, at := range m.admitAt {
		due = due || at > 0 && at <= m.now.Mono
	}
	if !due {
		return false
	}
	m.admitDirty = false
	before := len(m.out.Records)
	for _, name := range sorted(m.admitAt) {
		said := m.admissible(name)
		if said == nil { // something else took its place
			delete(m.admitAt, name)
			continue
		}
		a := m.fold.Apps[name]
		if a == nil || a.Removed {
			delete(m.later, name)
			delete(m.admitAt, name)
			continue
		}
		delete(m.admitAt, name)
		m.apply(a, said.Revision, said.Commit, said.Manifest) // which asks again
	}
	return len(m.out.Records) > before
}

// admitWake is when a waiting revision may go on by itself; 0: never.
func (m *Machine) admitWake() time.Duration {
	var first time.Duration
	for _, at := range m.admitAt {
		if at > 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// sync lets go on what waits for `tandem sync`.
func (m *Machine) sync(name state.AppName) {
	for _, h := range m.fold.Holds {
		if h.App == name && h.Code == state.HoldManual && !h.Approved {
			m.emit(name, &state.Released{ID: h.ID, Object: h.Object, Approved: true})
			return
		}
	}
}
