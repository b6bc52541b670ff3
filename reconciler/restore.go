package reconciler

import (
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// restore returns applications whose revision failed to the last one that was
// reached whole, where their Application asks for it. What failed is quarantined:
// the same render isn't applied again without a person. Where a StatefulSet has
// data, a person is asked before: an older program may not read what a newer one
// wrote. A suspended application isn't changed: it is returned when that is over.
// It says whether it did anything.
func (m *Machine) restore() bool {
	before := len(m.out.Records)
	for _, name := range sorted(m.apps) {
		a := m.fold.Apps[name]
		delete(m.restoreAt, name)
		if a == nil || a.Removed || a.Spec.Rollout.OnFailure != state.RestoreGood {
			continue
		}
		failed := m.failed(a)
		if failed.IsZero() {
			m.releaseApp(a, state.HoldRestore)
			continue
		}
		if until, on := a.SuspendedAt(m.now.Wall); on {
			if until > 0 {
				m.restoreAt[name] = m.now.Mono + time.Duration(until-m.now.Wall)
			}
			continue
		}
		h := state.Held{Object: appHold(a), Code: state.HoldRestore, Params: []string{string(a.Revision), string(a.Good.Revision)}}
		old := m.fold.Holds[plan.HoldID(h)]
		if m.hasData(name) && (old == nil || !old.Approved || !slices.Equal(old.Params, h.Params)) {
			m.holdApp(a, h)
			continue
		}
		m.releaseApp(a, state.HoldRestore)
		m.goBack(a, failed)
	}
	return len(m.out.Records) > before
}

// failed is a workload for which an application's revision counts as failed; none:
// it doesn't, or there is nothing to return to.
func (m *Machine) failed(a *state.App) state.Ref {
	if a.Converged || a.Good.Manifest.IsZero() || a.Good.Manifest == a.Manifest {
		return state.Ref{}
	}
	var stalled state.Ref // the first, by name
	for _, w := range m.fold.Inventory(a.Spec.Name).Workloads {
		if w.IsStalled && !w.Deleting && w.Parent == nil && (stalled.IsZero() || w.Ref.Compare(stalled) < 0) {
			stalled = w.Ref
		}
	}
	if !stalled.IsZero() {
		return stalled
	}
	due := a.AppliedAt.Mono + a.Spec.Rollout.HealthTimeout
	switch {
	case a.Spec.Rollout.HealthTimeout == 0 || m.holds(a):
		return state.Ref{} // what is held waits for the world: the revision isn't to blame
	case m.now.Mono < due:
		m.restoreAt[a.Spec.Name] = due
		return state.Ref{}
	}
	return m.unavailable(a.Spec.Name)
}

// holds says whether a workload of the application is held.
func (m *Machine) holds(a *state.App) bool {
	for _, h := range m.fold.Holds {
		if h.App == a.Spec.Name && !h.Approved && h.Object.Kind != "Application" {
			return true
		}
	}
	return false
}

// hasData says whether a StatefulSet of the application has volumes.
func (m *Machine) hasData(name state.AppName) bool {
	for _, w := range m.fold.Inventory(name).Workloads {
		if w.Ref.Kind == "StatefulSet" && len(m.fold.ClaimsOf(w.Ref)) > 0 {
			return true
		}
	}
	return false
}

func (m *Machine) goBack(a *state.App, failed state.Ref) {
	good, err := m.blobs.Manifest(a.Good.Manifest)
	if err != nil {
		return // it isn't beside the log any more: a newer commit is the way on
	}
	changes, conflicts := m.diff(a, good)
	if len(conflicts) > 0 {
		return // another application has taken over what it had
	}
	name, rev, commit := a.Spec.Name, a.Revision, a.Commit
	bad, err := m.blobs.Manifest(a.Manifest)
	if err != nil {
		return
	}
	r := m.emit(name, &state.AppQuarantined{Revision: a.Revision, Manifest: a.Manifest, Workload: failed, Good: a.Good.Revision})
	m.cause = r.Seq
	changes = append(changes, m.prune(a, good, false)...)
	m.emit(name, &state.RevisionApplied{Revision: a.Good.Revision, Commit: a.Good.Commit, Manifest: good.Digest, Changes: changes, Restores: true})
	m.resize(changes)
	m.askToPrune(a)
	switch waits := m.admissible(name); {
	case waits != nil: // newer than what failed, and goes on as soon as it may
		m.apply(a, waits.Revision, waits.Commit, waits.Manifest)
	case m.later[name] == nil:
		m.apply(a, rev, commit, bad) // which is held, so that a person may let it go on
	}
	m.cause = 0
}

// restoreWake is when the next application's time to become healthy is over; 0: never.
func (m *Machine) restoreWake() time.Duration {
	var first time.Duration
	for _, at := range m.restoreAt {
		first = soonest(first, max(1, at))
	}
	return first
}

// restoreDue marks the applications whose time is over.
func (m *Machine) restoreDue() {
	for name, at := range m.restoreAt {
		if at <= m.now.Mono {
			m.apps[name] = true
		}
	}
}
