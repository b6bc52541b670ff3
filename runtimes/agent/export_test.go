package agent

import (
	"context"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// RunHook begins a container whose postStart hook rt runs, in an agent's
// directory, and gives what the agent's loop is told of its start.
func RunHook(ctx context.Context, rt runtimes.Runtime, dir string) (told func() []step.Event, wait func()) {
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1", Lifecycle: &corev1.Lifecycle{
		PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"wait"}}},
	}}}}}
	t, _ := state.NewTemplate(state.Linux, &spec, []state.Image{{Name: "web:1", Assumed: true}})
	var all sync.WaitGroup
	a := &Agent{
		cfg: Config{Runtime: rt, Dir: dir, Meter: noMeter{}}, log: slog.New(slog.DiscardHandler), running: map[state.UID]*podWork{}, hint: make(chan struct{}, 1),
	}
	a.outputs = &outputs{agent: a, lives: map[lifeKey]*life{}, ctx: ctx, all: &all}
	w := &worker{agent: a, all: &all, slots: make(chan struct{}, 1), pulls: make(chan struct{}, 1)}
	w.do(ctx, step.Action{ID: 1, Do: step.Run, UID: state.UID{1}, Pod: &state.AssignedPod{UID: state.UID{1}, Template: t, Ordinal: -1}, Container: "main"})
	return func() []step.Event {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.inbox
	}, all.Wait
}
