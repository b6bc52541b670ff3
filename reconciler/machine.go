// Package reconciler is the control plane as one deterministic step machine.
//
//	sources ──► render ──Manifest──► [ reconciler ] ──assignment──► runtimes
//
// In: events and the time. Out: records, assignments, effects and when to be
// called again. It has no goroutine, clock, socket, file or randomness; package
// act drives it in production, package sim under a seed.
package reconciler

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Machine is the whole control plane without its goroutines. Same machine,
// same instants, same events: same records. It is not safe for concurrent use.
type Machine struct {
	fold  *state.State // what the records say, nothing else; may run ahead of the disk within one group commit
	blobs *fresh

	// What follows is volatile: lost on restart, and the laws hold without it.
	now       state.Instant // steady and wall time of this step, as records have them
	offset    time.Duration // steady time − the driver's monotonic clock
	last      state.Instant // the driver's clocks at the step before
	begun     bool
	planner   plan.Planner
	agents    map[state.NodeName]*contact
	lookups   lookups
	flaps     map[state.UID]*flap
	groups    map[placeKey]answered   // the reasons last recorded, so that a repeat isn't
	dirty     map[state.Ref]bool      // workloads to plan
	causes    map[state.Ref]state.Seq // the first record that made each dirty workload so; none: a timer or a start
	making    state.Seq               // the record that is being made
	apps      map[state.AppName]bool  // applications to look at
	waiting   map[state.Ref]bool      // workloads that more room, a node or an image would help
	tight     map[state.Ref]bool      // workloads that wait for a disruption budget
	wakes     alarms[state.Ref]
	touched   map[state.NodeName]bool
	renewals  []*state.Renewed                  // of this step, to be answered
	lapse     time.Duration                     // no lease lapses before this steady time; 0: none can
	unwanted  map[state.AppName]bool            // left the root; to be removed once the new ones are rendered
	contested map[state.AppName]*state.Rendered // rejected because another application has an object of theirs
	later     map[state.AppName]state.Event     // revisions that wait: for a person after a rewind, or as admit.go says
	retired   bool                              // a ConfigMap or Secret may have lost its last user
	net       network
	lines     lines // pipelines; see promote.go
	notes     notes
	rotating  *rotating // of this step: another key is to sign the log after it

	// Revisions among later that admit.go keeps, and when to ask again (0: when
	// something happens); and whether something happened that one of them may
	// have waited for.
	admitAt    map[state.AppName]time.Duration
	restoreAt  map[state.AppName]time.Duration // when applications must be healthy
	admitDirty bool

	out   Output
	cause state.Seq
	actor state.Text
}

// Output is what one step decided. Nothing of it but Blobs may leave before
// Records are durable.
type Output struct {
	Blobs       []Blob             // to be durable before Records
	Records     []*state.Record    // to append, in order
	Assignments []state.Assignment // what each touched node should run, as of the last record
	Effects     []state.Effect
	Grants      []state.Grant  // of leases: to leave after Assignments
	Network     *state.Network // what nodes need to know of each other and of Services; nil: as it was
	Wake        state.Instant  // when the answer changes by itself, on the driver's clock; zero if it can't
}

// A Blob lies beside the log: a manifest or a template, under its digest.
type Blob struct {
	Digest   state.Digest
	Manifest *state.Manifest // its stored form is the shell's affair: secret values are encrypted
	Template []byte
	Compiled *state.Template // which Template is the stored form of
}

// fresh finds the blobs of this step, which the shell hasn't stored yet, and
// then those that it has.
type fresh struct {
	state.Blobs
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
}

// Manifest implements state.Blobs.
func (f *fresh) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := f.manifests[d]; m != nil {
		return m, nil
	}
	return f.Blobs.Manifest(d)
}

// Template implements state.Blobs.
func (f *fresh) Template(d state.Digest) (*state.Template, error) {
	if t := f.templates[d]; t != nil {
		return t, nil
	}
	return f.Blobs.Template(d)
}

// New is a machine over an empty log.
func New(blobs state.Blobs) *Machine {
	f := &fresh{Blobs: blobs}
	f.forget()
	return &Machine{
		fold: state.New(f), blobs: f,
		agents: map[state.NodeName]*contact{}, lookups: newLookups(), flaps: map[state.UID]*flap{},
		net: newNetwork(), groups: map[placeKey]answered{}, dirty: map[state.Ref]bool{}, causes: map[state.Ref]state.Seq{}, apps: map[state.AppName]bool{},
		waiting: map[state.Ref]bool{}, tight: map[state.Ref]bool{}, touched: map[state.NodeName]bool{}, unwanted: map[state.AppName]bool{},
		contested: map[state.AppName]*state.Rendered{},
		later:     map[state.AppName]state.Event{}, admitAt: map[state.AppName]time.Duration{}, restoreAt: map[state.AppName]time.Duration{}, lines: newLines(), notes: newNotes(),
	}
}

func (f *fresh) forget() {
	f.manifests, f.templates = map[state.Digest]*state.Manifest{}, map[state.Digest]*state.Template{}
}

// Replay folds a record of the log, before the first Step. The planner doesn't run.
func (m *Machine) Replay(r *state.Record) error { return m.fold.Apply(r) }

// Defaults says how this version fills in a pod template: what differs in that
// alone is no other revision. It is called before the first Step.
func (m *Machine) Defaults(fill func(*corev1.PodTemplateSpec)) { m.planner.Default = fill }

// State is the fold, to be read between steps and never changed.
func (m *Machine) State() *state.State { return m.fold }

// Start begins a log, or a controller's life over one. It is to be called once,
// after Replay and before the first Step.
func (m *Machine) Start(now state.Instant, log state.Digest, version string) Output {
	m.begin(now)
	if m.fold.Seq == 0 {
		m.emit("", &state.LogStarted{ID: log, Format: 1})
	}
	if root := m.fold.Apps[state.RootApp]; root == nil || root.Removed {
		m.emit("", &state.AppDeclared{Application: state.Application{Name: state.RootApp, Rollout: state.DefaultRollout()}})
	}
	m.emit("", &state.ControllerStarted{Version: version})
	m.chooseRouting()
	m.lostSessions()
	m.mend()
	for ref := range m.fold.Workloads {
		m.dirty[ref] = true
	}
	for name := range m.fold.Apps {
		m.apps[name], m.lookups.stale[name] = true, true
	}
	for name, n := range m.fold.Nodes {
		m.touched[name] = true
		m.takeOver(n)
	}
	m.retired = true
	m.net.start(m.fold)
	m.allLines()
	for name := range m.fold.Apps {
		m.notes.dirty[name] = true
	}
	return m.finish()
}

// Step is the only way in. It drains events, plans all that they touched in
// canonical order, and says when to be called again if nothing happens.
func (m *Machine) Step(now state.Instant, events []state.Event) Output {
	m.begin(now)
	for _, e := range events {
		m.cause, m.actor = 0, state.Text{}
		m.event(e)
	}
	m.cause, m.actor = 0, state.Text{}
	m.leases()
	m.restoreDue()
	for _, ref := range m.wakes.due(m.now.Mono) {
		m.dirty[ref] = true
	}
	return m.finish()
}

// begin sets the step's time: steady time goes on where the log left it, wall
// time never goes back, and a wall clock that moved against the steady one is
// recorded.
func (m *Machine) begin(now state.Instant) {
	m.out = Output{}
	m.blobs.forget()
	if !m.begun {
		m.begun = true
		m.offset = -now.Mono
		if last := m.fold.At; m.fold.Seq > 0 {
			m.offset = last.Mono + max(0, time.Duration(now.Wall-last.Wall)) - now.Mono
		}
		m.last = now
	}
	moved := time.Duration(now.Wall-m.last.Wall) - (now.Mono - m.last.Mono)
	m.last = now
	m.now = state.Instant{Mono: max(now.Mono+m.offset, m.fold.At.Mono), Wall: max(now.Wall, m.fold.At.Wall)}
	if moved.Abs() > clockStep && m.fold.Seq > 0 {
		m.emit("", &state.ClockStepped{By: moved})
	}
}

// clockStep is how far the clocks may drift apart between two steps before it
// is recorded.
const clockStep = 2 * time.Second

// finish plans until nothing is left to do and gathers what leaves.
func (m *Machine) finish() Output {
	m.admit()
	m.uncontest() // before anything is planned: what moves is adopted as it runs
	for range rounds {
		m.giveAddresses()
		m.plan()
		m.settle()
		if m.restore() {
			continue
		}
		m.converge()
		if again := m.admit(); m.uncontest() || again {
			continue
		}
		if m.promotions(); len(m.dirty) == 0 {
			break // no Job began that judges a commit
		}
	}
	m.askNotes()
	m.lookUps()
	m.rotate()
	for _, name := range sorted(m.touched) {
		if n, c := m.fold.Nodes[name], m.agents[name]; n != nil && c != nil {
			m.out.Assignments = append(m.out.Assignments, m.fold.Assignment(n))
			c.told = n.Generation
		}
	}
	clear(m.touched)
	m.out.Grants = m.grants()
	m.tell()
	if at := m.wake(); at > 0 {
		d := max(0, at-m.now.Mono)
		m.out.Wake = m.last.Add(d)
		if m.out.Wake.IsZero() {
			m.out.Wake.Wall = 1
		}
	}
	return m.out
}

// emit appends a record and folds it at once. A record that doesn't fold is a
// broken invariant of the machine itself.
func (m *Machine) emit(app state.AppName, f state.Fact) *state.Record {
	r := &state.Record{Seq: m.fold.Seq + 1, At: m.now, Cause: m.cause, Actor: m.actor, App: app, Fact: f}
	m.making = r.Seq
	m.touch(r)
	m.touchLines(r)
	m.touchNotes(r)
	m.making = 0
	if err := m.fold.Apply(r); err != nil {
		panic(fmt.Sprintf("the machine made a record that does not fold: %v", err))
	}
	m.out.Records = append(m.out.Records, r)
	return r
}

// touch marks what a record may change the plan of. It sees the state before
// the record.
func (m *Machine) touch(r *state.Record) { //nolint:funlen // one case a fact
	m.touchNetwork(r.Fact)
	m.touchAdmissions(r.Fact)
	switch f := r.Fact.(type) {
	case *state.NodeJoined, *state.NodeChanged, *state.NodeReady, *state.NodeCordoned, *state.NodeRemoved:
		m.helped()
		m.touchNode(f)
	case *state.NodeLost:
		m.helped() // what is held for want of a node may be held for want of another
		for _, p := range m.fold.Nodes[f.Node].Pods {
			m.touchWorkload(p.Workload)
		}
	case *state.ClockStepped:
		for ref, w := range m.fold.Workloads {
			if w.Cron != nil {
				m.dirty[ref] = true
			}
		}
		for name := range m.restoreAt { // a suspension ends by the clock
			m.apps[name] = true
		}
	case *state.AppSuspended:
		m.apps[r.App] = true
	case *state.AppDeclared:
		m.apps[f.Application.Name] = true
	case *state.AppRemoved:
		m.touchChanges(f.Name, f.Changes)
	case *state.RevisionApplied:
		m.touchChanges(r.App, f.Changes)
		m.touchApp(r.App)
	case *state.RevisionSeen, *state.RevisionRejected:
		m.apps[r.App] = true
	case *state.RevisionsSeen:
		for _, name := range f.Apps {
			m.apps[name] = true
		}
	case *state.ImageResolved:
		m.touchApp(r.App)
	case *state.Revised:
		m.touchWorkload(f.Workload)
		m.retired = true
	case *state.RolledOut:
		m.apps[r.App] = true
		m.retired = true
	case *state.Commanded:
		if f.Verb == state.CmdDrain {
			m.touchNodePods(state.NodeName(f.Object.Name))
		}
		m.touchWorkload(f.Object)
	case *state.Released:
		m.touchWorkload(f.Object)
		if h := m.fold.Holds[f.ID]; h != nil && h.Code == state.HoldNoRoom {
			m.helped() // room may have been kept for it
		}
		m.apps[r.App] = true
	case *state.PodPlaced:
		m.touched[f.Node] = true
		m.touchWorkload(f.Workload)
	case *state.PodStopping:
		m.touchPod(f.UID, true)
		m.nearer()
	case *state.PodHurried:
		m.touchPod(f.UID, true)
	case *state.PodGone:
		m.touchPod(f.UID, true)
		m.helped()
		m.retired = true
		delete(m.flaps, f.UID)
	case *state.PodObserved:
		p := m.fold.Pods[f.UID]
		m.touchPod(f.UID, p != nil && f.Phase != state.Pending && len(m.fold.Unbegun(p)) > 0)
		if f.Ready {
			m.eased()
		}
		if f.Phase == state.Succeeded || f.Phase == state.Failed {
			m.helped() // it needs its room no more
		}
	case *state.PodCounted:
		m.touchPod(f.UID, false)
	case *state.Scaled:
		m.touchWorkload(f.Workload)
	case *state.JobMoved:
		m.touchJob(f.Workload)
	case *state.CronFired:
		m.touchWorkload(f.CronJob)
		m.touchWorkload(f.Job)
	case *state.JobDropped:
		m.touchJob(f.Job)
	case *state.GateJobStarted:
		m.touchWorkload(f.CronJob)
		m.touchWorkload(f.Job)
	case *state.ObjectGone:
		m.planner.Forget(m.fold.Workloads[f.Ref])
		m.touchJob(f.Ref)
	case *state.ClaimBound:
		m.touched[f.Node] = true
		m.helped() // who waits for the same claim waits for this node now
	case *state.ClaimDropped:
		m.touchClaim(m.fold.Claims[f.Claim])
	case *state.VolumeGone:
		m.touchClaim(m.fold.ClaimOfVolume(f.Volume))
	case *state.PodFlapping:
		m.touchPod(f.UID, false)
	case *state.PodSettled:
		m.touchPod(f.UID, false)
	}
}

func (m *Machine) touchNode(f state.Fact) {
	switch f := f.(type) {
	case *state.NodeReady:
		m.touchNodePods(f.Node)
	case *state.NodeChanged:
		m.touchNodePods(f.Node)
	case *state.NodeCordoned:
		m.touchNodePods(f.Node)
	}
}

// touchNodePods marks the workloads that have pods on a node.
func (m *Machine) touchNodePods(node state.NodeName) {
	if n := m.fold.Nodes[node]; n != nil {
		for _, p := range n.Pods {
			m.touchWorkload(p.Workload)
		}
	}
}

// eased marks what waits for a disruption budget: one more pod is there.
func (m *Machine) eased() {
	for ref := range m.tight {
		m.touchWorkload(ref)
	}
}

func (m *Machine) touchPod(uid state.UID, node bool) {
	p := m.fold.Pods[uid]
	if p == nil {
		return
	}
	m.touchWorkload(p.Workload)
	if node {
		m.touched[p.Node] = true
	}
}

func (m *Machine) touchWorkload(ref state.Ref) {
	if state.IsWorkload(ref.Kind) {
		m.mark(ref)
	}
}

// mark makes a workload dirty. What is then decided for it has the first record
// that did so as its cause.
func (m *Machine) mark(ref state.Ref) {
	m.dirty[ref] = true
	if m.causes[ref] == 0 && m.making > 0 {
		m.causes[ref] = m.making
	}
}

// touchJob marks a Job, its CronJob and its application.
func (m *Machine) touchJob(ref state.Ref) {
	w := m.fold.Workloads[ref]
	if w == nil {
		return
	}
	m.touchWorkload(ref)
	m.apps[w.App] = true
	if w.Parent != nil {
		m.touchWorkload(w.Parent.CronJob)
	}
}

// touchApp marks an application and all of its workloads: an image name has
// another meaning with another manifest.
func (m *Machine) touchApp(app state.AppName) {
	m.apps[app], m.lookups.stale[app] = true, true
	for _, w := range m.fold.Inventory(app).Workloads {
		m.mark(w.Ref)
	}
}

// touchChanges marks what an application's changes of the inventory are about.
func (m *Machine) touchChanges(app state.AppName, changes []state.Change) {
	m.lookups.stale[app] = true
	for i := range changes {
		ref := changes[i].Ref
		m.touchWorkload(ref)
		if ref.Kind == "PodDisruptionBudget" || ref.Kind == "PriorityClass" || ref.Kind == state.ClaimKind {
			m.helped()
		}
		if w := m.fold.Workloads[ref]; w != nil {
			m.planner.Forget(w)
			m.lookups.stale[w.App] = true // another takes it over
			for _, child := range w.Children() {
				m.touchWorkload(child.Ref)
			}
		}
		if ref.Kind != "ConfigMap" && ref.Kind != "Secret" && ref.Kind != state.AccountKind {
			continue
		}
		m.retired = true
		for _, name := range m.fold.Users(ref) {
			m.touched[name] = true
		}
	}
}

// helped marks what waits for room, a node or an image.
func (m *Machine) helped() {
	for ref := range m.fold.Daemons {
		m.dirty[ref] = true
	}
	m.nearer()
}

// nearer marks what waits, where a pod is told to stop: together with its room,
// that of pods of lower priority may be enough now.
func (m *Machine) nearer() {
	for ref := range m.waiting {
		m.mark(ref)
	}
}

// wake is the earliest steady time at which something changes by itself.
func (m *Machine) wake() time.Duration {
	var at time.Duration
	sooner := func(t time.Duration) {
		if t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	sooner(m.wakes.first())
	sooner(m.lapse)
	sooner(m.lookups.due.first())
	sooner(m.admitWake())
	sooner(m.restoreWake())
	sooner(m.lines.wake())
	sooner(m.notes.wake())
	for _, f := range m.flaps {
		sooner(f.next())
	}
	return at
}

// Check is the law that keeps incremental planning honest: planning everything
// from scratch decides nothing that this step didn't. It returns what differs.
func (m *Machine) Check() error {
	planner := &m.planner
	if m.fold.Seq%64 == 0 {
		planner = &plan.Planner{Next: planner.Next, Default: planner.Default} // what is remembered changes no decision either
	}
	for _, w := range m.fold.SortedWorkloads() {
		d := planner.Workload(m.fold, w, m.now)
		wakes := m.wakes.get(w.Ref)
		if w.Cron != nil && d.Fire != nil && wakes > 0 && wakes-m.now.Mono <= time.Second {
			continue // its wake-ups are a second apart, see plan.cron
		}
		if c := m.pending(w, &d); c != "" {
			return fmt.Errorf("%s: incremental planning missed: %s", w.Ref, c)
		}
		if late := wakes - d.Wake; late != 0 && (w.Cron == nil || late > clockStep || wakes == 0) {
			// A CronJob's wake-up is the wall clock's, which may drift that far; and while
			// that clock stands, because it was set back, to wake early is no harm.
			return fmt.Errorf("%s: incremental planning would wake at %s, full planning at %s", w.Ref, wakes, d.Wake)
		}
	}
	if err := errors.Join(m.checkTold(), m.checkNotes()); err != nil {
		return err
	}
	if m.fold.Seq%16 == 0 { // what is wrong there stays so
		if err := errors.Join(m.fold.Check(), m.checkTaken()); err != nil {
			return err
		}
	}
	return m.checkLines()
}

// Restore begins from a snapshot of the fold, before Replay and the first Step.
func (m *Machine) Restore(snap *state.Snapshot) error {
	fold, err := state.Restore(snap, m.blobs)
	if err != nil {
		return err
	}
	m.fold = fold
	return nil
}
