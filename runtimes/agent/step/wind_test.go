package step_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// What needs a sidecar doesn't begin before it: not either where the sidecar's
// first life failed.
func TestASidecarThatFailsAtFirstIsWaitedFor(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, podOf(one, func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{Name: "side", Image: "web:1", RestartPolicy: &always, StartupProbe: &corev1.Probe{}}}
	})))
	w.answer(nil)
	w.want(one, state.Pending, false, state.ReasonInitializing)
	w.exit(one, "side", 0, 1) // its life begins anew at once
	w.did(step.Run)
	if got := w.pending[0].Container; got != "side" {
		t.Fatalf("%s begins before its sidecar has started", got)
	}
	w.answer(nil)
	w.exit(one, "side", 1, 1) // in back-off
	w.did()
	w.sleep(step.BackoffFirst)
	w.did(step.Run)
	w.answer(nil)
	w.did()
	w.step(&step.Probed{UID: one, Container: "side", Attempt: 2, Probe: step.Startup, OK: true})
	w.did(step.Run)
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)

	// Once the others run, it is they that go on while it begins anew.
	w.exit(one, "side", 2, 1)
	if got := w.last[one].Phase; got != state.Running {
		t.Errorf("the pod is %v", got)
	}
	w.exit(one, "main", 0, 1)
	w.did(step.Run)
	if got := w.pending[0].Container; got != "main" {
		t.Errorf("%s begins", got)
	}
}

// Who asks for less grace than was given gets it, also while the first is waited for.
func TestALongStopIsCutShort(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, nil)
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.answer(nil)
	stop := *p
	stop.Stop, stop.Grace = true, time.Hour
	w.step(assign(2, &stop))
	w.did(step.Stop)
	first := w.pending[0]
	w.pending = nil
	w.sleep(time.Minute)
	now := stop
	now.Grace = 0
	w.step(assign(3, &now))
	w.did(step.Stop)
	if got := w.pending[0].Grace; got != 0 {
		t.Errorf("grace %v", got)
	}
	w.answer(nil)
	w.step(&step.Done{ID: first.ID, UID: one, Class: step.OK}) // the first, which nobody waits for
	if len(w.last) != 0 || len(w.pending) != 0 {
		t.Errorf("left %v, %v", w.last, w.pending)
	}
}

// Why a pod was evicted is known to the agent that comes after.
func TestWhyAPodWasEvictedIsKept(t *testing.T) {
	w := newWorld(t, nil)
	w.step(assign(1, podOf(one, nil)))
	w.step(&step.Observed{Whole: true})
	w.answer(nil)
	w.step(&step.Exceeded{UID: one, Text: "volume v holds too much"})
	w.answer(nil)
	after := newWorld(t, w.m.Save())
	after.step(&step.Observed{Whole: true})
	after.want(one, state.Failed, false, state.ReasonEvicted)
	if got := after.last[one].Message; got != "volume v holds too much" {
		t.Errorf("message %q", got)
	}
}

// Sidecars end after the others, the last one first, within the pod's grace.
func TestSidecarsEndWithTheRestOfTheGrace(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	w := newWorld(t, nil)
	p := podOf(one, func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{Name: "a", Image: "web:1", RestartPolicy: &always}, {Name: "b", Image: "web:1", RestartPolicy: &always}}
	})
	w.step(&step.Observed{Whole: true}, assign(1, p))
	w.answer(nil)
	w.want(one, state.Running, true, state.ReasonNone)
	stop := *p
	stop.Stop, stop.Grace = true, 30*time.Second
	w.step(assign(2, &stop))
	for _, want := range []struct {
		container string
		grace     time.Duration
		takes     time.Duration
	}{{"main", 30 * time.Second, 20 * time.Second}, {"b", 10 * time.Second, 10 * time.Second}, {"a", 2 * time.Second, 0}} {
		w.did(step.Stop)
		got := w.pending[0]
		w.pending = nil
		if got.Container != want.container || got.Grace != want.grace {
			t.Errorf("stops %s with %v, want %s with %v", got.Container, got.Grace, want.container, want.grace)
		}
		w.now = w.now.Add(want.takes)
		w.step(&step.Done{ID: got.ID, UID: one, Class: step.OK})
	}
	w.did(step.Remove)
}
