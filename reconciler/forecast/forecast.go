// Package forecast says what a commit would lead to before it is there.
//
//	state ──copy──► [ forecast: Machine.Step, a world where all goes well ] ──records──► plan
//
// In: a state and a manifest. Out: the records that the machine would make and
// the state that they come to. It is no second planner: the machine itself is
// stepped on a copy of the state. What it makes up is the world: every pod that
// is started becomes ready at once, every pod that is told to stop is gone, and
// a node that is ready stays so. It is pure, and changes nothing of the state
// that it is given.
package forecast

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Commit is what would be applied.
type Commit struct {
	App      state.Application // as the root declares it
	Revision state.Revision
	Manifest *state.Manifest
	// Images says what image names mean, where that was looked up. Of others the
	// meaning that the state knows is taken, and else none is known.
	Images map[string]state.Image
	// Defaults fills in a pod template, as the controller's version does; nil:
	// nothing is filled in.
	Defaults func(*corev1.PodTemplateSpec)
}

// A Result is what would come of a commit.
type Result struct {
	State   *state.State    // when all has gone well
	Records []*state.Record // that led there, oldest first
	Rounds  []int           // where in Records each round of the world begins
	Took    time.Duration   // that had to go by, for minReadySeconds
	Rest    bool            // the machine came to rest; false: a limit was reached first
}

// Named limits of one forecast.
const (
	maxRounds = 10_000
	maxTime   = 4 * time.Hour
)

// Run applies a commit to a copy of a state and follows what comes of it. Those
// who share the state with a writer hold it for Copy alone.
func Run(from *state.State, c *Commit) (*Result, error) { return Copy(from).Run(c) }

// A Base is a captured state, to begin from.
type Base struct {
	snap  *state.Snapshot
	blobs state.Blobs
}

// Copy captures a state.
func Copy(from *state.State) *Base { return &Base{snap: from.Snapshot(), blobs: state.Living(from)} }

// NewBase is a captured state as it was stored.
func NewBase(snap *state.Snapshot, blobs state.Blobs) *Base { return &Base{snap: snap, blobs: blobs} }

// Snapshot is the captured state.
func (b *Base) Snapshot() *state.Snapshot { return b.snap }

// Blobs has what the snapshot names.
func (b *Base) Blobs() state.Blobs { return b.blobs }

// Run applies a commit and follows what comes of it.
func (b *Base) Run(c *Commit) (*Result, error) {
	w := &world{
		commit: c, shelf: &shelf{Blobs: b.blobs, manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{}},
		now: state.Instant{Wall: b.snap.At.Wall}, numbers: map[state.NodeName]uint64{}, started: map[state.UID]bool{},
	}
	w.machine = reconciler.New(w.shelf)
	w.machine.Defaults(c.Defaults)
	if err := w.machine.Restore(b.snap); err != nil {
		return nil, fmt.Errorf("copy the state: %w", err)
	}
	w.begin()
	w.apply()
	w.follow()
	w.result.State = w.machine.State()
	return &w.result, nil
}

// shelf has what the machine makes beside what it began with.
type shelf struct {
	state.Blobs
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
}

// Manifest implements state.Blobs.
func (s *shelf) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := s.manifests[d]; m != nil {
		return m, nil
	}
	return s.Blobs.Manifest(d)
}

// Template implements state.Blobs.
func (s *shelf) Template(d state.Digest) (*state.Template, error) {
	if t := s.templates[d]; t != nil {
		return t, nil
	}
	return s.Blobs.Template(d)
}

// world is the machine's world while a forecast runs.
type world struct {
	machine *reconciler.Machine
	commit  *Commit
	shelf   *shelf
	now     state.Instant
	wake    state.Instant
	numbers map[state.NodeName]uint64 // of reports, per node
	started map[state.UID]bool        // pods that were reported ready
	pending []state.Assignment
	result  Result
}

// begin is a controller's start over the copy, and every ready node's agent
// that connects again. That alone starts and stops nothing.
func (w *world) begin() {
	st := w.machine.State()
	w.take(w.machine.Start(w.now, st.LogID, "forecast"))
	var events []state.Event
	for _, n := range st.SortedNodes() {
		if n.Ready {
			w.numbers[n.Name] = 0
			events = append(events, &state.NodeHello{Node: n.Name, Facts: n.Facts, BootID: n.BootID, Incarnation: n.Incarnation})
		}
	}
	for _, n := range st.SortedNodes() {
		if _, ok := w.numbers[n.Name]; ok && n.Parked {
			events = append(events, &state.Renewed{Node: n.Name})
		}
	}
	w.step(events...)
	w.result = Result{}
}

// apply is the commit, and before it its root's declaration, which may be new
// or say something else.
func (w *world) apply() {
	st := w.machine.State()
	var events []state.Event
	if declared := w.commit.App; declared.Name != state.RootApp {
		root := &state.RootRendered{Apps: []state.Application{declared}}
		if r := st.Apps[state.RootApp]; r != nil {
			root.Revision, root.Commit, root.Rollout = r.Revision, r.Commit, r.Spec.Rollout
		}
		for _, other := range st.SortedApps() {
			if !other.Removed && other.Spec.Name != state.RootApp && other.Spec.Name != declared.Name {
				root.Apps = append(root.Apps, other.Spec)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(st.Lines)) {
			root.Pipelines = append(root.Pipelines, st.Lines[name].Spec)
		}
		events = append(events, root)
	}
	events = append(events, &state.Rendered{App: w.commit.App.Name, Revision: w.commit.Revision, Manifest: w.commit.Manifest})
	w.step(events...)
}

// follow lets agents answer until nobody has anything left to do, and time go by
// only while a rollout waits for it.
func (w *world) follow() {
	begin := w.now
	for range maxRounds {
		switch {
		case len(w.pending) > 0:
			w.answer()
		case w.waits() && w.wake.Mono-begin.Mono <= maxTime:
			w.pass()
		default:
			w.result.Rest = !w.waits()
			w.result.Took = w.now.Mono - begin.Mono
			return
		}
	}
	w.result.Took = w.now.Mono - begin.Mono
}

// waits says whether a rollout of the application goes on by itself after a
// while. Jobs end when they like, and what is held waits for somebody.
func (w *world) waits() bool {
	if w.wake.IsZero() {
		return false
	}
	for _, wl := range w.machine.State().Workloads {
		if wl.App != w.commit.App.Name || wl.Complete || wl.IsStalled || len(wl.Holds) > 0 {
			continue
		}
		switch wl.Ref.Kind {
		case "Deployment", "StatefulSet", "DaemonSet":
			return true
		}
	}
	return false
}

// pass lets time go by up to the machine's wake-up, with every lease renewed.
func (w *world) pass() {
	w.now = w.now.Add(max(w.wake.Mono-w.now.Mono, time.Millisecond))
	events := make([]state.Event, 0, len(w.numbers))
	for _, name := range slices.Sorted(maps.Keys(w.numbers)) {
		events = append(events, &state.Renewed{Node: name})
	}
	w.step(events...)
}

func (w *world) step(events ...state.Event) {
	w.result.Rounds = append(w.result.Rounds, len(w.result.Records))
	w.take(w.machine.Step(w.now, events))
}

// take keeps what a step made, and answers what the machine asks.
func (w *world) take(out reconciler.Output) {
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			w.shelf.manifests[b.Digest] = b.Manifest
			continue
		}
		t, err := state.ParseTemplate(b.Template)
		if err != nil {
			panic(fmt.Sprintf("the machine made a template that does not parse: %v", err))
		}
		w.shelf.templates[b.Digest] = t
	}
	w.result.Records = append(w.result.Records, out.Records...)
	w.wake = out.Wake
	for _, a := range out.Assignments {
		if _, ok := w.numbers[a.Node]; ok {
			w.pending = append(w.pending, a)
		}
	}
	var looked []state.Event
	for _, e := range out.Effects {
		if l, ok := e.(*state.LookUp); ok && l.App == w.commit.App.Name {
			looked = append(looked, &state.ImageLooked{App: l.App, Manifest: l.Manifest, Image: w.image(l.Image)})
		}
	}
	if len(looked) > 0 {
		w.take(w.machine.Step(w.now, looked))
	}
}

// image says what a name means, as far as it is known.
func (w *world) image(name string) state.Image {
	if im, ok := w.commit.Images[name]; ok {
		return im
	}
	if im := Known(w.machine.State(), w.commit.App.Name, name); im != nil {
		return *im
	}
	return state.Image{Name: name, Assumed: true, Failure: state.LookupUnavailable}
}

// ImageNames are the distinct image names of a manifest, sorted.
func ImageNames(m *state.Manifest) []string {
	var out []string
	for _, o := range m.Objects {
		for i := range o.Variants {
			if t := state.TemplateOf(o.Variants[i].Body); t != nil {
				out = append(out, state.ImageNames(&t.Spec)...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Known is what an image name means by the state: to the application, else to
// another one. Nil: nobody has looked.
func Known(s *state.State, app state.AppName, name string) *state.Image {
	var best *state.Image
	var from state.ImageKey
	better := func(k state.ImageKey, im *state.Image) bool {
		switch {
		case best == nil:
			return true
		case im.Assumed != best.Assumed:
			return best.Assumed
		case (k.App == app) != (from.App == app):
			return k.App == app
		case k.App != from.App:
			return k.App < from.App
		default:
			a := s.Apps[k.App] // the newest manifest's, where there are several
			return a != nil && a.Manifest == k.Manifest
		}
	}
	for k, im := range s.Images {
		if k.Name == name && better(k, im) {
			best, from = im, k
		}
	}
	return best
}

// answer reports what the assignments lead to when all goes well.
func (w *world) answer() {
	newest := map[state.NodeName]state.Assignment{}
	for _, a := range w.pending {
		newest[a.Node] = a
	}
	w.pending = nil
	var events []state.Event
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		if e := w.report(newest[name]); e != nil {
			events = append(events, e)
		}
	}
	if len(events) > 0 {
		w.step(events...)
	}
}

// report is nil where the node has nothing to say.
func (w *world) report(a state.Assignment) state.Event {
	st := w.machine.State()
	n := st.Nodes[a.Node]
	if n == nil {
		return nil
	}
	r := state.Report{Node: a.Node, Epoch: n.Epoch, BootID: n.BootID, Incarnation: n.Incarnation, Applied: a.Generation}
	for _, ap := range a.Pods {
		p := st.Pods[ap.UID]
		switch {
		case p == nil:
		case ap.Stop:
			r.Gone = append(r.Gone, ap.UID)
		case !w.started[ap.UID] && begins(p):
			w.started[ap.UID] = true
			r.Pods = append(r.Pods, state.PodStatus{UID: p.UID, Phase: state.Running, Ready: true, Containers: p.Containers})
		}
	}
	for _, v := range a.Volumes {
		if v.Drop && st.ClaimOfVolume(v.UID) != nil {
			r.Dropped = append(r.Dropped, v.UID)
		}
	}
	if len(r.Pods)+len(r.Gone)+len(r.Dropped) == 0 {
		return nil
	}
	w.numbers[a.Node]++
	r.Number = w.numbers[a.Node]
	return &state.Reported{Report: r}
}

// begins says whether a pod is on its way up. One that ran and isn't ready
// stays as it is: nothing says that a commit mends it.
func begins(p *state.Pod) bool {
	return !p.Ready && p.Phase == state.Pending && p.Restarts == 0
}
