package hcs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const undoTimeout = 30 * time.Second

// Pull makes an image present and unpacked. The digest is fixed, so Always asks
// no registry for what is here already, unless it came with the credentials of
// another pod: then this one's must suffice.
func (r *Runtime) Pull(ctx context.Context, image runtimes.Image) error {
	if image.Digest.IsZero() {
		return fmt.Errorf("pull %s: %w: no digest is known, so it can't be told what to run", image.Name, runtimes.ErrRejected)
	}
	_, err := r.layers.image(image.Digest)
	switch {
	case err == nil && image.Policy == "Always":
		if err = r.layers.ledger.May(ctx, r.o.Images.With(image.Credentials), image.Name, image.Digest); err == nil {
			return nil
		}
		err = classifyImage(err)
	case err == nil:
		return nil
	case !errors.Is(err, runtimes.ErrNotFound):
	case image.Policy == "Never":
		err = fmt.Errorf("%w: it is not on this node and imagePullPolicy is Never", runtimes.ErrNotFound)
	default:
		begin := time.Now()
		if err = r.layers.pull(ctx, image); err == nil {
			r.logger.LogAttrs(ctx, slog.LevelInfo, "pulled image", slog.String("image", image.Name), slog.Duration("took", time.Since(begin)))
			return nil
		}
	}
	return fmt.Errorf("pull %s: %w", image.Name, err)
}

// Run starts a container. Until its record says running, whatever a kill leaves
// of it is swept; one that did start is found and kept.
func (r *Runtime) Run(ctx context.Context, c runtimes.Container) error {
	if err := r.runContainer(ctx, &c); err != nil {
		return fmt.Errorf("run %s of pod %s: %w", c.Name, c.UID, err)
	}
	return nil
}

func (r *Runtime) runContainer(ctx context.Context, c *runtimes.Container) error {
	if err := refuseContainer(c); err != nil {
		return err
	}
	p, err := r.enter(c.UID, nil)
	if err != nil {
		return err
	}
	p.life.RLock()
	defer p.life.RUnlock()
	if p.removed || !p.record.Made {
		return fmt.Errorf("%w: the pod has no sandbox here", runtimes.ErrNotFound)
	}
	one := r.gate(p, c.Name)
	one.Lock()
	defer one.Unlock()
	if done, err := r.clearEarlier(ctx, c); done || err != nil {
		return err
	}
	img, err := r.layers.image(c.Image.Digest)
	if err != nil {
		return fmt.Errorf("image %s: %w", c.Image.Name, err)
	}
	if commandLine(&img.Config, c) == "" {
		return fmt.Errorf("%w: neither the image nor the pod says what to run; set command", runtimes.ErrRejected)
	}
	if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o700); err != nil {
		return fmt.Errorf("%w: make the directory of its log: %w", runtimes.ErrUnavailable, err)
	}
	rec := containerRecord{ID: r.containerID(c.UID, c.Name, c.Attempt), Name: c.Name, Attempt: c.Attempt, Phase: starting}
	if err := p.saveContainer(rec); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	first, err := r.create(ctx, p, c, img, &rec)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return errors.Join(err, r.undo(undo, p, rec))
	}
	r.begin(p, rec, first)
	r.logger.LogAttrs(ctx, slog.LevelDebug, "started container", slog.String("pod", p.record.UID.String()), slog.String("container", c.Name), slog.Int("attempt", int(c.Attempt)))
	return nil
}

// clearEarlier removes what an earlier attempt left. It is done when this very
// attempt is there already.
func (r *Runtime) clearEarlier(ctx context.Context, c *runtimes.Container) (done bool, err error) {
	old := r.container(c.UID, c.Name)
	if old == nil {
		return false, nil
	}
	rec := r.recordOf(old)
	if rec.Attempt == c.Attempt {
		return true, nil
	}
	if rec.Attempt > c.Attempt {
		return false, fmt.Errorf("%w: attempt %d is over, the latest is %d", runtimes.ErrRejected, c.Attempt, rec.Attempt)
	}
	if err := r.killWait(ctx, old); err != nil {
		return false, err
	}
	return false, r.clear(ctx, old)
}

// create mounts the writable layer, makes the compute system and starts its
// process and the keeper, and records that it runs.
func (r *Runtime) create(ctx context.Context, p *pod, c *runtimes.Container, img *storedImage, rec *containerRecord) (*process, error) {
	guest := p.record.Isolation == state.HyperV
	if guest && r.another(p, c.Name) {
		return nil, fmt.Errorf("%w: another container of the pod runs, and a Hyper-V guest holds one; use process isolation for pods of several", runtimes.ErrUnsupported)
	}
	mounted, err := r.layers.mount(rec.ID, img, guest)
	if err != nil {
		return nil, err
	}
	a := assembly{
		hostname: p.record.Hostname, namespace: p.record.Network, scratch: mounted.volume, layers: mounted.layers,
		cores: runtime.NumCPU(), image: img.Config, folder: mounted.folder, utilityVM: mounted.utilityVM, endpoint: p.record.Endpoint,
	}
	var document any = a.document(c)
	if guest {
		document = a.guest(rec.ID, c)
	}
	sys, err := r.compute.create(ctx, rec.ID, document)
	if err != nil {
		return nil, err
	}
	defer sys.close()
	if r.forbidden(c.UID) { // after the system is there: see mark
		return nil, fmt.Errorf("%w: the fencer lets none of the pod's containers begin: its lease has ended", runtimes.ErrUnavailable)
	}
	params := a.process(c)
	first, err := sys.start(ctx, opProcess, params)
	if err != nil {
		return nil, err
	}
	rec.Phase, rec.PID, rec.StartedAt, rec.Environment, rec.User = running, first.pid, time.Now().UTC(), params.Environment, params.User
	rec.WorkingDir = params.WorkingDirectory
	if rec.Keeper, err = r.keep(p, rec, first, c.LogPath, cmp.Or(c.ErrPath, c.LogPath)); err == nil {
		err = p.saveContainer(*rec)
	}
	if err != nil {
		first.close()
		return nil, fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	return first, nil
}

// another says whether a container of another name runs in the pod.
func (r *Runtime) another(p *pod, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, c := range p.containers {
		if n != name && c.record.Phase == running {
			return true
		}
	}
	return false
}

// keep starts the keeper and hands it the process's output.
func (r *Runtime) keep(p *pod, rec *containerRecord, first *process, log, errLog string) (pid int, err error) {
	defer closeHandles(first.in, first.out, first.errOut)
	for _, h := range []windows.Handle{first.out, first.errOut} {
		if err := windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
			return 0, fmt.Errorf("hand its output to the keeper: %w", err)
		}
	}
	args := slices.Concat(r.o.Keeper[1:], []string{
		rec.ID, strconv.FormatUint(uint64(rec.PID), 10), log, errLog, p.outcomeFile(rec.ID),
		strconv.FormatUint(uint64(first.out), 10), strconv.FormatUint(uint64(first.errOut), 10),
	})
	cmd := exec.Command(r.o.Keeper[0], args...) //nolint:noctx // it outlives us
	cmd.SysProcAttr = &syscall.SysProcAttr{
		CreationFlags:              windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP,
		AdditionalInheritedHandles: []syscall.Handle{syscall.Handle(first.out), syscall.Handle(first.errOut)},
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the keeper: %w", err)
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// begin makes a started container known and watches it.
func (r *Runtime) begin(p *pod, rec containerRecord, first *process) {
	c := newContainer(rec)
	r.mu.Lock()
	p.containers[rec.Name] = c
	r.changedLocked()
	r.mu.Unlock()
	r.work.Go(func() { r.watch(p, c, first) })
}

// undo removes what there is of a container that couldn't be started.
func (r *Runtime) undo(ctx context.Context, p *pod, rec containerRecord) error {
	if err := r.forget(ctx, rec.ID); err != nil {
		return err // the record stays for the sweep
	}
	if err := os.Remove(p.file("c-" + rec.Name + ".json")); err != nil {
		return err
	}
	for _, left := range []string{p.outcomeFile(rec.ID), p.outcomeFile(rec.ID) + waiting} {
		_ = os.Remove(left) // rarely there, and harmless
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := p.containers[rec.Name]; c != nil && c.record.Attempt != rec.Attempt {
		delete(p.containers, rec.Name) // its record was overwritten by ours
		r.changedLocked()
	}
	return nil
}

// forget removes compute system and writable layer. What isn't there is fine.
func (r *Runtime) forget(ctx context.Context, id string) error {
	sys, err := r.compute.open(id)
	switch {
	case err == nil:
		err = sys.terminate(ctx)
		sys.close()
		if err != nil {
			return err
		}
	case !isGone(err):
		return err
	}
	return r.layers.unmount(id)
}
