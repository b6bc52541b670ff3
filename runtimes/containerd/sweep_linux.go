package containerd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

// sweep makes containerd, the kernel and our records agree after a start or the
// loss of a daemon: containers that run are watched again, ended ones recorded,
// and everything else that carries our name is removed. r.calls is held for
// writing, so nothing is half made by us meanwhile.
func (r *Runtime) sweep(ctx context.Context, cl *client.Client) error {
	keep, err := r.settle(ctx, cl)
	if err != nil {
		return err
	}
	if err := r.sweepTasks(ctx, cl, keep); err != nil {
		return err
	}
	if r.o.Socket == "" { // what is below a daemon of others is theirs
		if err := r.sweepShims(ctx, cl, keep); err != nil {
			return err
		}
	}
	if err := r.sweepProcesses(keep); err != nil {
		return err
	}
	if err := r.sweepRunc(ctx, keep); err != nil {
		return err
	}
	if r.o.Socket == "" {
		if err := r.sweepBundles(keep); err != nil {
			return err
		}
	}
	if err := errors.Join(r.sweepSnapshots(ctx, cl, keep), r.sweepCgroups(keep)); err != nil {
		return err
	}
	r.mu.Lock()
	for _, p := range r.pods {
		for _, c := range p.containers {
			if c.record.Phase == ended && !keep[c.record.ID] {
				c.left()
			}
		}
	}
	r.changedLocked()
	r.mu.Unlock()
	if r.swept {
		return nil // the rest may be of calls under way
	}
	r.swept = true
	return errors.Join(r.sweepPods(), os.RemoveAll(filepath.Join(r.run, "exec")))
}

// settle compares each record with its task and returns the IDs that run.
func (r *Runtime) settle(ctx context.Context, cl *client.Client) (map[string]bool, error) {
	keep := map[string]bool{}
	r.mu.Lock()
	pods := make([]*pod, 0, len(r.pods))
	for _, p := range r.pods {
		pods = append(pods, p)
	}
	r.mu.Unlock()
	for _, p := range pods {
		files, err := filepath.Glob(p.file("c-*.json"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			var rec containerRecord
			if err := readJSON(file, &rec); err != nil || rec.ID == "" {
				continue
			}
			runs, err := r.settleOne(ctx, cl, p, rec)
			if err != nil {
				return nil, err
			}
			if runs {
				keep[rec.ID] = true
			}
		}
	}
	return keep, nil
}

// settleOne says whether a container runs, and watches or ends it.
func (r *Runtime) settleOne(ctx context.Context, cl *client.Client, p *pod, rec containerRecord) (bool, error) {
	if rec.Phase == ended {
		return false, nil
	}
	process, err := r.lookAfter(ctx, cl, rec)
	if err != nil {
		return false, fmt.Errorf("look after container %s: %w", rec.ID, err)
	}
	now := process.GetStatus()
	r.mu.Lock()
	known := p.containers[rec.Name]
	watched := known != nil && known.record.ID == rec.ID && known.watched
	r.mu.Unlock()
	switch {
	case now == task.Status_RUNNING || now == task.Status_PAUSED || now == task.Status_PAUSING:
		if rec.Phase == starting { // killed just after it began
			rec.Phase, rec.StartedAt, rec.PID = running, time.Now().UTC(), process.GetPid()
			if err := p.saveContainer(rec); err != nil {
				return false, err
			}
		}
		if !watched {
			r.begin(p, rec)
		}
		return true, nil
	case rec.Phase == starting: // never began: as if it had not been asked for
		r.mu.Lock()
		delete(p.containers, rec.Name)
		r.changedLocked()
		r.mu.Unlock()
		return false, os.Remove(p.file("c-" + rec.Name + ".json"))
	case watched && now == task.Status_STOPPED:
		return true, nil // its watcher records the end as soon as we are connected
	case watched:
		return false, nil // the same, without a task
	default:
		c := newContainer(rec)
		r.mu.Lock()
		p.containers[rec.Name] = c
		r.mu.Unlock()
		code, at, reason := int32(exitUnknown), time.Now(), "its process is gone and nobody saw how it ended"
		if now == task.Status_STOPPED {
			code, at, reason = int32(process.GetExitStatus()), process.GetExitedAt().AsTime(), "" //nolint:gosec // a byte
		}
		return false, r.endRecord(p, c, code, at, reason)
	}
}

// lookAfter is what containerd says of a container's process; nil where it knows none.
// A shim that is slow to answer makes containerd say "unknown" of a process that
// is well: it is asked again. One that stays silent is taken for dead, and its
// process ends.
func (r *Runtime) lookAfter(ctx context.Context, cl *client.Client, rec containerRecord) (*task.Process, error) {
	limit := time.Now().Add(shimSilent)
	for {
		var answer *tasks.GetResponse
		err := bounded(ctx, shimAnswers, "its shim", func(ctx context.Context) (err error) {
			answer, err = cl.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: rec.ID})
			return errgrpc.ToNative(err)
		})
		silent := errors.Is(err, errNoAnswer)
		switch {
		case err == nil && answer.GetProcess().GetStatus() != task.Status_UNKNOWN:
			return answer.GetProcess(), nil
		case err != nil && !silent && !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) && !errdefs.IsUnknown(err):
			return nil, err
		case err != nil && !silent, time.Now().After(limit):
			return nil, nil //nolint:nilnil // nobody knows of a process: no error of the sweep
		}
		r.logger.LogAttrs(ctx, slog.LevelWarn, "asked again, a shim was silent", slog.String("container", rec.ID))
		if !sleep(ctx, watchPause) {
			return nil, context.Cause(ctx)
		}
	}
}

// ours says whether an ID is of this node: others may share the daemon.
func (r *Runtime) ours(id string) bool { return strings.HasPrefix(id, r.id+"-") }

// sweepTasks removes tasks and containers that no record wants.
func (r *Runtime) sweepTasks(ctx context.Context, cl *client.Client, keep map[string]bool) error {
	list, err := listTasks(ctx, cl)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range list {
		if r.ours(t.ID) && !keep[t.ID] {
			r.endTask(ctx, cl, t.ID)
		}
	}
	var known []containers.Container
	err = bounded(ctx, storeAnswers, "list containers", func(ctx context.Context) (err error) {
		known, err = cl.ContainerService().List(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range known {
		if r.ours(c.ID) && !keep[c.ID] {
			r.logger.LogAttrs(ctx, slog.LevelInfo, "swept a container", slog.String("container", c.ID))
			errs = append(errs, bounded(ctx, storeAnswers, "forget container "+c.ID, func(ctx context.Context) error { return r.forget(ctx, cl, c.ID) }))
		}
	}
	return errors.Join(errs...)
}

func listTasks(ctx context.Context, cl *client.Client) ([]*task.Process, error) {
	var list *tasks.ListTasksResponse
	err := bounded(ctx, storeAnswers, "list tasks", func(ctx context.Context) (err error) {
		list, err = cl.TaskService().List(ctx, &tasks.ListTasksRequest{})
		return err
	})
	return list.GetTasks(), err
}

// endTask kills and deletes a task, also one without a container. A shim that
// doesn't obey, or is silent, is killed later.
func (r *Runtime) endTask(ctx context.Context, cl *client.Client, id string) {
	service := cl.TaskService()
	err := bounded(ctx, shimAnswers, "kill", func(ctx context.Context) error {
		_, err := service.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
		if err == nil {
			_, _ = service.Wait(ctx, &tasks.WaitRequest{ContainerID: id}) // delete tells
		}
		return err
	})
	if !errors.Is(err, errNoAnswer) {
		err = bounded(ctx, shimAnswers, "delete", func(ctx context.Context) error {
			_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
			return errgrpc.ToNative(err)
		})
	}
	if errors.Is(err, errNoAnswer) {
		err = errors.Join(err, r.killShimsOf(ctx, id))
	}
	if err != nil && !errdefs.IsNotFound(err) {
		r.logger.LogAttrs(ctx, slog.LevelWarn, "failed to delete a task, its shim is killed", slog.String("container", id), slog.Any("err", err))
	}
}

// sweepShims kills shims of our daemon that serve no task that is kept. Shims
// are named after the first container of a pod, which may be long gone, so what
// counts is whose parent they are.
func (r *Runtime) sweepShims(ctx context.Context, cl *client.Client, keep map[string]bool) error {
	serving := map[int]bool{}
	list, err := listTasks(ctx, cl)
	if err != nil {
		return err
	}
	stopped := false
	for _, t := range list {
		if keep[t.ID] {
			serving[parentOf(int(t.Pid))] = true
			stopped = stopped || t.Status == task.Status_STOPPED
		}
	}
	if stopped {
		return nil // its shim can't be told any more; the next sweep can
	}
	for pid, args := range processes() {
		if !r.isShim(args) || serving[pid] {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill shim %d: %w", pid, err)
		}
		r.logger.LogAttrs(ctx, slog.LevelInfo, "swept a shim", slog.Int("pid", pid))
		if err := untilDead(ctx, pid); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) isShim(args []string) bool {
	at := slices.Index(args, "-address")
	return strings.Contains(filepath.Base(args[0]), "containerd-shim-runc") && at >= 0 && at+1 < len(args) && args[at+1] == r.socket()
}

// untilDead waits for a process that was killed.
func untilDead(ctx context.Context, pid int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(5 * time.Second)
	for {
		if f, err := stat(pid); err != nil || f[0] == "Z" {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("process %d was killed but does not end", pid)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sweepRunc ends containers that runc knows and no record wants: their shim is
// dead, so nobody else will.
func (r *Runtime) sweepRunc(ctx context.Context, keep map[string]bool) error {
	root := r.runcRoot()
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !r.ours(e.Name()) || keep[e.Name()] {
			continue
		}
		if err := r.dropRunc(ctx, root, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) runcRoot() string { return filepath.Join(r.run, "runc", namespace) }

// dropRunc makes runc forget a container, also one that was half made.
func (r *Runtime) dropRunc(ctx context.Context, root, id string) error {
	limited, cancel := context.WithTimeout(ctx, shimAnswers)
	defer cancel()
	cmd := exec.CommandContext(limited, r.runc, "--root", root, "delete", "--force", id)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil { // half made: runc can't read it
		r.logger.LogAttrs(ctx, slog.LevelDebug, "removed a half-made container", slog.String("container", id), slog.String("runc", string(out)))
	}
	return os.RemoveAll(filepath.Join(root, id))
}

// sweepBundles removes directories and mounts of shims that are gone, and their
// sockets, which lie where all daemons have theirs.
func (r *Runtime) sweepBundles(keep map[string]bool) error {
	for _, dir := range r.taskDirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if keep[strings.TrimPrefix(e.Name(), ".")] {
				continue
			}
			if err := dropBundle(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// taskDirs are where the daemon keeps what shims work on.
func (r *Runtime) taskDirs() []string {
	const tasksDir = "io.containerd.runtime.v2.task"
	return []string{filepath.Join(r.stateDir(), tasksDir, namespace), filepath.Join(r.rootDir(), tasksDir, namespace)}
}

func dropBundle(bundle string) error {
	removeDeadSocket(filepath.Join(bundle, "address"))
	if err := unmount(filepath.Join(bundle, "rootfs")); err != nil {
		return err
	}
	return os.RemoveAll(bundle)
}

// removeDeadSocket removes the socket that a bundle's address file names, when
// nobody listens there.
func removeDeadSocket(file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return
	}
	path := strings.TrimPrefix(strings.TrimSpace(string(raw)), "unix://")
	if filepath.Dir(path) == shimSockets {
		removeDead(path)
	}
}

// shimSockets is where all daemons' shims have their sockets.
const shimSockets = "/run/containerd/s"

// shimSocket is where the shim of a pod listens: containerd derives it from the
// daemon's address, the namespace and the group. A shim that was killed leaves
// it behind.
func (r *Runtime) shimSocket(uid state.UID) string {
	sum := sha256.Sum256([]byte(filepath.Join(r.socket(), namespace, uid.String())))
	return filepath.Join(shimSockets, hex.EncodeToString(sum[:]))
}

func removeDead(path string) {
	conn, err := net.Dial("unix", path) //nolint:noctx // local, answers at once
	if err == nil {
		_ = conn.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path) // another may have
	}
}

func (r *Runtime) sweepSnapshots(ctx context.Context, cl *client.Client, keep map[string]bool) error {
	service := cl.SnapshotService(r.snapshotter)
	var left []string
	err := bounded(ctx, storeAnswers, "list snapshots", func(ctx context.Context) error {
		return service.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind == snapshots.KindActive && r.ours(info.Name) && !keep[info.Name] {
				left = append(left, info.Name)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range left {
		err := bounded(ctx, storeAnswers, "remove snapshot "+name, func(ctx context.Context) error { return service.Remove(ctx, name) })
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepPods removes sandboxes that were being made when we were killed, and
// veths of none. A pod that is whole stays until somebody removes it.
func (r *Runtime) sweepPods() error {
	r.mu.Lock()
	var half []*pod
	for _, p := range r.pods {
		if !p.record.Made {
			half = append(half, p)
		}
	}
	r.mu.Unlock()
	for _, p := range half {
		if err := r.dropSandbox(p); err != nil {
			return fmt.Errorf("remove the half-made pod %s: %w", p.record.UID, err)
		}
	}
	links := map[string]bool{}
	r.mu.Lock()
	for _, p := range r.pods {
		if addr, err := netip.ParseAddr(p.record.IP); err == nil {
			links[r.linkName(addr)] = true
		}
	}
	r.mu.Unlock()
	return r.sweepLinks(links)
}

// sweepProcesses kills what runs in cgroups of containers that are gone: neither
// a shim nor runc may know of it.
func (r *Runtime) sweepProcesses(keep map[string]bool) error {
	var errs []error
	for _, group := range r.unwantedCgroups(keep) {
		errs = append(errs, killCgroups(group))
	}
	return errors.Join(errs...)
}

// sweepCgroups removes cgroups of pods and containers that are gone.
func (r *Runtime) sweepCgroups(keep map[string]bool) error {
	var errs []error
	for _, group := range r.unwantedCgroups(keep) {
		errs = append(errs, endCgroups(group))
	}
	return errors.Join(errs...)
}

// unwantedCgroups are those of pods and containers that are gone, in any
// hierarchy, the inner ones first.
func (r *Runtime) unwantedCgroups(keep map[string]bool) []string {
	wanted := map[string]bool{}
	r.mu.Lock()
	for uid, p := range r.pods {
		for name, c := range p.containers {
			if keep[c.record.ID] {
				wanted[uid.String()] = true
				wanted[uid.String()+"/"+name] = true
			}
		}
	}
	r.mu.Unlock()
	found := map[string]bool{}
	for _, h := range cgroup.Hierarchies(cgroup.Root) {
		groups, _ := filepath.Glob(filepath.Join(h, r.cgroup, "*"))
		inner, _ := filepath.Glob(filepath.Join(h, r.cgroup, "*", "*"))
		for _, dir := range append(inner, groups...) {
			rel, err := filepath.Rel(filepath.Join(h, r.cgroup), dir)
			if info, statErr := os.Stat(dir); err != nil || statErr != nil || !info.IsDir() || wanted[rel] {
				continue
			}
			if _, err := state.ParseUID(strings.SplitN(rel, "/", 2)[0]); err != nil {
				continue
			}
			found[r.cgroup+"/"+rel] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
}
