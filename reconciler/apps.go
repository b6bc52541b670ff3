package reconciler

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// defaultMaxDeletes is how many objects a commit may remove before a person is
// asked, where the Application doesn't say.
const defaultMaxDeletes = 10

func (m *Machine) event(e state.Event) {
	if m.fold.Stopped {
		return // nodes are parked: nothing unparks them but the next controller
	}
	switch e := e.(type) {
	case *state.RootRendered:
		m.root(e)
	case *state.Rendered:
		m.rendered(e)
	case *state.Unchanged:
		m.unchanged(e)
	case *state.UnchangedAll:
		m.unchangedAll(e)
	case *state.SourceStatus:
		m.source(e)
	case *state.ImageLooked:
		m.looked(e)
	case *state.NodeHello:
		m.hello(e)
	case *state.Renewed:
		m.renewed(e)
	case *state.Reported:
		m.reported(&e.Report)
	case *state.Command:
		m.command(e)
	case *state.Reviewed:
		m.reviewed(e)
	case *state.Pushed:
		m.pushed(e)
	case *state.Checked:
		m.checked(e)
	case *state.Noted:
		m.notedEvent(e)
	case *state.SessionOver:
		m.sessionOver(e)
	case *state.JoinTokenTold:
		m.tokenTold(e)
	case *state.Stop:
		m.emit("", &state.ControllerStopped{})
	}
}

// root takes the applications that a root declares, and its plain objects as
// the application root.
func (m *Machine) root(e *state.RootRendered) {
	root := m.fold.Apps[state.RootApp]
	if root == nil || root.Removed {
		return // `down` ended it
	}
	if m.rewound(state.RootApp, e.Revision, e.Rewound, e) {
		return
	}
	if len(e.Problems) > 0 {
		m.reject(root, e.Revision, e.Commit, len(e.Problems), e.Detail, nil)
		return
	}
	wanted := map[state.AppName]bool{state.RootApp: true}
	for _, app := range e.Apps {
		wanted[app.Name] = true
		if old := m.fold.Apps[app.Name]; old == nil || old.Removed || !sameSpec(old.Spec, app) {
			m.emit(app.Name, &state.AppDeclared{Application: app})
		}
	}
	if root.Spec.Rollout != e.Rollout {
		spec := root.Spec
		spec.Rollout = e.Rollout
		m.emit(state.RootApp, &state.AppDeclared{Application: spec})
	}
	clear(m.unwanted)
	empty := len(e.Apps) == 0 && (e.Manifest == nil || len(e.Manifest.Objects) == 0)
	for _, a := range m.fold.SortedApps() {
		if !wanted[a.Spec.Name] && !a.Removed && !empty {
			m.unwanted[a.Spec.Name] = true
		}
	}
	m.access(e, empty)
	m.pipelines(e, empty)
	if e.Manifest != nil {
		m.apply(root, e.Revision, e.Commit, e.Manifest)
	}
	m.removeApps()
}

// removeApps removes the applications that left the root, once every new one
// was applied for the first time: what only moved is adopted by then, and isn't
// touched. One whose text is wrong is waited for, since a prune can't be undone;
// one that claims what another has is not, since that other may be leaving.
func (m *Machine) removeApps() {
	if len(m.unwanted) == 0 {
		return
	}
	for _, a := range m.fold.Apps {
		_, suspended := a.SuspendedAt(m.now.Wall)
		silent := a.Manifest.IsZero() && (a.Rejected == nil || len(a.Rejected.Conflicts) == 0) && !suspended
		if silent && !a.Removed && a.Spec.Name != state.RootApp && !m.unwanted[a.Spec.Name] {
			return
		}
	}
	for _, name := range sorted(m.unwanted) {
		if a := m.fold.Apps[name]; a != nil && !a.Removed {
			m.removeApp(a)
		}
	}
	clear(m.unwanted)
}

// removeApp ends an application, and with it what it waited for a person for.
func (m *Machine) removeApp(a *state.App) {
	m.emit(a.Spec.Name, &state.AppRemoved{Name: a.Spec.Name, Changes: m.prune(a, nil, true)})
	delete(m.later, a.Spec.Name)
	for _, code := range append(admissions(), state.HoldPrune, state.HoldRewind, state.HoldRestore) {
		m.releaseApp(a, code)
	}
}

// sameSpec says whether two Applications ask for the same. Where one is written
// is no difference: every commit to the root would declare all of them anew.
func sameSpec(a, b state.Application) bool {
	a.At, b.At = state.Origin{}, state.Origin{}
	return reflect.DeepEqual(a, b)
}

func (m *Machine) rendered(e *state.Rendered) {
	a := m.fold.Apps[e.App]
	switch {
	case a == nil || a.Removed:
	case m.rewound(e.App, e.Revision, e.Rewound, e):
	case len(e.Problems) > 0:
		m.reject(a, e.Revision, e.Commit, len(e.Problems), e.Detail, nil)
	default:
		m.apply(a, e.Revision, e.Commit, e.Manifest)
	}
	m.removeApps()
}

// unchanged takes a revision that renders as the one before it.
func (m *Machine) unchanged(e *state.Unchanged) {
	waits, _ := m.later[e.App].(*state.Rendered)
	a := m.fold.Apps[e.App]
	switch {
	case a == nil || a.Manifest.IsZero() && waits == nil:
	case m.rewound(e.App, e.Revision, e.Rewound, e):
	case waits != nil && waits.Manifest != nil: // that one isn't applied yet
		m.apply(a, e.Revision, e.Commit, waits.Manifest)
	case !a.Failed.Manifest.IsZero(): // the last render is what failed
		if failed, err := m.blobs.Manifest(a.Failed.Manifest); err == nil {
			m.apply(a, e.Revision, e.Commit, failed)
		}
	default:
		m.seen(a, e.Revision, e.Commit)
	}
}

// seenEach is of how many applications each has a record of its own that a commit
// changes nothing in it; beyond that they share one.
const seenEach = 16

// unchangedAll takes a revision that renders as the one before it for many
// applications.
func (m *Machine) unchangedAll(e *state.UnchangedAll) {
	var same []state.AppName
	for _, name := range e.Apps {
		if m.plain(name, e.Revision) {
			same = append(same, name)
			continue
		}
		m.unchanged(&state.Unchanged{App: name, Revision: e.Revision, Commit: e.Commit})
	}
	if len(same) > seenEach {
		m.emit("", &state.RevisionsSeen{Revision: e.Revision, Commit: e.Commit, Apps: same})
		return
	}
	for _, name := range same {
		m.unchanged(&state.Unchanged{App: name, Revision: e.Revision, Commit: e.Commit})
	}
}

// plain says whether all that a revision which changes nothing means for an
// application is that it was seen.
func (m *Machine) plain(name state.AppName, rev state.Revision) bool {
	a := m.fold.Apps[name]
	return a != nil && !a.Removed && !a.Manifest.IsZero() && a.Revision != rev && a.Failed.Manifest.IsZero() && a.Spec.Notes == "" &&
		m.later[name] == nil && m.fold.Holds[plan.HoldID(state.Held{Object: appHold(a), Code: state.HoldRewind})] == nil && !m.piped(name)
}

func (m *Machine) reject(a *state.App, rev state.Revision, commit state.Commit, problems int, detail state.Text, conflicts []state.Ref) {
	if a.Rejected != nil && a.Rejected.Revision == rev && int(a.Rejected.Problems) == problems {
		return
	}
	for _, code := range admissions() {
		m.releaseApp(a, code)
	}
	m.emit(a.Spec.Name, &state.RevisionRejected{Revision: rev, Commit: commit, Problems: int32(problems), Detail: detail, Conflicts: conflicts})
}

// refuse rejects a commit that changes what can't be changed.
func (m *Machine) refuse(a *state.App, rev state.Revision, commit state.Commit, fixed []state.Fixed) {
	if a.Rejected != nil && a.Rejected.Revision == rev && slices.Equal(a.Rejected.Fixed, fixed) {
		return
	}
	m.emit(a.Spec.Name, &state.RevisionRejected{Revision: rev, Commit: commit, Problems: int32(len(fixed)), Fixed: fixed})
}

func (m *Machine) seen(a *state.App, rev state.Revision, commit state.Commit) {
	if a.Revision != rev || a.Rejected != nil {
		m.emit(a.Spec.Name, &state.RevisionSeen{Revision: rev, Commit: commit})
	}
}

// apply makes a manifest what the application should be.
func (m *Machine) apply(a *state.App, rev state.Revision, commit state.Commit, manifest *state.Manifest) {
	delete(m.contested, a.Spec.Name)
	if manifest.Digest == a.Manifest {
		for _, code := range admissions() {
			m.releaseApp(a, code)
		}
		m.seen(a, rev, commit)
		return
	}
	if !m.admits(a, rev, commit, manifest) {
		return
	}
	if fixed := m.fixed(manifest); len(fixed) > 0 {
		m.refuse(a, rev, commit, fixed)
		return
	}
	changes, conflicts := m.diff(a, manifest)
	if len(conflicts) > 0 {
		m.reject(a, rev, commit, len(conflicts), state.Text{}, conflicts)
		m.contested[a.Spec.Name] = &state.Rendered{App: a.Spec.Name, Revision: rev, Commit: commit, Manifest: manifest}
		return
	}
	pruned := m.prune(a, manifest, false)
	if m.blobs.manifests[manifest.Digest] == nil {
		m.blobs.manifests[manifest.Digest] = manifest
		m.out.Blobs = append(m.out.Blobs, Blob{Digest: manifest.Digest, Manifest: manifest})
	}
	m.emit(a.Spec.Name, &state.RevisionApplied{Revision: rev, Commit: commit, Manifest: manifest.Digest, Changes: append(changes, pruned...)})
	m.resize(changes)
	m.askToPrune(a)
}

// uncontest applies what was rejected because another application had some of
// its objects, once that one has given them up: an object that moves from one
// application to the other in one commit is adopted, whichever is rendered first.
// It says whether it did anything.
func (m *Machine) uncontest() bool {
	done := false
	for _, name := range sorted(m.contested) {
		said := m.contested[name]
		a := m.fold.Apps[name]
		if a == nil || a.Removed || a.Rejected == nil || a.Rejected.Revision != said.Revision {
			delete(m.contested, name)
			continue
		}
		if _, conflicts := m.diff(a, said.Manifest); len(conflicts) == 0 {
			m.apply(a, said.Revision, said.Commit, said.Manifest)
			done = true
		}
	}
	return done
}

// askToPrune holds what left the text and waits for a person. Params name the
// claims whose data would go.
func (m *Machine) askToPrune(a *state.App) {
	h := state.Held{Code: state.HoldPrune}
	for _, o := range m.fold.Inventory(a.Spec.Name).Objects {
		if !o.Kept {
			continue
		}
		h.Count++
		if ref := o.Object.Ref; m.fold.Claims[ref] != nil {
			h.Params = append(h.Params, ref.Namespace+"/"+ref.Name)
		}
	}
	slices.Sort(h.Params)
	if h.Count > 0 && !a.Spec.Prune.Disabled {
		m.holdApp(a, h)
	} else {
		m.releaseApp(a, state.HoldPrune)
	}
}

// diff is what a manifest creates, changes and takes over. An object that
// another application still wants is a conflict.
func (m *Machine) diff(a *state.App, manifest *state.Manifest) (changes []state.Change, conflicts []state.Ref) {
	for _, o := range manifest.Objects {
		owned := m.fold.Objects[o.Ref]
		c := state.Change{Ref: o.Ref, Digest: o.Digest()}
		switch {
		case owned == nil:
			c.Verb = state.Create
		case owned.App != a.Spec.Name && !owned.Kept && !owned.Retired && !m.deleting(o.Ref) && !m.leaving(owned):
			conflicts = append(conflicts, o.Ref)
			continue
		case owned.App != a.Spec.Name:
			c.Verb = state.Adopt
		case owned.Object.Digest() != c.Digest || owned.Retired || owned.Kept || m.deleting(o.Ref):
			c.Verb = state.Update
		default:
			continue
		}
		changes = append(changes, c)
	}
	return changes, conflicts
}

// leaving says whether an object's application is going, or has a newer text
// without the object, which only waits for what others have: two applications may
// exchange objects in one commit, and neither would go first.
func (m *Machine) leaving(o *state.Owned) bool {
	a := m.fold.Apps[o.App]
	if a == nil || a.Removed || m.unwanted[o.App] {
		return true
	}
	said := m.contested[o.App]
	return said != nil && a.Rejected != nil && a.Rejected.Revision == said.Revision &&
		!slices.ContainsFunc(said.Manifest.Objects, func(x *state.Object) bool { return x.Ref == o.Object.Ref })
}

func (m *Machine) deleting(ref state.Ref) bool {
	w := m.fold.Workloads[ref]
	return w != nil && w.Deleting
}

// prune is what becomes of an application's objects that a manifest (nil: the
// end of the application) no longer has. An empty render deletes nothing, more
// than the limit waits for a person, and what pods still name is kept for them.
func (m *Machine) prune(a *state.App, manifest *state.Manifest, all bool) []state.Change {
	wanted := map[state.Ref]bool{}
	if manifest != nil {
		for _, o := range manifest.Objects {
			wanted[o.Ref] = true
		}
	}
	var out []state.Change
	deletes := 0
	for _, o := range m.fold.Inventory(a.Spec.Name).Objects {
		ref := o.Object.Ref
		if wanted[ref] || o.Retired || m.deleting(ref) {
			continue
		}
		c := state.Change{Ref: ref, Verb: state.Delete}
		switch {
		case ref.Kind == "ConfigMap" || ref.Kind == "Secret":
			c.Verb = state.Retire // and gone at once, where nothing names it
		case m.fold.Claims[ref] != nil:
			c.Verb = state.Keep // it has data: a person is asked
		default:
			deletes++
		}
		out = append(out, c)
	}
	limit := cmp.Or(int(a.Spec.Prune.MaxDeletes), defaultMaxDeletes)
	if a.Spec.Prune.Disabled || !all && (len(wanted) == 0 || deletes > limit) {
		for i := range out {
			out[i].Verb = state.Keep
		}
	}
	out = slices.DeleteFunc(out, func(c state.Change) bool { return c.Verb == state.Keep && m.fold.Objects[c.Ref].Kept })
	slices.SortFunc(out, func(x, y state.Change) int { return x.Ref.Compare(y.Ref) })
	return out
}

// appHold names an application where a hold isn't about one workload.
func appHold(a *state.App) state.Ref {
	return state.Ref{Kind: "Application", Name: string(a.Spec.Name)}
}

func (m *Machine) holdApp(a *state.App, h state.Held) {
	h.Object = appHold(a)
	h.ID = plan.HoldID(h)
	if old := m.fold.Holds[h.ID]; old == nil || !sameHold(&old.Held, &h) {
		m.emit(a.Spec.Name, &h)
	}
}

func (m *Machine) releaseApp(a *state.App, code state.HoldCode) {
	h := state.Held{Object: appHold(a), Code: code}
	h.ID = plan.HoldID(h)
	if m.fold.Holds[h.ID] != nil {
		m.emit(a.Spec.Name, &state.Released{ID: h.ID, Object: h.Object})
	}
}

func (m *Machine) source(e *state.SourceStatus) {
	a := m.fold.Apps[e.App]
	switch {
	case a == nil:
	case !e.OK && !a.SourceLost:
		m.emit(e.App, &state.SourceLost{Detail: e.Detail})
	case e.OK && a.SourceLost:
		m.emit(e.App, &state.SourceBack{})
	}
}

// converge records when an application reaches what its revision says, and when
// it no longer has.
func (m *Machine) converge() {
	for _, name := range sorted(m.apps) {
		a := m.fold.Apps[name]
		if a == nil || a.Manifest.IsZero() {
			continue
		}
		switch missing := m.unavailable(name); {
		case missing.IsZero() && !a.Converged:
			m.cause = m.newest(name)
			m.emit(name, &state.Converged{Revision: a.Revision})
		case !missing.IsZero() && a.Converged:
			m.cause = m.newest(name)
			m.emit(name, &state.Degraded{Revision: a.Revision, Object: missing})
		}
	}
	m.cause = 0
	clear(m.apps)
}

// newest is the last record of this step about an application; 0: none.
func (m *Machine) newest(name state.AppName) state.Seq {
	for _, r := range slices.Backward(m.out.Records) {
		if r.App == name {
			return r.Seq
		}
	}
	return 0
}

// unavailable is the application's first workload that isn't rolled out and
// available as a whole. Pods are counted only of workloads that come before one
// of which that is known without.
func (m *Machine) unavailable(name state.AppName) state.Ref {
	var first state.Ref
	var complete []*state.Workload
	for _, w := range m.fold.Inventory(name).Workloads {
		switch {
		case w.Parent != nil: // a CronJob's Jobs come and go
		case !w.Deleting && w.Complete && !m.waiting[w.Ref]:
			complete = append(complete, w)
		case first.IsZero() || w.Ref.Compare(first) < 0:
			first = w.Ref
		}
	}
	slices.SortFunc(complete, func(a, b *state.Workload) int { return a.Ref.Compare(b.Ref) })
	for _, w := range complete {
		if !first.IsZero() && first.Compare(w.Ref) < 0 {
			break
		}
		if !up(w, m.now) {
			return w.Ref
		}
	}
	return first
}

// up says whether as many pods are available as are wanted.
func up(w *state.Workload, now state.Instant) bool {
	switch w.Ref.Kind {
	case "Job", "CronJob":
		return true // what is rolled out stays so
	case "Pod", "DaemonSet":
		return !slices.ContainsFunc(w.Pods, func(p *state.Pod) bool {
			return !p.Stopping && (p.Lost || !p.Ready && p.Phase != state.Succeeded)
		}) && (len(w.Pods) > 0 || w.Ref.Kind == "DaemonSet")
	}
	least := minReady(w)
	ready := int32(0)
	for _, p := range w.Pods {
		if p.Available(now, least) {
			ready++
		}
	}
	return ready >= w.Replicas()
}

// minReady is how long a pod of the workload is ready before it counts.
func minReady(w *state.Workload) time.Duration {
	if d, ok := w.Deployment(); ok {
		return time.Duration(d.Spec.MinReadySeconds) * time.Second
	}
	if set, ok := w.StatefulSet(); ok {
		return time.Duration(set.Spec.MinReadySeconds) * time.Second
	}
	return 0
}
