package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	shim        = "io.containerd.runc.v2"
	shimEnds    = time.Second
	forgetTries = 200
	forgetPause = 25 * time.Millisecond
)

// Run starts a container. Until its record says running, whatever a kill leaves
// of it is swept; a task that did start is found and kept.
func (r *Runtime) Run(ctx context.Context, c runtimes.Container) error {
	err := r.runContainer(ctx, c)
	if err != nil {
		return fmt.Errorf("run %s of pod %s: %w", c.Name, c.UID, err)
	}
	return nil
}

func (r *Runtime) runContainer(ctx context.Context, c runtimes.Container) error {
	if c.TTY || c.Stdin {
		return fmt.Errorf("%w: tty and stdin of a container itself are not there yet; use exec", runtimes.ErrUnsupported)
	}
	p, err := r.enter(c.UID, nil)
	if err != nil {
		return err
	}
	p.life.RLock()
	defer p.life.RUnlock()
	if p.removed || !p.record.Made || p.record.SharePID && !p.initRuns() {
		return fmt.Errorf("%w: the pod has no sandbox here", runtimes.ErrNotFound)
	}
	one := r.gate(p, c.Name)
	one.Lock()
	defer one.Unlock()
	if done, err := r.clearEarlier(ctx, p, c); done || err != nil {
		return err
	}
	img, err := r.image(ctx, c.Image.Digest)
	if err != nil {
		return fmt.Errorf("image %s: %w", c.Image.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o755); err != nil {
		return fmt.Errorf("%w: make the directory of its log: %w", runtimes.ErrUnavailable, err)
	}
	opts, err := r.specOptions(p, c, img.config)
	if err != nil {
		return err
	}
	rec := containerRecord{
		ID: r.containerID(c.UID, c.Name, c.Attempt), Name: c.Name, Attempt: c.Attempt, Phase: starting, Signal: img.config.Config.StopSignal,
	}
	if err := p.saveContainer(rec); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	if err := r.makeWay(ctx, p, rec); err != nil {
		return fmt.Errorf("%w: clear what a kill left of it: %w", runtimes.ErrUnavailable, err)
	}
	err = r.call(ctx, func(ctx context.Context, cl *client.Client) error {
		var err error
		if rec.PID, err = r.create(ctx, cl, c, rec.ID, img, opts); err == nil {
			rec.Phase, rec.StartedAt = running, time.Now().UTC()
			err = p.saveContainer(rec)
		}
		if err != nil {
			return errors.Join(err, r.undo(ctx, cl, p, rec))
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.begin(p, rec)
	r.logger.LogAttrs(ctx, slog.LevelDebug, "started container", slog.String("pod", p.record.UID.String()), slog.String("container", c.Name), slog.Int("attempt", int(c.Attempt)))
	return nil
}

// makeWay sees to it that nothing of this attempt exists. A daemon that is
// killed while it starts a shim leaves one that comes up after the sweep, and a
// shim that is killed leaves what runc was making: each would fail the same
// attempt again and again.
func (r *Runtime) makeWay(ctx context.Context, p *pod, rec containerRecord) error {
	if !r.runsAny(p) {
		if err := r.endShim(ctx, p.record.UID); err != nil {
			return err
		}
	}
	root := r.runcRoot()
	if exists(filepath.Join(root, rec.ID)) {
		if err := killCgroups(r.groupDir(p.record.UID) + "/" + rec.Name); err != nil {
			return err
		}
		if err := r.dropRunc(ctx, root, rec.ID); err != nil {
			return err
		}
	}
	for _, dir := range r.taskDirs() {
		if bundle := filepath.Join(dir, rec.ID); exists(bundle) {
			if err := dropBundle(bundle); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Runtime) runsAny(p *pod) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range p.containers {
		if c.record.Phase == running {
			return true
		}
	}
	return false
}

// gate lets one call at a time make or clear a container of one name.
func (r *Runtime) gate(p *pod, name string) *sync.Mutex {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.names[name] == nil {
		p.names[name] = &sync.Mutex{}
	}
	return p.names[name]
}

// clearEarlier removes what an earlier attempt left. It is done when this very
// attempt is there already.
func (r *Runtime) clearEarlier(ctx context.Context, p *pod, c runtimes.Container) (done bool, err error) {
	old := r.container(c.UID, c.Name)
	if old == nil {
		return false, nil
	}
	r.mu.Lock()
	rec := old.record
	r.mu.Unlock()
	if rec.Attempt == c.Attempt {
		return true, nil
	}
	if rec.Attempt > c.Attempt {
		return false, fmt.Errorf("%w: attempt %d is over, the latest is %d", runtimes.ErrRejected, c.Attempt, rec.Attempt)
	}
	if err := r.killWait(ctx, p, old); err != nil {
		return false, err
	}
	if err := r.untilGone(ctx, p, old); err != nil {
		return false, err
	}
	return false, nil
}

// begin makes a started container known and watches it.
func (r *Runtime) begin(p *pod, rec containerRecord) {
	c := newContainer(rec)
	c.watched = true
	r.mu.Lock()
	p.containers[rec.Name] = c
	r.changedLocked()
	r.mu.Unlock()
	r.work.Go(func() { r.watch(p, c) })
}

// create makes snapshot, container and task and starts it. The snapshot is a
// root of the garbage collector by its own label, which saves two flushed
// writes for a lease.
func (r *Runtime) create(ctx context.Context, cl *client.Client, c runtimes.Container, id string, img *unpacked, opts []oci.SpecOpts) (pid uint32, err error) {
	labels := map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
		"tandem.dev/node":       r.id,
	}
	if _, err := cl.SnapshotService(r.snapshotter).Prepare(ctx, id, img.chain, snapshots.WithLabels(labels)); err != nil {
		return 0, fmt.Errorf("make the root file system: %w", err)
	}
	rec := containers.Container{ID: id, Image: imageRecord(img.digest), Snapshotter: r.snapshotter, SnapshotKey: id, Labels: map[string]string{
		"tandem.dev/node": r.id, "tandem.dev/uid": c.UID.String(), "tandem.dev/container": c.Name, "tandem.dev/attempt": strconv.Itoa(int(c.Attempt)),
	}}
	runcOptions, err := typeurl.MarshalAny(&options.Options{Root: filepath.Join(r.run, "runc"), BinaryName: r.runc})
	if err != nil {
		return 0, err
	}
	rec.Runtime = containers.RuntimeInfo{Name: shim, Options: runcOptions}
	who, err := r.resolveUser(ctx, cl, &rec, img, c)
	if err != nil {
		return 0, err
	}
	spec, err := oci.GenerateSpec(ctx, cl, &rec, append(opts, with(func(s *oci.Spec) { who.apply(s, c.Security.Groups) }))...)
	if err != nil {
		return 0, err
	}
	if rec.Spec, err = typeurl.MarshalAny(spec); err != nil {
		return 0, err
	}
	if _, err := cl.ContainerService().Create(ctx, rec); err != nil {
		return 0, fmt.Errorf("make the container: %w", err)
	}
	made, err := cl.LoadContainer(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("make the container: %w", err)
	}
	task, err := made.NewTask(ctx, outputTo(c))
	if err != nil {
		return 0, fmt.Errorf("make its process: %w", err)
	}
	if err := task.Start(ctx); err != nil {
		return 0, fmt.Errorf("start its process: %w", err)
	}
	return task.Pid(), nil
}

// outputTo has the shim append stdout and stderr to files, without anybody
// between who could die or be slow. To the shim a path without a scheme is a
// FIFO or, as here, a file that exists. Where both streams go to one file, they
// are given two spellings of its path, so that the shim opens it for each: shims
// up to containerd 1.6 at least close a path that both share when stdout ends,
// and what stderr says after that is lost.
func outputTo(c runtimes.Container) cio.Creator {
	return func(string) (cio.IO, error) {
		f := &outputFiles{cio.Config{Stdout: c.LogPath, Stderr: c.ErrPath}}
		if f.config.Stderr == "" || f.config.Stderr == f.config.Stdout {
			f.config.Stderr = filepath.Dir(c.LogPath) + "/./" + filepath.Base(c.LogPath)
		}
		for _, path := range []string{f.config.Stdout, f.config.Stderr} {
			file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return nil, fmt.Errorf("make its log: %w", err)
			}
			if err := file.Close(); err != nil {
				return nil, fmt.Errorf("make its log: %w", err)
			}
		}
		return f, nil
	}
}

// outputFiles are streams that the shim alone writes.
type outputFiles struct{ config cio.Config }

func (f *outputFiles) Config() cio.Config { return f.config }
func (f *outputFiles) Cancel()            {}
func (f *outputFiles) Wait()              {}
func (f *outputFiles) Close() error       { return nil }

// undo removes what create made. When containerd is away, the sweep does it.
func (r *Runtime) undo(ctx context.Context, cl *client.Client, p *pod, rec containerRecord) error {
	if err := r.forget(ctx, cl, rec.ID); err != nil {
		return err
	}
	if err := os.Remove(p.file("c-" + rec.Name + ".json")); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := p.containers[rec.Name]; c != nil && c.record.Attempt != rec.Attempt {
		delete(p.containers, rec.Name) // its record was overwritten by ours
		r.changedLocked()
	}
	return nil
}

// forget removes task, container and snapshot. What isn't there is fine. A shim
// that serves two containers may end between the two, so it is tried again.
func (r *Runtime) forget(ctx context.Context, cl *client.Client, id string) error {
	var err error
	for range forgetTries {
		if err = r.forgetOnce(ctx, cl, id); err == nil || r.lost(cl) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(forgetPause):
		}
	}
	return err
}

// lost says whether another client has taken over or will: what cl didn't do,
// the sweep does.
func (r *Runtime) lost(cl *client.Client) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.client != cl
}

func (r *Runtime) forgetOnce(ctx context.Context, cl *client.Client, id string) error {
	var errs []error
	if made, err := cl.LoadContainer(ctx, id); err == nil {
		err := bounded(ctx, shimAnswers, "remove the process of "+id, func(ctx context.Context) error {
			task, err := made.Task(ctx, nil)
			if err == nil {
				_, err = task.Delete(ctx, client.WithProcessKill)
			}
			return err
		})
		if errors.Is(err, errNoAnswer) {
			return errors.Join(err, r.killShimsOf(ctx, id)) // containerd cleans up after it
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err := cl.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove container %s: %w", id, err))
		}
	} else if !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	if err := cl.SnapshotService(r.snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("remove the root file system of %s: %w", id, err))
	}
	return errors.Join(errs...)
}

type userKey struct {
	image state.Digest
	name  string
}

// A user is what the files of an image say of a name.
type user struct {
	uid, gid uint32
	groups   []uint32
}

func (u user) apply(s *oci.Spec, groups []int64) {
	s.Process.User.UID, s.Process.User.GID = u.uid, u.gid
	s.Process.User.AdditionalGids = slices.Clone(u.groups)
	for _, g := range groups {
		if !slices.Contains(s.Process.User.AdditionalGids, uint32(g)) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(g))
		}
	}
}

// resolveUser reads the image's passwd and group files once for each name: an
// image never changes.
func (r *Runtime) resolveUser(ctx context.Context, cl *client.Client, rec *containers.Container, img *unpacked, c runtimes.Container) (user, error) {
	key := userKey{img.digest, userString(c.Security, img.config.Config)}
	r.mu.Lock()
	u, known := r.users[key]
	r.mu.Unlock()
	if !known {
		s := oci.Spec{Linux: specLinux()}
		if err := oci.WithUser(key.name)(ctx, cl, rec, &s); err != nil {
			return user{}, r.userError(cl, key.name, err)
		}
		u = user{uid: s.Process.User.UID, gid: s.Process.User.GID}
		name, _, _ := strings.Cut(key.name, ":")
		if err := oci.WithAdditionalGIDs(name)(ctx, cl, rec, &s); err != nil {
			return user{}, r.userError(cl, key.name, err)
		}
		u.groups = s.Process.User.AdditionalGids
		r.mu.Lock()
		r.users[key] = u
		r.mu.Unlock()
	}
	if c.Security.RunAsNonRoot && u.uid == 0 {
		return user{}, fmt.Errorf("%w: runAsNonRoot is set but it would run as root (user %q of the image); set runAsUser", runtimes.ErrRejected, key.name)
	}
	return u, nil
}

// userError: an image without such a user stays so; a containerd that went away
// while its files were looked for says nothing.
func (r *Runtime) userError(cl *client.Client, name string, err error) error {
	class := runtimes.ErrRejected
	if r.lost(cl) || errdefs.IsUnavailable(err) || errdefs.IsCanceled(err) || errdefs.IsUnknown(err) {
		class = runtimes.ErrUnavailable
	}
	return fmt.Errorf("%w: user %q of the image: %w", class, name, err)
}
