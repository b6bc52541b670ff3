package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	exitUnknown = 255 // as containerd says it
	watchPause  = 50 * time.Millisecond

	watchRound  = 10 * time.Second // between looks at whether processes live whose end is waited for
	watchMisses = 2                // looks that a process may be gone before nobody will say how it ended

	handlerPause    = 10 * time.Millisecond // between looks for a handler
	handlerPauseMax = time.Second
)

// watch waits for a container's end, over any number of daemons, and records it.
func (r *Runtime) watch(p *pod, c *container) {
	r.mu.Lock()
	id, pid := c.record.ID, c.record.PID
	r.mu.Unlock()
	for misses := 0; ; {
		cl, err := r.get(r.life)
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(r.inNamespace(r.life))
		r.mu.Lock()
		c.ask = cancel
		r.mu.Unlock()
		answer, err := cl.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
		over := ctx.Err() != nil
		cancel()
		if err == nil {
			r.recordEnd(p, c, int32(answer.ExitStatus), answer.ExitedAt.AsTime(), "") //nolint:gosec // an exit status is a byte
			return
		}
		if r.life.Err() != nil {
			return
		}
		if errdefs.IsNotFound(errgrpc.ToNative(err)) {
			r.recordEnd(p, c, exitUnknown, time.Now(), "its process is gone and nobody saw how it ended")
			return
		}
		// A daemon that died between the exit and its event leaves a Wait that
		// nobody answers.
		if over && !runs(pid, p.record.UID) {
			if misses++; misses >= watchMisses {
				r.recordEnd(p, c, exitUnknown, time.Now(), "its process is gone and nobody saw how it ended")
				return
			}
		}
		// Unknown: the daemon or the shim went away. Ask again.
		if !r.pause(watchPause) {
			return
		}
	}
}

// askAgain ends the waits for processes that are gone, for as long as the node is
// open: whoever waits asks again, and counts. All are looked at in one go, so
// that a node at rest wakes up seldom.
func (r *Runtime) askAgain() {
	for r.pause(watchRound) {
		type waiting struct {
			uid state.UID
			pid uint32
			ask func()
		}
		var all []waiting
		r.mu.Lock()
		for uid, p := range r.pods {
			for _, c := range p.containers {
				if c.record.Phase == running && c.ask != nil {
					all = append(all, waiting{uid, c.record.PID, c.ask})
				}
			}
		}
		r.mu.Unlock()
		for _, w := range all {
			if !runs(w.pid, w.uid) {
				w.ask()
			}
		}
	}
}

// runs says whether a process is there and in the pod's control group: a pid
// alone may be another's by now.
func runs(pid uint32, uid state.UID) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(raw), uid.String())
}

// recordEnd makes a container's end known, then removes what containerd has of
// it: the outcome is in our record.
func (r *Runtime) recordEnd(p *pod, c *container, code int32, at time.Time, reason string) {
	if err := r.endRecord(p, c, code, at, reason); err != nil {
		r.logger.LogAttrs(r.life, slog.LevelError, "failed to record an exit", slog.String("pod", p.record.UID.String()), slog.Any("err", err))
	}
	r.clean(r.life, c)
}

func (r *Runtime) endRecord(p *pod, c *container, code int32, at time.Time, reason string) error {
	r.mu.Lock()
	rec := c.record
	r.mu.Unlock()
	rec.Phase, rec.ExitCode, rec.FinishedAt, rec.Error = ended, code, at.UTC(), reason
	// Asked before the cgroup goes: an event of it could be lost or late.
	rec.OOMKilled = code != 0 && oomKills(r.groupDir(p.record.UID)+"/"+rec.Name) > 0
	err := p.saveContainer(rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.record = rec
	close(c.ended)
	r.changedLocked()
	return err
}

// clean removes what containerd has of an ended container. It is tried again by
// whoever needs it gone, and by the sweep.
func (r *Runtime) clean(ctx context.Context, c *container) {
	r.mu.Lock()
	id := c.record.ID
	r.mu.Unlock()
	err := r.call(ctx, func(ctx context.Context, cl *client.Client) error { return r.forget(ctx, cl, id) })
	if err != nil {
		r.logger.LogAttrs(ctx, slog.LevelWarn, "failed to remove an ended container", slog.String("container", id), slog.Any("err", err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.left()
	r.changedLocked()
}

// untilGone waits until nothing of an ended container is left.
func (r *Runtime) untilGone(ctx context.Context, p *pod, c *container) error {
	select {
	case <-c.gone:
		return nil
	default:
	}
	r.mu.Lock()
	id := c.record.ID
	r.mu.Unlock()
	if err := r.call(ctx, func(ctx context.Context, cl *client.Client) error { return r.forget(ctx, cl, id) }); err != nil {
		return fmt.Errorf("clear pod %s: %w", p.record.UID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.left()
	return nil
}

// Stop asks a container to end and kills it after grace.
func (r *Runtime) Stop(ctx context.Context, uid state.UID, name string, grace time.Duration) error {
	c := r.container(uid, name)
	if c == nil {
		return nil
	}
	r.mu.Lock()
	sig := firstOf(c.record.Signal, "SIGTERM")
	r.mu.Unlock()
	if grace > 0 {
		over, err := r.ask(ctx, c, sig, grace)
		if err != nil {
			return fmt.Errorf("stop %s of pod %s: %w", name, uid, err)
		}
		if over {
			return nil
		}
	}
	r.mu.Lock()
	p := r.pods[uid]
	r.mu.Unlock()
	if p == nil {
		return nil // removed meanwhile
	}
	if err := r.killWait(ctx, p, c); err != nil {
		return fmt.Errorf("stop %s of pod %s: %w", name, uid, err)
	}
	return nil
}

// ask sends the stop signal and says whether the container ended within grace.
// The kernel drops a signal to the first process of a container that hasn't set
// a handler, which one that has only just begun may still do: then it is sent
// again, once, when the handler is there.
func (r *Runtime) ask(ctx context.Context, c *container, name string, grace time.Duration) (bool, error) {
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return false, fmt.Errorf("%w: stop signal of the image: %w", runtimes.ErrRejected, err)
	}
	r.mu.Lock()
	pid := c.record.PID
	r.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	heard := catches(pid, sig)
	if err := r.kill(ctx, c, name); err != nil {
		return false, err
	}
	for wait := handlerPause; ; wait = min(2*wait, handlerPauseMax) {
		select {
		case <-c.ended:
			return true, nil
		case <-timer.C:
			return false, nil
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", runtimes.ErrUnavailable, context.Cause(ctx))
		case <-time.After(wait):
		}
		now := catches(pid, sig)
		if now && !heard {
			if err := r.kill(ctx, c, name); err != nil {
				return false, err
			}
		}
		heard = now
	}
}

// catches says whether a process has a handler for a signal.
func catches(pid uint32, sig syscall.Signal) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || pid == 0 {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			return err == nil && sig > 0 && mask&(1<<(sig-1)) != 0
		}
	}
	return false
}

// kill sends a signal. A container that has ended is fine.
func (r *Runtime) kill(ctx context.Context, c *container, name string) error {
	select {
	case <-c.ended:
		return nil
	default:
	}
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return fmt.Errorf("%w: stop signal of the image: %w", runtimes.ErrRejected, err)
	}
	r.mu.Lock()
	id := c.record.ID
	r.mu.Unlock()
	err = r.call(ctx, func(ctx context.Context, cl *client.Client) error {
		return bounded(ctx, shimAnswers, "signal", func(ctx context.Context) error {
			_, err := cl.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig)})
			return errgrpc.ToNative(err)
		})
	})
	if errors.Is(err, runtimes.ErrNotFound) {
		return nil // it has just ended; the watcher says so soon
	}
	return err
}

// killWait ends a container. Where its shim doesn't, the kernel does, and a shim
// that doesn't notice goes as well.
func (r *Runtime) killWait(ctx context.Context, p *pod, c *container) error {
	err := r.kill(ctx, c, "SIGKILL")
	if err != nil && !errors.Is(err, errNoAnswer) {
		return err
	}
	if err == nil {
		if over, err := r.untilEnded(ctx, c, shimAnswers); over || err != nil {
			return err
		}
	}
	r.mu.Lock()
	group := r.groupDir(p.record.UID) + "/" + c.record.Name
	r.mu.Unlock()
	r.logger.LogAttrs(ctx, slog.LevelWarn, "ended a container behind its shim, which did not", slog.String("pod", p.record.UID.String()), slog.Any("err", err))
	if err := killCgroups(group); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	if over, err := r.untilEnded(ctx, c, shimNotices); over || err != nil {
		return err
	}
	if err := r.killShims(ctx, p.record.UID); err != nil {
		return err
	}
	over, err := r.untilEnded(ctx, c, shimAnswers)
	if err == nil && !over {
		err = fmt.Errorf("%w: wait for its end: %w within %s", runtimes.ErrUnavailable, errNoAnswer, shimAnswers)
	}
	return err
}

// untilEnded waits for the record of a container's end, and says whether it came.
func (r *Runtime) untilEnded(ctx context.Context, c *container, limit time.Duration) (bool, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.ended:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("%w: wait for its end: %w", runtimes.ErrUnavailable, context.Cause(ctx))
	case <-r.life.Done():
		return false, fmt.Errorf("%w: the node is closed", runtimes.ErrUnavailable)
	}
}

// Remove ends a pod at once. Nothing of it is left when it returns nil.
func (r *Runtime) Remove(ctx context.Context, uid state.UID) error {
	r.mu.Lock()
	p := r.pods[uid]
	if p == nil {
		r.mu.Unlock()
		return nil
	}
	p.leaving = true // no new container from here on
	r.mu.Unlock()
	if err := r.remove(ctx, p); err != nil {
		r.mu.Lock()
		p.leaving = false
		r.mu.Unlock()
		return fmt.Errorf("remove pod %s: %w", uid, err)
	}
	return nil
}

func (r *Runtime) remove(ctx context.Context, p *pod) error {
	p.life.Lock() // calls under way end first
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
	for _, c := range all {
		if err := r.kill(ctx, c, "SIGKILL"); err != nil && !errors.Is(err, errNoAnswer) {
			return err
		}
	}
	for _, c := range all {
		if err := r.killWait(ctx, p, c); err != nil {
			return err
		}
		if err := r.untilGone(ctx, p, c); err != nil {
			return err
		}
	}
	// An attempt that failed half way while containerd was away.
	ids, err := r.leftIDs(p)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.call(ctx, func(ctx context.Context, cl *client.Client) error { return r.forget(ctx, cl, id) }); err != nil {
			return err
		}
	}
	if err := r.endShim(ctx, p.record.UID); err != nil {
		return err
	}
	return r.dropSandbox(p)
}

// endShim sees to it that the shim of a pod has gone. One that two containers
// left at once may miss that it serves nobody: then it is killed.
func (r *Runtime) endShim(ctx context.Context, uid state.UID) error {
	socket := r.shimSocket(uid)
	limit := time.Now().Add(shimEnds)
	for time.Now().Before(limit) {
		removeDead(socket)
		if !exists(socket) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	if err := r.killShims(ctx, uid); err != nil {
		return err
	}
	removeDead(socket)
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// killShims kills the shims of a pod.
func (r *Runtime) killShims(ctx context.Context, uid state.UID) error {
	return r.killShimsOf(ctx, r.containerID(uid, "", 0))
}

// killShimsOf kills the shims of a container's pod: they are named after one of
// its containers.
func (r *Runtime) killShimsOf(ctx context.Context, id string) error {
	parts := strings.SplitN(id, "-", 3)
	if len(parts) < 3 {
		return nil
	}
	mine := parts[0] + "-" + parts[1] + "-"
	for pid, args := range processes() {
		at := slices.Index(args, "-id")
		if !r.isShim(args) || at < 0 || at+1 >= len(args) || !strings.HasPrefix(args[at+1], mine) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill shim %d: %w", pid, err)
		}
		r.logger.LogAttrs(ctx, slog.LevelInfo, "ended a shim", slog.Int("pid", pid))
		if err := untilDead(ctx, pid); err != nil {
			return err
		}
	}
	return nil
}

// leftIDs are the attempts that records in the pod's directory name but that
// aren't known as containers.
func (r *Runtime) leftIDs(p *pod) ([]string, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, e := range entries {
		var rec containerRecord
		if !strings.HasPrefix(e.Name(), "c-") || readJSON(p.file(e.Name()), &rec) != nil || rec.ID == "" {
			continue
		}
		if c := p.containers[rec.Name]; c == nil || c.record.ID != rec.ID {
			ids = append(ids, rec.ID)
		}
	}
	return ids, nil
}
