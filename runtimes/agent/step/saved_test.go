package step_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// An agent that was killed while a container was being started doesn't know
// whether it began; what the runtime shows counts, and it is probed.
func TestKilledWhileStarting(t *testing.T) {
	w := newWorld(t, nil)
	p := podOf(one, func(s *corev1.PodSpec) { s.Containers[0].ReadinessProbe = &corev1.Probe{} })
	w.step(&step.Observed{Whole: true}, assign(1, p))
	for i := 0; len(w.pending) != 1 || w.pending[0].Do != step.Run; i++ {
		if i > 10 {
			t.Fatalf("the container is never started: %+v", w.pending)
		}
		batch := w.pending
		w.pending = nil
		for _, a := range batch {
			w.step(&step.Done{ID: a.ID, UID: a.UID, Class: step.OK, IP: "10.0.0.2"})
		}
	}
	saved := w.m.Save()

	began := newWorld(t, saved)
	began.step(&step.Observed{
		Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}},
		Containers: []step.Container{{UID: one, Name: "main", Running: true, Started: 5}},
	})
	if !began.probes[step.Readiness] {
		t.Error("a container that began without its agent is not probed")
	}
	began.step(&step.Probed{UID: one, Container: "main", Probe: step.Readiness, OK: true})
	began.want(one, state.Running, true, state.ReasonNone)

	never := newWorld(t, saved)
	never.step(&step.Observed{Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}}})
	never.answer(nil)
	if last := never.last[one]; last.Restarts() != 0 {
		t.Errorf("%d restarts of a container that never began", last.Restarts())
	}
}
