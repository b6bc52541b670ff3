package kubeapi

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// A ruled world is one whose records a real machine makes: what is asked through
// the API is decided as in production. Its nodes do at once what they are told.
type ruled struct {
	*world
	m      *reconciler.Machine
	number uint64
	status map[state.PodKey]state.PodStatus // what a pod says instead of running
}

func newRuled(t *testing.T, nodes ...state.NodeName) *ruled {
	t.Helper()
	w := &ruled{world: newWorld(t), status: map[state.PodKey]state.PodStatus{}}
	w.m = reconciler.New(w.world)
	w.take(w.m.Start(w.now(), state.DigestOf([]byte("ruled")), "test"))
	r := state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 110}
	for _, name := range nodes {
		facts := state.NodeFacts{OS: state.Linux, Arch: "amd64", Capacity: r, Allocatable: r, Simulated: true}
		w.step(&state.NodeHello{Node: name, Facts: facts, BootID: "boot", Incarnation: 1})
	}
	return w
}

func (w *ruled) now() state.Instant {
	return state.Instant{Wall: start().UnixNano()}
}

func (w *ruled) step(events ...state.Event) { w.take(w.m.Step(w.now(), events)) }

// take folds what the machine recorded into the state that the API reads.
func (w *ruled) take(out reconciler.Output) {
	w.t.Helper()
	w.mu.Lock()
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			w.manifests[b.Digest] = b.Manifest
			continue
		}
		tpl, err := state.ParseTemplate(b.Template)
		if err != nil {
			w.t.Error(err)
			continue
		}
		w.templates[b.Digest] = tpl
	}
	for _, r := range out.Records {
		if err := w.state.Apply(r); err != nil {
			w.t.Errorf("fold %s: %v", r.Fact.Kind(), err)
		}
		w.records = append(w.records, r)
	}
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	for _, e := range out.Effects {
		if l, ok := e.(*state.LookUp); ok {
			w.step(&state.ImageLooked{App: l.App, Manifest: l.Manifest, Image: state.Image{Name: l.Image, Assumed: true, Failure: state.LookupNotFound}})
		}
	}
}

// Do decides a command with the machine, and lets the nodes follow.
func (w *ruled) Do(_ context.Context, c *state.Command) (state.Reply, error) {
	out := w.m.Step(w.now(), []state.Event{c})
	w.take(out)
	w.settle()
	for _, e := range out.Effects {
		if r, ok := e.(*state.Reply); ok {
			return *r, nil
		}
	}
	return state.Reply{}, nil
}

// commit applies a root whose objects are the text.
func (w *ruled) commit(text string) {
	w.t.Helper()
	m := &state.Manifest{App: state.RootApp}
	dec := manifest.NewDecoder(manifest.Options{})
	at := state.Origin{Path: "app.yaml", Line: 1}
	values, problems := manifest.Parse(at, []byte(text))
	for _, v := range values {
		d, more := dec.Decode(v, func(manifest.Path, *manifest.Value) state.Origin { return at })
		problems = append(problems, more...)
		if d.Body == nil {
			continue
		}
		m.Objects = append(m.Objects, &state.Object{Ref: d.Ref, Variants: []state.Variant{variant(state.AnyOS, d.Body, "app.yaml", 1)}})
	}
	for _, p := range problems {
		w.t.Fatal(p)
	}
	m.Digest = manifest.Digest(m.Objects)
	w.step(&state.RootRendered{Revision: state.Revision("main@sha1:" + m.Digest.Short()), Manifest: m})
	w.settle()
}

// settle lets every node run what it is assigned, until nothing changes.
func (w *ruled) settle() {
	for range 100 {
		before := w.m.State().Seq
		for _, n := range w.m.State().SortedNodes() {
			w.number++
			r := state.Report{Node: n.Name, Epoch: n.Epoch, BootID: "boot", Incarnation: 1, Number: w.number, Applied: n.Generation, Full: true}
			for uid, p := range n.Pods {
				if p.Stopping {
					continue
				}
				st, ok := w.status[p.Key]
				if !ok {
					name := p.Template.Spec.Spec.Containers[0].Name
					st = state.PodStatus{Phase: state.Running, Ready: true, IP: "10.1.0.7", Containers: []state.ContainerStatus{{Name: name, State: state.ContainerRunning, Ready: true, Started: true}}}
				}
				st.UID = uid
				r.Pods = append(r.Pods, st)
			}
			w.step(&state.Reported{Report: r})
		}
		if w.m.State().Seq == before {
			return
		}
	}
	w.t.Fatal("it does not settle")
}

// ends makes every pod of a workload end with a code.
func (w *ruled) ends(workload string, code int32) {
	for _, p := range w.m.State().SortedPods() {
		if p.Workload.Name != workload || p.Ended() {
			continue
		}
		st := state.PodStatus{Phase: state.Succeeded, Reason: state.ReasonCompleted, Containers: []state.ContainerStatus{{Name: "main", State: state.ContainerTerminated, ExitCode: code}}}
		if code != 0 {
			st.Phase, st.Reason = state.Failed, state.ReasonError
		}
		w.status[p.Key] = st
	}
	w.settle()
}

func TestKubectlSeesEveryKind(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "kinds.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := newRuled(t, "linux-1", "linux-2")
	w.commit(string(text))
	w.ends("done", 0)
	w.ends("bad", 3)
	k := stockKubectl(t, serveRuled(t, w))
	k.want(k.run("get", "jobs"), `NAME +STATUS +COMPLETIONS +DURATION +AGE`,
		`done +Complete +2/2 `, `bad +Failed +0/1 `, `wait +Suspended +0/1 `, `parts +Running +0/3 `)
	k.want(k.run("get", "cronjobs"), `NAME +SCHEDULE +TIMEZONE +SUSPEND +ACTIVE +LAST SCHEDULE +AGE`, `night +30 4 \* \* \* +Europe/Berlin +False|false +0 +<none>`)
	k.want(k.run("get", "ds"), `NAME +DESIRED +CURRENT +READY +UP-TO-DATE +AVAILABLE +NODE SELECTOR +LINUX +WINDOWS +AGE`, `agent +2 +2 +2 +2 +2 +<none> +2/2 +- `)
	k.want(k.run("get", "pdb"), `NAME +MIN AVAILABLE +MAX UNAVAILABLE +ALLOWED DISRUPTIONS +AGE`, `web +2 +N/A +0 `)
	k.want(k.run("get", "priorityclasses"), `NAME +VALUE +GLOBAL-DEFAULT +AGE +PREEMPTIONPOLICY`, `urgent +100 +false .*Never`, `system-node-critical +2000001000 +false`)
	k.want(k.run("describe", "job", "done"), `Completions: +2`, `Pods Statuses: +0 Active .*/ 2 Succeeded / 0 Failed`)
	k.want(k.run("describe", "job", "parts"), `Completion Mode: +Indexed`, `Parallelism: +2`)
	k.want(k.run("get", "pods", "-l", "batch.kubernetes.io/job-name=parts", "-o", "yaml"),
		`batch.kubernetes.io/job-completion-index: "0"`, `batch.kubernetes.io/job-index-failure-count: "0"`, `hostname: parts-0`)
	k.want(k.run("describe", "cronjob", "night"), `Schedule: +30 4 \* \* \*`, `Concurrency Policy: +Forbid`, `Time Zone: +Europe/Berlin`)
	k.want(k.run("describe", "ds", "agent"), `Desired Number of Nodes Scheduled: 2`, `Pods Status: +2 Running`)
	k.want(k.run("describe", "pdb", "web"), `Min available: +2`, `Current: +2`, `Desired: +2`)
	k.want(k.run("describe", "priorityclass", "urgent"), `Value: +100`, `PreemptionPolicy: +Never`)
	k.want(k.run("rollout", "status", "ds/agent"), `successfully rolled out`)
	k.want(k.run("rollout", "history", "ds/agent"), `(?m)^1 `)
	k.want(k.run("rollout", "history", "deploy/web"), `(?m)^1 `)
	k.want(k.run("rollout", "status", "deploy/web"), `successfully rolled out`)
	k.want(k.run("wait", "--for=condition=Complete", "job/done", "--timeout=10s"), `condition met`)
	k.want(k.run("wait", "--for=condition=Failed", "job/bad", "--timeout=10s"), `condition met`)
	k.want(k.run("get", "deploy", "web", "-o", "yaml"), `reason: NewReplicaSetAvailable`, `terminatingReplicas: 0`)
}

func TestKubectlActsWithinBudgets(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "kinds.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := newRuled(t, "linux-1", "linux-2")
	w.commit(string(text))
	k := stockKubectl(t, serveRuled(t, w))
	// The budget lets none of two go: the refusal names it, and drain tries again until its time is up.
	out := k.fails("drain", "linux-1", "--ignore-daemonsets", "--force", "--pod-selector=app=web", "--timeout=6s")
	k.want(out, `node/linux-1 cordoned`, `Cannot evict pod as it would violate the pod's disruption budget: PodDisruptionBudget default/web wants 2 healthy pods and has 2`)
	k.want(k.run("uncordon", "linux-1"), `uncordoned`)
	k.want(k.run("cordon", "linux-2"), `cordoned`)
	k.want(k.run("uncordon", "linux-2"), `uncordoned`)
	// What no budget covers leaves at once; a person's delete goes past budgets, as Kubernetes's does.
	k.want(k.run("drain", "linux-1", "--ignore-daemonsets", "--force", "--pod-selector=app=free", "--timeout=20s"), `node/linux-1 drained`)
	pod := w.podOf("web")
	k.want(k.run("delete", "pod", pod, "--timeout=20s"), `deleted`)
	verbs := map[state.CommandVerb]int{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		if c, ok := r.Fact.(*state.Commanded); ok {
			if r.Actor.IsZero() || c.Reason.IsZero() {
				t.Errorf("%s of %s has no actor or no reason", c.Verb, c.Object)
			}
			verbs[c.Verb]++
		}
	}
	if verbs[state.CmdCordon] != 3 || verbs[state.CmdUncordon] != 2 || verbs[state.CmdEvict] == 0 || verbs[state.CmdDeletePod] != 1 {
		t.Errorf("recorded %v", verbs)
	}
}

// podOf is a pod of a workload that runs.
func (w *ruled) podOf(workload string) string {
	for _, p := range w.m.State().SortedPods() {
		if p.Workload.Name == workload && !p.Stopping {
			return p.Key.Name
		}
	}
	w.t.Fatalf("%s has no pod", workload)
	return ""
}
