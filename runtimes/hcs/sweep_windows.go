package hcs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/Microsoft/hcsshim/hcn"

	"github.com/tandem-gitops/tandem/runtimes"
)

// takeOver watches what runs and removes what no record says should: a kill may
// have come between any two steps.
func (r *Runtime) takeOver(ctx context.Context) error {
	found, err := r.compute.list(ctx)
	if err != nil {
		return err
	}
	for _, p := range r.pods { // nobody else is here yet
		for name, c := range p.containers {
			if c.record.Phase != starting && p.record.Made {
				continue
			}
			if err := r.undo(ctx, p, c.record); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
			delete(p.containers, name)
		}
		if !p.record.Made {
			if err := r.removePod(ctx, p); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
	}
	known := map[string]phase{}
	for _, p := range r.pods {
		for _, c := range p.containers {
			known[c.record.ID] = c.record.Phase
			if c.record.Phase == running {
				r.work.Go(func() { r.watch(p, c, nil) })
			}
		}
	}
	for _, s := range found {
		if strings.HasPrefix(s.ID, r.id+"-") && known[s.ID] != running {
			r.logger.LogAttrs(ctx, slog.LevelInfo, "swept container", slog.String("container", s.ID))
			if err := r.forget(ctx, s.ID); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
	}
	return r.sweepLeft(known)
}

// sweepLeft removes writable layers and endpoints that belong to nothing.
func (r *Runtime) sweepLeft(known map[string]phase) error {
	if err := r.sweepMarks(); err != nil {
		return fmt.Errorf("sweep: %w: %w", runtimes.ErrUnavailable, err)
	}
	mounted, err := r.layers.scratches()
	if err != nil {
		return fmt.Errorf("sweep: %w: %w", runtimes.ErrUnavailable, err)
	}
	for _, id := range mounted {
		if known[id] != running {
			if err := r.layers.unmount(id); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
	}
	endpoints, err := hcn.ListEndpoints()
	if err != nil {
		return fmt.Errorf("sweep: %w", hcnFailure("list endpoints", err))
	}
	ours := map[string]bool{}
	for uid := range r.pods {
		ours[r.endpointName(uid)] = true
	}
	for _, e := range endpoints {
		if strings.HasPrefix(e.Name, "tandem-"+r.id+"-") && !ours[e.Name] {
			if err := e.Delete(); err != nil && !hcn.IsNotFoundError(err) {
				return fmt.Errorf("sweep: %w", hcnFailure("remove the endpoint", err))
			}
		}
	}
	return nil
}
