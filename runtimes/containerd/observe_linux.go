package containerd

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Observe waits until something differs from after and says all that exists.
func (r *Runtime) Observe(ctx context.Context, after uint64) (runtimes.Observation, error) {
	for {
		r.mu.Lock()
		if after != r.seen {
			o := r.observeLocked()
			r.mu.Unlock()
			return o, nil
		}
		news := r.news
		r.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return runtimes.Observation{}, context.Cause(ctx)
		case <-r.life.Done():
			return runtimes.Observation{}, runtimes.ErrUnavailable
		}
	}
}

func (r *Runtime) observeLocked() runtimes.Observation {
	o := runtimes.Observation{Version: r.seen}
	for uid, p := range r.pods {
		o.Sandboxes = append(o.Sandboxes, runtimes.SandboxObserved{
			UID: uid, Key: state.PodKey{Namespace: p.record.Namespace, Name: p.record.Name}, IP: p.record.IP,
		})
		for _, c := range p.containers {
			rec := c.record
			writing := false
			if rec.Phase == ended {
				select {
				case <-c.gone:
				default:
					writing = true
				}
			}
			o.Containers = append(o.Containers, runtimes.ContainerObserved{
				UID: uid, Name: rec.Name, Attempt: rec.Attempt, Running: rec.Phase == running, ExitCode: rec.ExitCode,
				OOMKilled: rec.OOMKilled, StartedAt: rec.StartedAt, FinishedAt: rec.FinishedAt, Error: rec.Error, Writing: writing,
			})
		}
	}
	slices.SortFunc(o.Sandboxes, func(a, b runtimes.SandboxObserved) int { return a.UID.Compare(b.UID) })
	slices.SortFunc(o.Containers, func(a, b runtimes.ContainerObserved) int {
		return cmp.Or(a.UID.Compare(b.UID), strings.Compare(a.Name, b.Name))
	})
	return o
}
