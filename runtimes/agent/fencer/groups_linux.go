package fencer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

const (
	groupRoot = cgroup.Root
	shutLimit = time.Second // until processes that were killed should be gone
	shutPause = 5 * time.Millisecond
)

// groups are the control groups of a node's pods: prefix/UID/container in each
// hierarchy. They are the kernel's own account of who belongs to a pod.
type groups struct {
	root    string
	prefix  string
	unified bool
}

// Groups are the cells of a node whose pods are below a control group.
func Groups(prefix string) Cells { return groupsAt(groupRoot, prefix) }

func groupsAt(root, prefix string) *groups {
	return &groups{root: root, prefix: prefix, unified: cgroup.Unified(root)}
}

func (g *groups) hierarchies() []string { return cgroup.Hierarchies(g.root) }

// pod is the group of a pod.
func (g *groups) pod(uid state.UID) cgroup.Group {
	return cgroup.At(g.root, filepath.Join(g.prefix, uid.String()))
}

// limits is the pod's directory where the number of its processes is limited.
func (g *groups) limits(uid state.UID) string { return g.pod(uid).Controller("pids") }

// Open lets processes begin again.
func (g *groups) Open(uid state.UID) error {
	dir := g.limits(uid)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was shut
	}
	err := cgroup.Put(dir, "pids.max", "max")
	if g.unified {
		err = errors.Join(ignoreAbsent(err), cgroup.Put(dir, "cgroup.freeze", "0"))
	}
	return err
}

// forbid makes every fork in the pod fail: what starts a container moves into
// its group first, and forks there.
func (g *groups) forbid(uid state.UID) error {
	dir := g.limits(uid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := cgroup.Put(dir, "pids.max", "0")
	if g.unified && errors.Is(err, fs.ErrNotExist) {
		// The controller isn't passed on to this group.
		_ = cgroup.Put(filepath.Dir(dir), "cgroup.subtree_control", "+pids") // its own parent may have none
		if err = cgroup.Put(dir, "pids.max", "0"); errors.Is(err, fs.ErrNotExist) {
			return nil // what begins is frozen at once, see Shut
		}
	}
	return err
}

// Term sends SIGTERM to the first processes of each container: those whose
// parents are outside.
func (g *groups) Term(uid state.UID) error {
	pids := g.pod(uid).Processes()
	var errs []error
	for pid := range pids {
		if !pids[cgroup.Parent(pid)] {
			errs = append(errs, signal(pid, unix.SIGTERM))
		}
	}
	return errors.Join(errs...)
}

// Shut kills all processes of a pod, and lets none begin.
func (g *groups) Shut(uid state.UID) (int, error) {
	if err := g.forbid(uid); err != nil {
		return 0, fmt.Errorf("forbid pod %s to fork: %w", uid, err)
	}
	killed, err := g.pod(uid).Kill(shutLimit)
	if err != nil {
		return killed, err
	}
	return killed, g.stay(uid)
}

// stay freezes what comes into a group whose number of processes can't be limited.
func (g *groups) stay(uid state.UID) error {
	if !g.unified {
		return nil
	}
	if _, err := os.Stat(filepath.Join(g.limits(uid), "pids.max")); err == nil {
		return nil
	}
	return cgroup.Put(g.limits(uid), "cgroup.freeze", "1")
}

// Drop takes away the groups that are empty, and the limit of those that aren't.
func (g *groups) Drop(uid state.UID) error {
	err := g.Open(uid)
	if errors.Is(unix.Rmdir(g.limits(uid)), unix.EBUSY) {
		return err // the runtime still has something in it
	}
	return nil
}

func signal(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func system(group string) (Cells, error) { return Groups(group), nil }
