package hcs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	exitUnknown = 255
	watchPause  = 200 * time.Millisecond // between attempts to reach the compute service
	keeperWait  = 5 * time.Second        // for the last lines of a log
)

// watch waits for a container's end, over restarts of the compute service, and
// records it. first is its process as it was created; nil: it is opened.
func (r *Runtime) watch(p *pod, c *container, first *process) {
	rec := r.recordOf(c)
	for {
		code, err := r.follow(rec, first)
		first = nil
		if r.life.Err() != nil {
			return
		}
		switch {
		case err == nil:
			r.recordEnd(p, c, int32(code), time.Now(), "") //nolint:gosec // Windows' codes are 32 bits, also those above 1<<31
			return
		case isGone(err):
			waitProcess(rec.Keeper, keeperWait) // it may be writing down what it saw
			var seen outcome
			if readJSON(p.outcomeFile(rec.ID), &seen) == nil {
				r.recordEnd(p, c, int32(seen.ExitCode), seen.FinishedAt, "") //nolint:gosec // as above
			} else {
				r.recordEnd(p, c, exitUnknown, time.Now(), "its process is gone and nobody saw how it ended")
			}
			return
		}
		r.logger.LogAttrs(r.life, slog.LevelDebug, "lost sight of container", slog.String("container", rec.ID), slog.Any("err", err))
		select {
		case <-time.After(watchPause):
		case <-r.life.Done():
			return
		}
	}
}

// follow waits for the end of a container's first process.
func (r *Runtime) follow(rec containerRecord, first *process) (uint32, error) {
	if first == nil {
		return r.compute.exitOf(r.life, rec.ID, rec.PID, func() error { return nil })
	}
	defer first.close()
	return first.wait(r.life)
}

// recordEnd kills what the first process left, lets the keeper write the last
// lines, makes the end known and removes what Windows has of the container.
func (r *Runtime) recordEnd(p *pod, c *container, code int32, at time.Time, reason string) {
	rec := r.recordOf(c)
	if sys, err := r.compute.open(rec.ID); err == nil {
		if err := sys.terminate(r.life); err != nil {
			r.logger.LogAttrs(r.life, slog.LevelDebug, "failed to terminate an ended container", slog.String("container", rec.ID), slog.Any("err", err))
		}
		sys.close()
	}
	waitProcess(rec.Keeper, keeperWait)
	rec.Phase, rec.ExitCode, rec.FinishedAt, rec.Error = ended, code, at.UTC(), reason
	if err := p.saveContainer(rec); err != nil {
		r.logger.LogAttrs(r.life, slog.LevelError, "failed to record an exit", slog.String("pod", p.record.UID.String()), slog.Any("err", err))
	}
	r.mu.Lock()
	c.record = rec
	close(c.ended)
	r.changedLocked()
	r.mu.Unlock()
	if err := r.clear(r.life, c); err != nil {
		r.logger.LogAttrs(r.life, slog.LevelWarn, "failed to remove an ended container", slog.String("container", rec.ID), slog.Any("err", err))
	}
}

// clear removes what Windows has of an ended container. It is tried again by
// whoever needs it gone, and by the sweep.
func (r *Runtime) clear(ctx context.Context, c *container) error {
	c.clean.Lock()
	defer c.clean.Unlock()
	if c.gone {
		return nil
	}
	if err := r.forget(ctx, r.recordOf(c).ID); err != nil {
		return err
	}
	c.gone = true
	return nil
}

// Stop asks a container to end and kills it after grace.
func (r *Runtime) Stop(ctx context.Context, uid state.UID, name string, grace time.Duration) error {
	c := r.container(uid, name)
	if c == nil {
		return nil
	}
	if grace > 0 && r.ask(ctx, c, grace) {
		return nil
	}
	if err := r.killWait(ctx, c); err != nil {
		return fmt.Errorf("stop %s of pod %s: %w", name, uid, err)
	}
	return nil
}

// ask sends CTRL_SHUTDOWN_EVENT and waits up to grace; it says whether the
// container has ended.
func (r *Runtime) ask(ctx context.Context, c *container, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	refused := make(chan error, 1)
	go func() {
		sys, err := r.compute.open(r.recordOf(c).ID)
		if err == nil {
			defer sys.close()
			err = sys.shutdown(ctx)
		}
		if err != nil && !isGone(err) && ctx.Err() == nil {
			refused <- err
		}
	}()
	select {
	case <-c.ended:
		return true
	case err := <-refused:
		r.logger.LogAttrs(ctx, slog.LevelWarn, "failed to ask a container to end", slog.Any("err", err))
	case <-ctx.Done():
	}
	return false
}

// killWait kills a container and returns when its end is recorded.
func (r *Runtime) killWait(ctx context.Context, c *container) error {
	select {
	case <-c.ended:
		return nil
	default:
	}
	sys, err := r.compute.open(r.recordOf(c).ID)
	if err == nil {
		err = sys.terminate(ctx)
		sys.close()
	}
	if err != nil && !isGone(err) {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: wait for its end: %w", runtimes.ErrUnavailable, context.Cause(ctx))
	case <-r.life.Done():
		return fmt.Errorf("%w: the runtime is closed", runtimes.ErrUnavailable)
	}
}

// waitProcess waits until a process of this machine has ended.
func waitProcess(pid int, limit time.Duration) {
	if pid == 0 {
		return
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return // it has
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = p.Wait() // how it ended doesn't matter
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
