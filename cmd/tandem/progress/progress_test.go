package progress

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A run is a controller made by hand.
type run struct {
	t         *testing.T
	mu        sync.Mutex
	state     *state.State
	records   []*state.Record
	changed   chan struct{}
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
}

func newRun(t *testing.T) *run {
	r := &run{t: t, changed: make(chan struct{}), manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{}}
	r.state = state.New(r)
	return r
}

func (r *run) Manifest(d state.Digest) (*state.Manifest, error) { return r.manifests[d], nil }
func (r *run) Template(d state.Digest) (*state.Template, error) { return r.templates[d], nil }

func (r *run) View(see func(*state.State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	see(r.state)
}

func (r *run) Changed(after state.Seq) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Seq > after {
		c := make(chan struct{})
		close(c)
		return c
	}
	return r.changed
}

func (r *run) Words(state.Text) string { return "the words" }

func (r *run) Records(_ context.Context, from state.Seq) iter.Seq2[*state.Record, error] {
	r.mu.Lock()
	all := r.records
	r.mu.Unlock()
	return func(yield func(*state.Record, error) bool) {
		for _, rec := range all {
			if rec.Seq >= from && !yield(rec, nil) {
				return
			}
		}
	}
}

// write folds facts of root, 100 ms apart.
func (r *run) write(facts ...state.Fact) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range facts {
		at := time.Duration(len(r.records)) * 100 * time.Millisecond
		wall := time.Date(2026, 11, 23, 10, 2, 11, 0, time.Local).Add(at)
		rec := &state.Record{Seq: r.state.Seq + 1, At: state.Instant{Mono: at, Wall: wall.UnixNano()}, App: state.RootApp, Fact: f}
		if err := r.state.Apply(rec); err != nil {
			r.t.Fatal(err)
		}
		r.records = append(r.records, rec)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

var web = state.Ref{Kind: "Deployment", Namespace: "shop", Name: "web"}

// begin writes what a run begins with: a node and a workload of two pods.
func (r *run) begin() *state.Template {
	two := int32(2)
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1"}}}}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}, Spec: appsv1.DeploymentSpec{Replicas: &two, Template: spec}}
	m := &state.Manifest{Digest: state.DigestOf([]byte("m")), Objects: []*state.Object{{Ref: web, Variants: []state.Variant{{OS: state.Linux, Body: d}}}}}
	r.manifests[m.Digest] = m
	t, _ := state.NewTemplate(state.Linux, &spec, nil)
	r.templates[t.Digest] = t
	r.write(&state.LogStarted{ID: m.Digest}, &state.ControllerStarted{Version: "test"},
		&state.NodeJoined{Node: "linux-1", Facts: state.NodeFacts{OS: state.Linux, Arch: "amd64", Simulated: true}}, &state.NodeReady{Node: "linux-1"},
		&state.AppDeclared{Application: state.Application{Name: state.RootApp}},
		&state.RevisionApplied{Revision: "main@sha1:3f2a91c0", Manifest: m.Digest, Changes: []state.Change{{Ref: web, Verb: state.Create}}},
		&state.Revised{Workload: web, OS: state.Linux, Template: t.Digest, Number: 1})
	return t
}

// pod places a pod and makes it ready.
func (r *run) pod(name string, t *state.Template) state.UID {
	r.write(&state.PodPlaced{Pod: state.PodKey{Namespace: "shop", Name: name}, Workload: web, OS: state.Linux, Ordinal: -1, Template: t.Digest, Node: "linux-1"})
	uid := state.NewUID(r.state.LogID, r.state.Seq, "shop", name)
	r.write(&state.PodObserved{UID: uid, Phase: state.Running, Ready: true})
	return uid
}

func TestLinesUntilConverged(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	r.pod("web-a", template)
	r.pod("web-b", template)
	r.write(&state.RolledOut{Workload: web}, &state.Converged{Revision: "main@sha1:3f2a91c0"})
	var out bytes.Buffer
	o, err := New(r, Options{Out: &out}).Until(t.Context())
	if err != nil || !o.Converged || len(o.Reasons) > 0 {
		t.Fatalf("outcome %+v, %v", o, err)
	}
	want := []string{
		`10:02:11 node linux-1 ready (linux/amd64, simulated)`,
		`10:02:11 root main@3f2a91c: 1 objects; 2 pods to make`,
		`10:02:12 web 2/2 ready: linux 2/2`,
		`10:02:12 converged in 1.1 s`,
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestUntilStuck(t *testing.T) {
	cases := []struct {
		name  string
		facts []state.Fact
		want  string
	}{
		{"problems", []state.Fact{&state.RevisionRejected{Revision: "main@sha1:77d0f120", Problems: 2}}, "the words\n2 problems in main@77d0f12: nothing of it was applied. running on: main@3f2a91c"},
		{"held", []state.Fact{&state.Held{ID: "h-1", Object: web, Code: state.HoldImageOS, OS: state.Windows, Params: []string{"web:1"}}}, "held   h-1  deploy/web: image has nothing for windows: web:1"},
		{"stalled", []state.Fact{&state.Stalled{Workload: web}}, "stuck  deploy/web  0/2 ready, no progress within its deadline"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t)
			r.begin()
			r.write(c.facts...)
			o, err := New(r, Options{Out: new(bytes.Buffer)}).Until(t.Context())
			if err != nil || !o.Stuck || o.Converged {
				t.Fatalf("outcome %+v, %v", o, err)
			}
			if !strings.Contains(strings.Join(o.Reasons, "\n"), c.want) {
				t.Errorf("reasons %q, want %q", o.Reasons, c.want)
			}
		})
	}
}

func TestOldCommitIsNotTakenForTheNewOne(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	r.pod("web-a", template)
	r.pod("web-b", template)
	r.write(&state.Converged{Revision: "main@sha1:3f2a91c0"})
	looked := make(chan struct{})
	w := New(r, Options{Out: new(bytes.Buffer), Looked: func() bool {
		select {
		case <-looked:
			return true
		default:
			return false
		}
	}})
	done := make(chan Outcome, 1)
	go func() {
		o, err := w.Until(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- o
	}()
	r.write(&state.NodeCordoned{Node: "linux-1", On: true})
	select {
	case o := <-done:
		t.Fatalf("ended before the source was looked at: %+v", o)
	default:
	}
	close(looked)
	r.write(&state.NodeCordoned{Node: "linux-1"})
	if o := <-done; !o.Converged {
		t.Errorf("outcome %+v", o)
	}
}

// Whether sources were looked at is asked of the same controller: a reader that
// reads again within View stands still for ever once a writer waits between.
func TestLookedReadsTheStateToo(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	r.pod("web-a", template)
	r.pod("web-b", template)
	r.write(&state.Converged{Revision: "main@sha1:3f2a91c0"})
	w := New(r, Options{Out: new(bytes.Buffer), Looked: func() bool {
		seen := false
		r.View(func(*state.State) { seen = true })
		return seen
	}})
	done := make(chan Outcome, 1)
	go func() {
		o, err := w.Until(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- o
	}()
	select {
	case o := <-done:
		if !o.Converged {
			t.Errorf("outcome %+v", o)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the run stands still")
	}
}

// What an earlier run was stuck on may have been corrected before this one.
func TestOldProblemsAreNotTakenForTheNewOnes(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	r.pod("web-a", template)
	r.pod("web-b", template)
	r.write(&state.RevisionRejected{Revision: "main@sha1:77d0f120", Problems: 2})
	var looked atomic.Bool
	w := New(r, Options{Out: new(bytes.Buffer), Looked: func() bool {
		if !looked.Load() {
			looked.Store(true)
			r.write(&state.RevisionSeen{Revision: "main@sha1:3f2a91c0"}, &state.Converged{Revision: "main@sha1:3f2a91c0"})
			return false
		}
		return true
	}})
	o, err := w.Until(t.Context())
	if err != nil || o.Stuck || !o.Converged {
		t.Errorf("outcome %+v, %v", o, err)
	}
}

func TestEvaluateWaitsForTransientHolds(t *testing.T) {
	r := newRun(t)
	r.begin()
	r.write(&state.Held{ID: "h-1", Object: web, Code: state.HoldNoRoom, OS: state.Linux, Count: 2})
	if o := Evaluate(r.state, r.Words, time.Second, time.Minute); o.Stuck || o.Converged {
		t.Errorf("after a second: %+v", o)
	}
	if o := Evaluate(r.state, r.Words, time.Minute, time.Minute); !o.Stuck {
		t.Errorf("after a minute: %+v", o)
	}
}

func TestTerminalIsDrawnInPlace(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &screen{grown: make(chan string, 100)}
	done := make(chan error, 1)
	go func() { done <- New(r, Options{Out: out, Terminal: true, Width: func() int { return 60 }}).Show(ctx) }()
	out.wait(t, `web +0/2`)
	r.pod("web-a", template)
	out.wait(t, "\x1b\\[\\d+A\x1b\\[J")
	out.wait(t, `web +1/2`)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A screen hands on what is written to it.
type screen struct {
	grown chan string
	text  string
}

func (s *screen) Write(b []byte) (int, error) {
	s.grown <- string(b)
	return len(b), nil
}

func (s *screen) wait(t *testing.T, expression string) {
	t.Helper()
	want := regexp.MustCompile(expression)
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !want.MatchString(s.text) {
		select {
		case more := <-s.grown:
			s.text += more
		case <-limit.C:
			t.Fatalf("no %s in %q", expression, s.text)
		}
	}
}

// An update says what it changes: how many pods it replaces is the rollout's to
// decide.
func TestLineOfUpdate(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	r.pod("web-a", template)
	r.pod("web-b", template)
	r.write(&state.RevisionApplied{Revision: "main@sha1:4a81c004", Manifest: state.DigestOf([]byte("m")), Changes: []state.Change{{Ref: web, Verb: state.Update}}})
	r.write(&state.RolledOut{Workload: web}, &state.Converged{Revision: "main@sha1:4a81c004"})
	var out bytes.Buffer
	if _, err := New(r, Options{Out: &out}).Until(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := " root main@4a81c00: 1 objects; changed: deploy/web\n"; !strings.Contains(out.String(), want) {
		t.Errorf("got\n%s\nwant a line with%s", &out, want)
	}
}

// What is taken down is not told as if it failed.
func TestRemovedIsNotToldAsUnready(t *testing.T) {
	r := newRun(t)
	template := r.begin()
	uid := r.pod("web-a", template)
	r.pod("web-b", template)
	tell := &teller{shown: map[state.Ref]string{}, touched: map[state.Ref]bool{web: true}}
	if lines := tell.settle(r.state); len(lines) != 1 {
		t.Fatalf("lines %q", lines)
	}
	r.write(&state.AppRemoved{Name: state.RootApp, Changes: []state.Change{{Ref: web, Verb: state.Delete}}}, &state.PodStopping{UID: uid})
	tell.touched[web] = true
	if lines := tell.settle(r.state); len(lines) != 0 {
		t.Errorf("lines %q", lines)
	}
}
