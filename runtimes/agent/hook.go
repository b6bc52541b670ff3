package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// graceLeast is what a container gets after a preStop hook that took all of the
// grace: the kubelet's figure.
const graceLeast = 2 * time.Second

// A hookError says why a container that was started must end.
type hookError struct{ error }

// postStart runs a container's hook after its start. An error says why the
// container must end.
func (a *Agent) postStart(ctx context.Context, x *step.Action) error {
	c := specByName(x.Pod.Template, x.Container)
	if c == nil || c.Lifecycle == nil || c.Lifecycle.PostStart == nil || a.facts.Simulated {
		return nil
	}
	if err := a.hook(ctx, x, c, c.Lifecycle.PostStart); err != nil {
		return fmt.Errorf("postStart hook failed: %w", err)
	}
	return nil
}

// preStop runs a container's hook within its grace, and says what is left of
// it. As under Kubernetes its failure keeps nothing from stopping.
func (a *Agent) preStop(ctx context.Context, x *step.Action) time.Duration {
	if x.Pod == nil || x.Pod.Template == nil || x.Grace <= 0 || a.facts.Simulated {
		return x.Grace
	}
	c := specByName(x.Pod.Template, x.Container)
	if c == nil || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || !a.runs(ctx, x) {
		return x.Grace
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, x.Grace)
	defer cancel()
	if err := a.hook(ctx, x, c, c.Lifecycle.PreStop); err != nil {
		a.log.LogAttrs(ctx, slog.LevelWarn, "preStop hook failed", slog.String("pod", x.Pod.Key.String()),
			slog.String("container", x.Container), slog.Any("err", err))
	}
	return max(x.Grace-time.Since(begin), graceLeast)
}

// runs says whether a container is there to be asked.
func (a *Agent) runs(ctx context.Context, x *step.Action) bool {
	o, err := a.cfg.Runtime.Observe(ctx, 0)
	if err != nil {
		return false
	}
	for i := range o.Containers {
		if c := &o.Containers[i]; c.UID == x.UID && c.Name == x.Container {
			return c.Running
		}
	}
	return false
}

func (a *Agent) hook(ctx context.Context, x *step.Action, c *corev1.Container, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return a.probeExec(ctx, x, h.Exec.Command)
	case h.HTTPGet != nil:
		return probeHTTP(ctx, a.podIP(x), c, h.HTTPGet)
	case h.Sleep != nil:
		pause(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return nil
	default:
		return fmt.Errorf("this kind of hook: %w", runtimes.ErrUnsupported)
	}
}

// podIP is where the agent reaches a pod.
func (a *Agent) podIP(x *step.Action) string {
	if x.IP == "" {
		return "127.0.0.1"
	}
	return x.IP
}
