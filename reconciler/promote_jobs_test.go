package reconciler_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// modelJobs is the model's prod stage waiting for a Job in place of people: the
// root's judge, and the world's own books of what it said.
type modelJobs struct {
	version int
	runs    map[state.Ref]*modelRun
	passed  map[string]bool // trees, by the judge as it is
	started int
}

// A modelRun is one Job.
type modelRun struct {
	tree    string
	version int
	alone   bool // staging ran that tree and no other meanwhile
	over    bool
}

func newModelJobs() *modelJobs {
	return &modelJobs{runs: map[state.Ref]*modelRun{}, passed: map[string]bool{}}
}

// TestJobGateModel explores a stage that waits for a Job, exhaustively up to a
// depth: the Job succeeds, fails, or the stage before goes on while it runs; the
// root changes the judge; a controller dies. No commit goes without a Job of the
// judge as it is that succeeded while the stage before ran that very tree.
func TestJobGateModel(t *testing.T) {
	t.Parallel()
	depth := 3
	if testing.Short() {
		depth = 2
	}
	if os.Getenv("TANDEM_SOAK") != "" {
		depth = 7
	}
	tested := []string{"commit", "see dev", "tick", "push", "see staging"}
	soaked := append(slices.Clone(tested), "promote rita", "tick", "tick")
	second := append(slices.Clone(soaked), "job succeeds", "push", "see prod", "commit", "see dev", "tick", "push", "see staging")
	overtaking := append(slices.Clone(soaked), "commit", "see dev", "tick", "push")
	seen := map[string]bool{}
	moved, started, overtaken := 0, 0, 0
	for _, start := range [][]string{nil, tested, soaked, second, overtaking} {
		frontier := [][]string{start}
		for d := 0; d <= depth && len(frontier) > 0; d++ {
			var next [][]string
			for _, path := range frontier {
				w := playModelWith(t, path, newModelJobs())
				if t.Failed() {
					return
				}
				if seen[w.key()] {
					continue
				}
				seen[w.key()] = true
				moved, started = moved+w.moved, started+w.jobs.started
				for _, r := range w.jobs.runs {
					if !r.alone {
						overtaken++
					}
				}
				for _, a := range w.actions() {
					next = append(next, append(slices.Clone(path), a))
				}
				w.settles(path)
				w.jobs.settled(w)
			}
			frontier = next
		}
	}
	t.Logf("%d states; %d pushes, %d Jobs began, %d were overtaken", len(seen), moved, started, overtaken)
	if moved == 0 || started == 0 || overtaken == 0 {
		t.Error("the model explores too little: no push, no Job or none overtaken")
	}
}

func (j *modelJobs) pipeline(p state.Pipeline) state.Pipeline {
	prod := &p.Stages[2]
	prod.Gates = []state.Gate{prod.Gates[0], {Kind: state.GateJobs, Name: "smoke", Namespace: "default"}}
	return p
}

// root is the judge as the root says it.
func (j *modelJobs) root(w *modelWorld) *state.Manifest {
	image := fmt.Sprintf("smoke-%d", j.version)
	body := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "smoke", Namespace: "default"}}
	body.Spec.Schedule = "0 0 1 1 *"
	body.Spec.Suspend = new(bool)
	*body.Spec.Suspend = true
	body.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{
		OS: &corev1.PodOS{Name: corev1.Linux}, RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image}},
	}
	m := &state.Manifest{App: state.RootApp, Digest: state.DigestOf([]byte(image)), Objects: []*state.Object{{
		Ref: state.Ref{Kind: "CronJob", Namespace: "default", Name: "smoke"}, Variants: []state.Variant{{OS: state.Linux, Body: body, Digest: state.DigestOf([]byte("b" + image))}},
	}}}
	w.shelf.manifests[m.Digest] = m
	return m
}

func modelImage(name string) state.Image {
	d := state.DigestOf([]byte(name))
	return state.Image{Name: name, Index: d, Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: d}}}
}

// node is one that the Jobs' pods go to.
func (j *modelJobs) node() []state.Event {
	return []state.Event{&state.NodeHello{Node: "linux-1", BootID: "boot", Incarnation: 1, Facts: state.NodeFacts{
		OS: state.Linux, Arch: "amd64", Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 110},
	}}}
}

func (j *modelJobs) renewed(w *modelWorld) []state.Event {
	if j == nil {
		return nil
	}
	return []state.Event{&state.Renewed{Node: "linux-1", Sent: w.now.Mono}}
}

func (j *modelJobs) rejudge(w *modelWorld) {
	j.version++
	clear(j.passed)
	e := &state.RootRendered{Revision: "main@sha1:" + state.Revision(modelHash(100+j.version)), Pipelines: []state.Pipeline{j.pipeline(modelPipeline())}, Manifest: j.root(w)}
	for _, s := range modelStages() {
		e.Apps = append(e.Apps, state.Application{Name: state.AppName(s), Path: s, Source: state.AppSource{Ref: s}})
	}
	w.take(w.m.Step(w.now, []state.Event{e}))
}

func (j *modelJobs) begins(w *modelWorld, f *state.GateJobStarted) {
	j.started++
	tree := w.commits[w.seen["staging"]].tree
	if tree != f.Commit.Tree {
		w.t.Errorf("%v: a Job judges %s while staging runs %s", w.path, f.Commit.Tree, tree)
	}
	j.runs[f.Job] = &modelRun{tree: f.Commit.Tree, version: j.version, alone: true}
}

// leave is staging going to another tree.
func (j *modelJobs) leave(stage, tree string) {
	if j == nil || stage != "staging" {
		return
	}
	for _, r := range j.runs {
		if r.tree != tree {
			r.alone = r.alone && r.over
		}
	}
}

// running is the Job that could end now.
func (j *modelJobs) running(w *modelWorld) *state.Workload {
	for _, x := range w.m.State().SortedWorkloads() {
		if r := j.runs[x.Ref]; r != nil && !r.over && !x.Deleting && !x.Job.Over() {
			return x
		}
	}
	return nil
}

func (j *modelJobs) end(w *modelWorld, well bool) {
	x := j.running(w)
	if x == nil {
		return
	}
	r := j.runs[x.Ref]
	r.over = true
	if well && r.alone && r.version == j.version {
		j.passed[r.tree] = true
	}
	f := &state.JobMoved{Workload: x.Ref, Stage: state.JobComplete, Why: state.JobCompletionsReached}
	if !well {
		f.Stage, f.Why = state.JobFailed, state.JobBackoffLimitExceeded
	}
	w.take(w.m.Fold(w.now, state.RootApp, f))
}

// judge holds a promotion that goes against the books.
func (j *modelJobs) judge(w *modelWorld, p *state.Promotion) {
	if !j.passed[p.Commit.Tree] {
		w.t.Errorf("%v: %s goes and no Job succeeded for it: a bypass", w.path, p.Commit.Tree)
	}
}

// settled says that every Job that began and doesn't run has an outcome.
func (j *modelJobs) settled(w *modelWorld) {
	outcomes := map[state.Ref]int{}
	for _, r := range w.log {
		if f, ok := r.Fact.(*state.GateJobEnded); ok {
			outcomes[f.Job]++
		}
	}
	for ref := range j.runs {
		x := w.m.State().Workloads[ref]
		runs := x != nil && !x.Deleting && !x.Job.Over()
		if n := outcomes[ref]; n != 1 && (n != 0 || !runs) {
			w.t.Errorf("%v: %s has %d outcomes, and runs: %t", w.path, ref, n, runs)
		}
	}
}

func (j *modelJobs) key(b *strings.Builder, s *state.State) {
	if j == nil {
		return
	}
	fmt.Fprintf(b, "|%d %v", j.version, j.passed)
	for _, g := range s.Lines["shop"].Stages[2].Jobs {
		fmt.Fprintf(b, " %s %d %d", g.Commit.Tree, g.Try, g.Outcome)
	}
}
