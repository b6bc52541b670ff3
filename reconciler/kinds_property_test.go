package reconciler_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/datadriven"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// zoo is a world with one of each kind in which anything happens; the laws of
// these kinds are checked after every step, and that incremental planning is
// planning.
type zoo struct {
	*story
	base *testing.T
	t    *rapid.T
	seen int // records that were checked
}

func TestKinds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		z := &zoo{story: newStory(), base: t, t: rt}
		for i, os := range []string{"linux", "linux", "windows"} {
			z.command(z.base, &datadriven.TestData{Cmd: "node", CmdArgs: []datadriven.CmdArg{{Key: fmt.Sprintf("%s-%d", os, i)}, {Key: os}}})
		}
		z.text()
		for range rapid.IntRange(1, 40).Draw(rt, "events") {
			z.happens()
			z.obeys()
		}
		z.ends()
	})
}

// text is a commit that says anything of each kind.
func (z *zoo) text() {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(z.t, name) }
	image := pick("image", "1", "2")
	job := pick("job", "completions: 1", "completions: 3\n  parallelism: 2", "completions: 4\n  parallelism: 4", "parallelism: 2", "parallelism: 0",
		"completionMode: Indexed\n  completions: 3\n  parallelism: 2", "completionMode: Indexed\n  completions: 2\n  parallelism: 5\n  backoffLimitPerIndex: 1",
		"completions: 3\n  parallelism: 3\n  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}",
		"completions: 2\n  parallelism: 3\n  podReplacementPolicy: Failed", "completions: 2\n  suspend: true")
	cron := pick("cron", "Allow", "Forbid", "Replace")
	daemon := pick("daemon", "{type: OnDelete}", "{rollingUpdate: {maxUnavailable: 1}}", "{rollingUpdate: {maxUnavailable: 50%}}", "{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}")
	away := pick("budget", "maxUnavailable: 1", "minAvailable: 2", "maxUnavailable: 50%", "minAvailable: 100%")
	z.commit(z.base, &datadriven.TestData{Cmd: "commit", Input: fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  backoffLimit: 3
  %s
  template: {spec: {os: {name: linux}, restartPolicy: Never, containers: [{name: main, image: "work:%s"}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  concurrencyPolicy: %s
  successfulJobsHistoryLimit: 1
  jobTemplate: {spec: {backoffLimit: 0, template: {spec: {os: {name: windows}, restartPolicy: Never, containers: [{name: main, image: "tick:1"}]}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: %s
  template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: main, image: "agent:%s"}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {os: {name: linux}, containers: [{name: main, image: "web:1"}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  %s
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec: {os: {name: linux}, restartPolicy: Never, containers: [{name: main, image: "once:%s"}]}
`, job, image, cron, daemon, image, away, image)})
}

// happens draws what goes on: a commit, time, agents, pods, nodes, people.
func (z *zoo) happens() {
	names := z.names()
	node := names[rapid.IntRange(0, len(names)-1).Draw(z.t, "node")]
	switch rapid.IntRange(0, 11).Draw(z.t, "what") {
	case 0:
		z.text()
	case 1, 2:
		z.pass(z.base, arg("pass", fmt.Sprintf("%ds", rapid.IntRange(1, 90).Draw(z.t, "seconds"))))
	case 3, 4, 5:
		z.round(false, nil)
	case 6, 7, 8:
		z.pod1()
	case 9:
		z.agents[node].lost = true
	case 10:
		if z.agents[node].lost {
			z.command(z.base, arg("return", string(node)))
		}
	case 11:
		z.person(node)
	}
}

func arg(cmd string, keys ...string) *datadriven.TestData {
	d := &datadriven.TestData{Cmd: cmd}
	for _, k := range keys {
		d.CmdArgs = append(d.CmdArgs, datadriven.CmdArg{Key: k})
	}
	return d
}

// pod1 lets one pod's agent say something of it.
func (z *zoo) pod1() {
	var known []*state.Pod
	for _, p := range z.m.State().SortedPods() {
		if _, ok := z.agents[p.Node].pods[p.UID]; ok && !z.agents[p.Node].lost {
			known = append(known, p)
		}
	}
	if len(known) == 0 {
		return
	}
	p := known[rapid.IntRange(0, len(known)-1).Draw(z.t, "pod")]
	st := z.agents[p.Node].pods[p.UID]
	switch kind := p.Workload.Kind; rapid.IntRange(0, 3).Draw(z.t, "says") {
	case 0:
		if st.Phase == state.Running {
			st.Ready = !st.Ready
		}
	case 1:
		if kind == "Job" || kind == "Pod" {
			st = ended(p, 0)
		}
	case 2:
		st = ended(p, 1)
	case 3:
		delete(z.agents[p.Node].pods, p.UID)
		z.report(p.Node, true, nil)
		return
	}
	if p.Ended() {
		return // what ended stays so
	}
	st.UID = p.UID
	z.agents[p.Node].pods[p.UID] = st
	z.report(p.Node, false, nil)
}

// person asks for something.
func (z *zoo) person(node state.NodeName) {
	verb := rapid.SampledFrom([]string{"drain", "uncordon", "cordon", "evict", "delete", "restart"}).Draw(z.t, "verb")
	object := "Node/" + string(node)
	switch verb {
	case "evict", "delete":
		pods := z.m.State().SortedPods()
		if len(pods) == 0 {
			return
		}
		object = "Pod/" + z.name(pods[rapid.IntRange(0, len(pods)-1).Draw(z.t, "of")])
	case "restart":
		object = rapid.SampledFrom([]string{"Job/work", "DaemonSet/agent", "Deployment/web", "Pod/once", "CronJob/tick"}).Draw(z.t, "of")
	}
	z.do(z.base, arg("do", verb, object))
}

// ends lets all be well: everything comes to rest.
func (z *zoo) ends() {
	for _, name := range z.names() {
		if z.agents[name].lost {
			z.command(z.base, arg("return", string(name)))
		}
		z.do(z.base, arg("do", "uncordon", "Node/"+string(name)))
	}
	for range 60 {
		z.settle()
		z.obeys()
		quiet := true
		for _, p := range z.m.State().SortedPods() {
			a := z.agents[p.Node]
			if st, ok := a.pods[p.UID]; ok && p.Workload.Kind == "Job" && !p.Ended() && !p.Stopping {
				st = ended(p, 0)
				st.UID = p.UID
				a.pods[p.UID] = st
				z.report(p.Node, false, nil)
			} else if ok && !st.Ready && !p.Ended() && !p.Stopping && p.Workload.Kind != "Job" {
				a.pods[p.UID] = running(&state.AssignedPod{UID: p.UID, Template: p.Template}, true, 0)
				z.report(p.Node, false, nil)
			}
			quiet = quiet && !p.Stopping
		}
		w := z.m.State().Workloads[state.Ref{Kind: "Job", Namespace: "default", Name: "work"}]
		j, _ := w.BatchJob()
		idle := *j.Spec.Parallelism == 0 || j.Spec.Suspend != nil && *j.Spec.Suspend
		if quiet && (w.Job.Over() || idle) && z.m.State().Workloads[state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}].Complete {
			return
		}
		z.pass(z.base, arg("pass", "61s"))
	}
	z.t.Fatalf("it does not come to rest:\n%s", z.out.String())
}

// obeys checks the laws.
func (z *zoo) obeys() {
	s := z.m.State()
	if err := z.m.Check(); err != nil {
		z.t.Fatal(err)
	}
	for _, w := range s.SortedWorkloads() {
		switch {
		case w.Job != nil:
			z.job(w)
		case w.Ref.Kind == "DaemonSet":
			z.daemon(w)
		case w.Ref.Kind == "Pod" && len(w.Pods) > 1:
			z.t.Fatalf("%s lives twice", w.Ref)
		}
	}
	for ; z.seen < len(z.log); z.seen++ {
		if f, ok := z.log[z.seen].Fact.(*state.CronFired); ok {
			z.cron(s.Workloads[f.CronJob])
		}
	}
	for _, d := range schedule.Disruptions(s) {
		if d.Left < 0 || d.Left > d.Healthy {
			z.t.Fatalf("%s lets %d of %d go", d.Ref, d.Left, d.Healthy)
		}
	}
}

// job: never more active than parallelism, never an index twice, never more
// succeeded than completions, and nothing runs for a Job that doesn't.
func (z *zoo) job(w *state.Workload) {
	j, _ := w.BatchJob()
	active, indexes := int32(0), map[int32]int{}
	for _, p := range w.Pods {
		if p.Ended() || p.Stopping || p.Lost || !w.IsCurrent(p) {
			continue
		}
		active++
		if indexes[p.Ordinal]++; p.Ordinal >= 0 && indexes[p.Ordinal] > 1 {
			z.t.Fatalf("%s: index %d runs twice", w.Ref, p.Ordinal)
		}
	}
	indexed := *j.Spec.CompletionMode == batchv1.IndexedCompletion
	switch {
	case active > *j.Spec.Parallelism:
		z.t.Fatalf("%s: %d active, parallelism %d", w.Ref, active, *j.Spec.Parallelism)
	case w.Job.Stage != state.JobRunning && active > 0 && !w.Deleting:
		z.t.Fatalf("%s is %s with %d active", w.Ref, w.Job.Stage, active)
	case !indexed && j.Spec.Completions != nil && w.Job.Succeeded > *j.Spec.Completions:
		z.t.Fatalf("%s: %d succeeded of %d", w.Ref, w.Job.Succeeded, *j.Spec.Completions)
	}
}

// cron: a CronJob that forbids or replaces never has two that run.
func (z *zoo) cron(w *state.Workload) {
	c, _ := w.CronJob()
	active, kept := 0, 0
	for _, child := range w.Children() {
		switch {
		case child.Deleting:
		case child.Job.Stage == state.JobComplete:
			kept++
		case !child.Job.Over():
			active++
		}
	}
	if c.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && active > 1 {
		z.t.Fatalf("%s forbids, and %d run", w.Ref, active)
	}
	if kept > int(*c.Spec.SuccessfulJobsHistoryLimit) {
		z.t.Fatalf("%s keeps %d", w.Ref, kept)
	}
}

// daemon: one pod a node, two at most where an update surges.
func (z *zoo) daemon(w *state.Workload) {
	set, ok := w.Owned.Object.First().(*appsv1.DaemonSet)
	if !ok {
		z.t.Fatalf("%s is no DaemonSet", w.Ref)
	}
	surge := set.Spec.UpdateStrategy.RollingUpdate != nil && set.Spec.UpdateStrategy.RollingUpdate.MaxSurge.IntValue() > 0
	on := map[state.NodeName][]*state.Pod{}
	for _, p := range w.Pods {
		if !p.Stopping && !p.Lost && !p.Ended() {
			on[p.Node] = append(on[p.Node], p)
		}
	}
	for node, pods := range on {
		current := slices.DeleteFunc(slices.Clone(pods), func(p *state.Pod) bool { return !w.IsCurrent(p) })
		if len(pods) > 2 || len(current) > 1 || len(pods) > 1 && !surge {
			z.t.Fatalf("%s has %d pods on %s, %d of them current", w.Ref, len(pods), node, len(current))
		}
	}
}
