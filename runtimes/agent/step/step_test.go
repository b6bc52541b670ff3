package step_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A world answers actions as a runtime would, when told to.
type world struct {
	t       *testing.T
	m       *step.Machine
	now     state.Instant
	wake    state.Instant
	pending []step.Action
	probes  map[step.Probe]bool
	last    map[state.UID]state.PodStatus
	reports []*state.Report
}

func newWorld(t *testing.T, saved *step.Saved) *world {
	t.Helper()
	w := &world{t: t, probes: map[step.Probe]bool{}, last: map[state.UID]state.PodStatus{}}
	w.now = state.Instant{Mono: time.Hour, Wall: 1e18}
	w.m = step.New(config("boot-1"), saved)
	return w
}

func config(boot string) step.Config {
	return step.Config{Node: "n1", Facts: &state.NodeFacts{OS: state.Linux, Arch: "amd64"}, BootID: boot, Incarnation: 1}
}

func (w *world) step(events ...step.Event) {
	w.t.Helper()
	out := w.m.Step(w.now, events...)
	w.wake = out.Wake
	for _, a := range out.Actions {
		switch a.Do {
		case step.StartProbe:
			w.probes[a.Probe] = true
		case step.StopProbe:
			w.probes[a.Probe] = false
		case step.Cancel:
		default:
			w.pending = append(w.pending, a)
		}
	}
	if out.Report != nil {
		w.reports = append(w.reports, out.Report)
		for _, p := range out.Report.Pods {
			w.last[p.UID] = p
		}
		for _, u := range out.Report.Gone {
			delete(w.last, u)
		}
	}
}

// answer ends every action that is pending, and those that follow, with OK but
// where fail says otherwise.
func (w *world) answer(fail map[step.Verb]step.Class) {
	w.t.Helper()
	for i := 0; len(w.pending) > 0; i++ {
		if i > 100 {
			w.t.Fatal("actions never end")
		}
		batch := w.pending
		w.pending = nil
		for _, a := range batch {
			class, text := step.OK, ""
			if c, ok := fail[a.Do]; ok {
				class, text = c, "it failed"
			}
			w.step(&step.Done{ID: a.ID, UID: a.UID, Class: class, Text: text, IP: "10.0.0.2"})
		}
	}
}

func (w *world) sleep(d time.Duration) {
	w.now = w.now.Add(d)
	w.step()
}

func (w *world) exit(uid state.UID, name string, attempt, code int32) {
	w.step(&step.Observed{Containers: []step.Container{{UID: uid, Name: name, Attempt: attempt, ExitCode: code, Finished: w.now.Wall}}})
}

func (w *world) want(uid state.UID, phase state.PodPhase, ready bool, reason state.PodReason) {
	w.t.Helper()
	p, ok := w.last[uid]
	if !ok {
		w.t.Fatalf("pod was never reported")
	}
	if p.Phase != phase || p.Ready != ready || p.Reason != reason {
		w.t.Fatalf("pod is %v ready=%v %v (%s), want %v ready=%v %v", p.Phase, p.Ready, p.Reason, p.Message, phase, ready, reason)
	}
}

func (w *world) did(verbs ...step.Verb) {
	w.t.Helper()
	for _, v := range verbs {
		found := false
		for _, a := range w.pending {
			found = found || a.Do == v
		}
		if !found {
			w.t.Fatalf("pending %v, want %v", w.pending, v)
		}
	}
	if len(w.pending) != len(verbs) {
		w.t.Fatalf("%d actions pending (%v), want %v", len(w.pending), w.pending, verbs)
	}
}

var one = state.UID{1}

func podOf(uid state.UID, edit func(*corev1.PodSpec)) *state.AssignedPod {
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}}}}
	if edit != nil {
		edit(&spec.Spec)
	}
	t, _ := state.NewTemplate(state.Linux, &spec, []state.Image{{Name: "web:1"}})
	return &state.AssignedPod{
		UID: uid, Key: state.PodKey{Namespace: "prod", Name: "web-1"}, Workload: state.Ref{Kind: "Deployment", Name: "web"},
		Ordinal: -1, Template: t, Grace: time.Second,
	}
}

func assign(gen uint64, pods ...*state.AssignedPod) *step.Assigned {
	return &step.Assigned{Assignment: &state.Assignment{Node: "n1", Epoch: 1, Generation: gen, Seq: state.Seq(gen), Pods: pods}}
}

func TestPodBecomesReady(t *testing.T) {
	w := newWorld(t, nil)
	w.step(assign(1, podOf(one, nil)))
	if len(w.pending) != 0 {
		t.Fatalf("acted before it saw what runs: %v", w.pending)
	}
	w.step(&step.Observed{Whole: true})
	w.did(step.MakeSandbox, step.Prepare, step.Pull)
	w.want(one, state.Pending, false, state.ReasonContainerCreating)
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)
	if r := w.reports[0]; !r.Full || r.Applied != 1 || r.Epoch != 1 || r.Incarnation != 1 || r.BootID != "boot-1" {
		t.Errorf("first report is %+v", r)
	}
	if r := w.reports[len(w.reports)-1]; r.Full {
		t.Errorf("a later report is full")
	}
}

func TestRestartBacksOff(t *testing.T) {
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, podOf(one, nil)))
	w.answer(nil)
	waits := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
	for i, wait := range waits {
		w.exit(one, "main", int32(i), 3)
		if wait > 0 {
			w.want(one, state.Running, false, state.ReasonCrashLoopBackOff)
			w.sleep(wait*time.Second - 1)
			if len(w.pending) != 0 {
				t.Fatalf("restart %d came early", i)
			}
			w.sleep(1)
		}
		w.did(step.Run)
		if got := w.pending[0].Attempt; got != int32(i+1) {
			t.Fatalf("attempt %d, want %d", got, i+1)
		}
		w.answer(nil)
		w.want(one, state.Running, true, state.ReasonNone)
	}
	if c := w.last[one].Containers[0]; c.Restarts != int32(len(waits)) || c.LastExit != 3 {
		t.Errorf("container is %+v", c)
	}
	w.sleep(step.BackoffReset + time.Second)
	w.exit(one, "main", int32(len(waits)), 3)
	w.did(step.Run) // forgotten: at once
}

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy corev1.RestartPolicy
		exit   int32
		phase  state.PodPhase
		reason state.PodReason
		again  bool
	}{
		{corev1.RestartPolicyNever, 0, state.Succeeded, state.ReasonCompleted, false},
		{corev1.RestartPolicyNever, 2, state.Failed, state.ReasonError, false},
		{corev1.RestartPolicyOnFailure, 0, state.Succeeded, state.ReasonCompleted, false},
		{corev1.RestartPolicyOnFailure, 2, state.Running, state.ReasonCrashLoopBackOff, true},
		{corev1.RestartPolicyAlways, 0, state.Running, state.ReasonCrashLoopBackOff, true},
	} {
		w := newWorld(t, nil)
		w.step(&step.Observed{Whole: true}, assign(1, podOf(one, func(s *corev1.PodSpec) { s.RestartPolicy = tc.policy })))
		w.answer(nil)
		w.exit(one, "main", 0, tc.exit)
		w.want(one, tc.phase, false, tc.reason)
		if again := len(w.pending) > 0; again != tc.again {
			t.Errorf("%s after %d: runs again %v", tc.policy, tc.exit, again)
		}
	}
}

func TestProbes(t *testing.T) {
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, podOf(one, func(s *corev1.PodSpec) {
		s.Containers[0].StartupProbe = &corev1.Probe{FailureThreshold: 5}
		s.Containers[0].ReadinessProbe = &corev1.Probe{FailureThreshold: 2, SuccessThreshold: 2}
		s.Containers[0].LivenessProbe = &corev1.Probe{FailureThreshold: 3}
	})))
	w.answer(nil)
	say := func(k step.Probe, ok bool) {
		w.step(&step.Probed{UID: one, Container: "main", Probe: k, OK: ok, Text: "no answer"})
	}
	if !w.probes[step.Startup] || w.probes[step.Liveness] || w.probes[step.Readiness] {
		t.Fatalf("the startup probe gates the others: %v", w.probes)
	}
	say(step.Startup, true)
	if w.probes[step.Startup] || !w.probes[step.Liveness] || !w.probes[step.Readiness] {
		t.Fatalf("after the startup probe: %v", w.probes)
	}
	say(step.Readiness, true)
	w.want(one, state.Running, false, state.ReasonNone)
	say(step.Readiness, true)
	w.want(one, state.Running, true, state.ReasonNone)
	say(step.Readiness, false)
	w.want(one, state.Running, true, state.ReasonNone)
	say(step.Readiness, false)
	w.want(one, state.Running, false, state.ReasonUnready)
	say(step.Liveness, false)
	say(step.Liveness, false)
	say(step.Liveness, true)
	say(step.Liveness, false)
	say(step.Liveness, false)
	if len(w.pending) != 0 {
		t.Fatal("stopped below the threshold")
	}
	say(step.Liveness, false)
	w.did(step.Stop)
	w.want(one, state.Running, false, state.ReasonUnhealthy)
	w.answer(nil)
	if c := w.last[one].Containers[0]; c.Restarts != 1 || c.LastWhy != state.ReasonUnhealthy {
		t.Errorf("container is %+v", c)
	}
}

func TestInitContainersAndSidecars(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, podOf(one, func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyNever
		s.InitContainers = []corev1.Container{
			{Name: "first", Image: "web:1"}, {Name: "side", Image: "web:1", RestartPolicy: &always}, {Name: "second", Image: "web:1"},
		}
	})))
	w.answer(nil)
	w.want(one, state.Pending, false, state.ReasonInitializing)
	w.exit(one, "first", 0, 0)
	w.answer(nil)
	w.exit(one, "second", 0, 0)
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)
	w.exit(one, "main", 0, 0)
	w.did(step.Stop) // the sidecar
	w.answer(nil)
	w.want(one, state.Succeeded, false, state.ReasonCompleted)
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		verb   step.Verb
		class  step.Class
		reason state.PodReason
	}{
		{step.Pull, step.Unavailable, state.ReasonImagePull},
		{step.Pull, step.NeverPull, state.ReasonImageNeverPull},
		{step.MakeSandbox, step.Unavailable, state.ReasonContainerCreating},
		{step.Prepare, step.ConfigMissing, state.ReasonConfigMissing},
		{step.Run, step.Unavailable, state.ReasonCreateError},
		{step.Run, step.Rejected, state.ReasonRejected},
		{step.Run, step.Unsupported, state.ReasonUnsupported},
	} {
		w := newWorld(t, nil)
		w.step(&step.Observed{Whole: true}, assign(1, podOf(one, nil)))
		w.answer(map[step.Verb]step.Class{tc.verb: tc.class})
		w.want(one, state.Pending, false, tc.reason)
		if w.last[one].Message != "it failed" {
			t.Errorf("%v %v: message %q", tc.verb, tc.class, w.last[one].Message)
		}
		if tc.class == step.Unsupported {
			if !w.wake.IsZero() {
				t.Errorf("what is never supported is tried again")
			}
			continue
		}
		w.now = w.wake
		w.step()
		w.did(tc.verb)
		w.answer(map[step.Verb]step.Class{tc.verb: tc.class})
		if tc.verb == step.Pull && tc.class == step.Unavailable {
			w.want(one, state.Pending, false, state.ReasonImagePullBackOff)
		}
		w.now = w.wake
		w.step()
		w.answer(nil)
		w.want(one, state.Running, true, state.ReasonNone)
	}
}

func TestStaleAssignmentsAreIgnored(t *testing.T) {
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(5, podOf(one, nil)))
	w.answer(nil)
	w.step(assign(4), assign(5, podOf(one, nil)))
	if len(w.pending) != 0 {
		t.Fatalf("an older or equal assignment caused %v", w.pending)
	}
	w.step(assign(6))
	w.did(step.Stop)
	w.answer(nil)
	if _, ok := w.last[one]; ok {
		t.Fatal("pod was not reported gone")
	}
	if r := w.reports[len(w.reports)-1]; r.Applied != 6 || len(r.Gone) != 1 {
		t.Errorf("last report is %+v", r)
	}
}

func TestStop(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, nil)
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.answer(nil)
	stop := *p
	stop.Stop, stop.Grace = true, 7*time.Second
	w.step(assign(2, &stop))
	w.did(step.Stop)
	if g := w.pending[0].Grace; g != 7*time.Second {
		t.Errorf("grace %v", g)
	}
	w.answer(nil)
	w.step(assign(3, &stop)) // the controller has not yet heard
	if len(w.pending) != 0 {
		t.Fatalf("removed twice: %v", w.pending)
	}
	w.step(&step.Connected{})
	if r := w.reports[len(w.reports)-1]; !r.Full || len(r.Pods) != 0 || len(r.Gone) != 1 {
		t.Errorf("full report is %+v", r)
	}
}

// A pod that ends is told once: that its sandbox goes before the pod does is no
// news.
func TestEndIsToldOnce(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, nil)
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.answer(nil)
	box := step.Sandbox{UID: one, IP: "10.0.0.2"}
	w.step(&step.Observed{Whole: true, Sandboxes: []step.Sandbox{box}, Containers: []step.Container{{UID: one, Name: "main", Running: true}}})
	stop := *p
	stop.Stop = true
	w.step(assign(2, &stop))
	w.step(&step.Observed{Whole: true, Sandboxes: []step.Sandbox{box}, Containers: []step.Container{{UID: one, Name: "main"}}})
	told := len(w.reports)
	w.step(&step.Observed{Whole: true})
	if len(w.reports) != told {
		t.Errorf("told again: %+v", w.reports[told:])
	}
}

func TestStopDuringStartWaitsForIt(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, nil)
	w.step(&step.Observed{Whole: true}, assign(1, p))
	stop := *p
	stop.Stop = true
	w.step(assign(2, &stop))
	w.did(step.MakeSandbox, step.Prepare, step.Pull) // no Remove beside them
	w.answer(nil)
	if len(w.last) != 0 {
		t.Fatalf("left: %v", w.last)
	}
}

func TestAdoption(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, func(s *corev1.PodSpec) { s.Containers[0].ReadinessProbe = &corev1.Probe{} })
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.answer(nil)
	w.exit(one, "main", 0, 1)
	w.answer(nil)
	w.step(&step.Probed{UID: one, Container: "main", Attempt: 1, Probe: step.Readiness, OK: true})
	w.want(one, state.Running, true, state.ReasonNone)

	v := newWorld(t, w.m.Save())
	v.step(&step.Observed{
		Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}, {UID: state.UID{9}}},
		Containers: []step.Container{{UID: one, Name: "main", Attempt: 1, Running: true}},
	})
	v.did(step.Prepare, step.Remove) // volumes are brought up to date; what nobody assigned goes
	v.want(one, state.Running, true, state.ReasonNone)
	last := v.last[one]
	if r := last.Restarts(); r != 1 {
		t.Errorf("restarts %d after adoption", r)
	}
	before := w.last[one]
	if was, is := &before.Containers[0], &last.Containers[0]; is.LastEnd == 0 || is.LastEnd != was.LastEnd || is.LastExit != was.LastExit {
		t.Errorf("its former life ended %+v, before adoption %+v", is, was)
	}
	if !v.probes[step.Readiness] {
		t.Error("adopted container is not probed")
	}
}

func TestReboot(t *testing.T) {
	w := newWorld(t, nil)
	db := podOf(one, nil)
	db.Workload.Kind = "StatefulSet"
	web := podOf(state.UID{2}, nil)
	w.step(&step.Observed{Whole: true}, assign(1, db, web))
	w.answer(nil)

	v := newWorld(t, w.m.Save())
	v.m = step.New(config("boot-2"), w.m.Save())
	v.step(&step.Observed{Whole: true})
	ended := v.last[state.UID{2}]
	if c := &ended.Containers[0]; c.State != state.ContainerWaiting || c.Reason != state.ReasonHostRestart {
		t.Errorf("what the reboot ended is %+v, want waiting because of it", c)
	}
	v.answer(nil)
	v.want(one, state.Running, false, state.ReasonHostRestart)
	v.want(state.UID{2}, state.Running, true, state.ReasonNone)
	v.step(assign(1, db, web))
	v.answer(nil)
	v.want(one, state.Running, true, state.ReasonNone)
	for _, uid := range []state.UID{one, {2}} {
		p := v.last[uid]
		if c := &p.Containers[0]; c.LastEnd == 0 || c.LastExit != 255 || c.LastWhy != state.ReasonHostRestart || c.Restarts != 1 {
			t.Errorf("pod %s: its life before the reboot ended %+v", uid, c)
		}
	}
}

func TestConfigs(t *testing.T) {
	p := podOf(one, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "conf"},
		}}}}
	})
	with := func(gen uint64, content string) *step.Assigned {
		a := assign(gen, p)
		a.Assignment.Objects = []*state.Object{{
			Ref:      state.Ref{Kind: "ConfigMap", Namespace: "prod", Name: "conf"},
			Variants: []state.Variant{{Body: &corev1.ConfigMap{}, Digest: state.DigestOf([]byte(content))}},
		}}
		return a
	}
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.want(one, state.Pending, false, state.ReasonConfigMissing)
	w.step(with(2, "a"))
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)
	w.step(with(3, "a"))
	if len(w.pending) != 0 {
		t.Fatalf("unchanged ConfigMap caused %v", w.pending)
	}
	w.step(with(4, "b"))
	w.did(step.Prepare)
}

func TestVanishedContainerRestarts(t *testing.T) {
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, podOf(one, nil)))
	w.answer(nil)
	w.step(&step.Observed{Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}}})
	if len(w.pending) != 0 {
		t.Fatal("an observation from before the start counts as an end")
	}
	w.step(&step.Observed{
		Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}},
		Containers: []step.Container{{UID: one, Name: "main", Running: true}},
	})
	w.step(&step.Observed{Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}}})
	w.did(step.Run)
}

// A pod that takes more than it may is evicted: ended, and not run again.
func TestExceeded(t *testing.T) {
	w := newWorld(t, nil)
	w.step(assign(1, podOf(one, nil)))
	w.step(&step.Observed{Whole: true})
	w.answer(nil)
	w.step(&step.Exceeded{UID: one, Text: "volume v holds too much"})
	w.did(step.Stop)
	w.answer(nil)
	w.want(one, state.Failed, false, state.ReasonEvicted)
	if got := w.last[one].Message; got != "volume v holds too much" {
		t.Errorf("message %q", got)
	}
	w.sleep(time.Hour)
	w.did()
}

// What a container said last is told with the life that said it, also when the
// next one runs.
func TestLastWords(t *testing.T) {
	w := newWorld(t, nil)
	w.step(assign(1, podOf(one, nil)))
	w.step(&step.Observed{Whole: true})
	w.answer(nil)
	w.step(&step.Observed{Containers: []step.Container{{UID: one, Name: "main", ExitCode: 3, Started: 5, Finished: w.now.Wall, Error: "no such table"}}})
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)
	p := w.last[one]
	if c := p.Containers[0]; len(p.Words) != 1 || p.Words[0] != "no such table" || c.LastExit != 3 || c.LastFrom == 0 {
		t.Errorf("words %q, container %+v", p.Words, c)
	}
}
