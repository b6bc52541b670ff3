package hcs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Sandbox makes a pod's network namespace and address, or finds them.
func (r *Runtime) Sandbox(ctx context.Context, s runtimes.Sandbox) (runtimes.SandboxStatus, error) {
	status, err := r.sandbox(ctx, &s)
	if err != nil {
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w", s.Key, err)
	}
	return status, nil
}

func (r *Runtime) sandbox(ctx context.Context, s *runtimes.Sandbox) (runtimes.SandboxStatus, error) {
	if s.UID.IsZero() {
		return runtimes.SandboxStatus{}, fmt.Errorf("%w: it has no UID", runtimes.ErrRejected)
	}
	if err := refuseSandbox(s); err != nil {
		return runtimes.SandboxStatus{}, err
	}
	p, err := r.enter(s.UID, func() *pod {
		return r.newPod(podRecord{UID: s.UID, Namespace: s.Key.Namespace, Name: s.Key.Name, Hostname: s.Hostname, Labels: s.Labels, Isolation: s.Isolation})
	})
	if err != nil {
		return runtimes.SandboxStatus{}, err
	}
	p.life.Lock()
	defer p.life.Unlock()
	if p.removed {
		return runtimes.SandboxStatus{}, fmt.Errorf("%w: it is being removed", runtimes.ErrUnavailable)
	}
	if p.record.Made {
		return runtimes.SandboxStatus{IP: p.record.IP}, nil
	}
	if err := r.makeSandbox(p, s); err != nil {
		return runtimes.SandboxStatus{}, errors.Join(err, r.dropSandbox(p))
	}
	r.changed()
	r.logger.LogAttrs(ctx, slog.LevelDebug, "made sandbox", slog.String("pod", s.Key.String()), slog.String("ip", p.record.IP))
	return runtimes.SandboxStatus{IP: p.record.IP}, nil
}

// makeSandbox writes the record first: whatever is made after it can be found.
func (r *Runtime) makeSandbox(p *pod, s *runtimes.Sandbox) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	made := p.record // observers read the record meanwhile
	next := &pod{dir: p.dir, record: made}
	err := next.save()
	if err == nil {
		err = r.attach(next, s)
	}
	if err == nil {
		next.record.Made = true
		err = next.save()
	}
	r.mu.Lock()
	p.record = next.record
	r.mu.Unlock()
	return err
}

// dropSandbox removes what makeSandbox made, the record last, and forgets the
// pod. The caller holds life.
func (r *Runtime) dropSandbox(p *pod) error {
	if err := r.detach(p); err != nil {
		return err
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("%w: remove the record: %w", runtimes.ErrUnavailable, err)
	}
	p.removed = true
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[p.record.UID] == p {
		delete(r.pods, p.record.UID)
	}
	r.changedLocked()
	return nil
}

// Remove ends a pod: containers are killed, and nothing of it is left.
func (r *Runtime) Remove(ctx context.Context, uid state.UID) error {
	r.mu.Lock()
	p := r.pods[uid]
	if p == nil {
		r.mu.Unlock()
		return nil
	}
	p.leaving = true
	r.mu.Unlock()
	err := r.removePod(ctx, p)
	if err == nil {
		return nil
	}
	r.mu.Lock()
	p.leaving = false
	r.mu.Unlock()
	return fmt.Errorf("remove pod %s: %w", uid, err)
}

func (r *Runtime) removePod(ctx context.Context, p *pod) error {
	p.life.Lock() // runs that have begun end first
	defer p.life.Unlock()
	if p.removed {
		return nil
	}
	r.mu.Lock()
	all := make([]*container, 0, len(p.containers))
	for _, c := range p.containers {
		all = append(all, c)
	}
	r.mu.Unlock()
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, c := range all {
		wait.Go(func() {
			if errs[i] = r.killWait(ctx, c); errs[i] == nil {
				errs[i] = r.clear(ctx, c)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.dropSandbox(p)
}
