package fencer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	groupRoot = "/sys/fs/cgroup"
	shutTries = 100 // looks at the processes that should be gone
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
	var fs unix.Statfs_t
	unified := unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
	return &groups{root: root, prefix: prefix, unified: unified}
}

// hierarchies are where control groups are mounted: one directory with version
// 2, one for each controller with version 1.
func (g *groups) hierarchies() []string {
	if g.unified {
		return []string{g.root}
	}
	entries, err := os.ReadDir(g.root)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() { // cpu,cpuacct has links beside it
			out = append(out, filepath.Join(g.root, e.Name()))
		}
	}
	return out
}

func (g *groups) dirs(uid state.UID) []string {
	var out []string
	for _, h := range g.hierarchies() {
		out = append(out, filepath.Join(h, g.prefix, uid.String()))
	}
	return out
}

// limits is the pod's directory where the number of its processes is limited.
func (g *groups) limits(uid state.UID) string {
	if g.unified {
		return filepath.Join(g.root, g.prefix, uid.String())
	}
	return filepath.Join(g.root, "pids", g.prefix, uid.String())
}

// Open lets processes begin again.
func (g *groups) Open(uid state.UID) error {
	dir := g.limits(uid)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was shut
	}
	err := put(dir, "pids.max", "max")
	if g.unified {
		err = errors.Join(ignoreAbsent(err), put(dir, "cgroup.freeze", "0"))
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
	err := put(dir, "pids.max", "0")
	if g.unified && errors.Is(err, fs.ErrNotExist) {
		// The controller isn't passed on to this group.
		_ = put(filepath.Dir(dir), "cgroup.subtree_control", "+pids") // its own parent may have none
		if err = put(dir, "pids.max", "0"); errors.Is(err, fs.ErrNotExist) {
			return nil // what begins is frozen at once, see Shut
		}
	}
	return err
}

// Term sends SIGTERM to the first processes of each container: those whose
// parents are outside.
func (g *groups) Term(uid state.UID) error {
	pids := g.pids(uid)
	var errs []error
	for pid := range pids {
		if !pids[parent(pid)] {
			errs = append(errs, signal(pid, unix.SIGTERM))
		}
	}
	return errors.Join(errs...)
}

// Shut kills all processes of a pod. On version 1 they are frozen meanwhile, so
// that none can fork faster than it is found.
func (g *groups) Shut(uid state.UID) (int, error) {
	if err := g.forbid(uid); err != nil {
		return 0, fmt.Errorf("forbid pod %s to fork: %w", uid, err)
	}
	killed := map[int]bool{}
	for range shutTries {
		pids := g.pids(uid)
		if len(pids) == 0 {
			return len(killed), g.stay(uid)
		}
		g.freeze(uid, true)
		for pid := range g.pids(uid) {
			killed[pid] = true
			_ = signal(pid, unix.SIGKILL) // it has ended, or is looked at again
		}
		if g.unified {
			_ = put(g.limits(uid), "cgroup.kill", "1") // since Linux 5.14; before, one by one is what there is
		}
		g.freeze(uid, false)
		time.Sleep(shutPause)
	}
	var left []string
	for pid := range g.pids(uid) {
		left = append(left, strconv.Itoa(pid))
	}
	if len(left) == 0 {
		return len(killed), g.stay(uid)
	}
	slices.Sort(left)
	return len(killed), fmt.Errorf("processes %s of pod %s don't die", strings.Join(left, ", "), uid)
}

// stay freezes what comes into a group whose number of processes can't be limited.
func (g *groups) stay(uid state.UID) error {
	if !g.unified {
		return nil
	}
	if _, err := os.Stat(filepath.Join(g.limits(uid), "pids.max")); err == nil {
		return nil
	}
	return put(g.limits(uid), "cgroup.freeze", "1")
}

func (g *groups) freeze(uid state.UID, on bool) {
	if g.unified {
		if !on {
			_ = put(g.limits(uid), "cgroup.freeze", "0") // it was never frozen, or is gone
		}
		return // a kill reaches the frozen, and cgroup.kill can't be outrun
	}
	state := map[bool]string{true: "FROZEN", false: "THAWED"}[on]
	_ = put(filepath.Join(g.root, "freezer", g.prefix, uid.String()), "freezer.state", state) // a host without it kills in rounds
}

// Drop takes away the groups that are empty, and the limit of those that aren't.
func (g *groups) Drop(uid state.UID) error {
	err := g.Open(uid)
	if errors.Is(unix.Rmdir(g.limits(uid)), unix.EBUSY) {
		return err // the runtime still has something in it
	}
	return nil
}

// pids are the processes of a pod, in whichever hierarchy they are.
func (g *groups) pids(uid state.UID) map[int]bool {
	out := map[int]bool{}
	for _, top := range g.dirs(uid) {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // what vanishes meanwhile has no processes
			if err != nil || !d.IsDir() {
				return nil //nolint:nilerr // as above
			}
			raw, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for f := range strings.FieldsSeq(string(raw)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !dead(pid) {
					out[pid] = true
				}
			}
			return nil
		})
	}
	return out
}

// dead says whether all that is left of a process is its exit code. A leader
// whose threads go on is a zombie too, but not dead.
func dead(pid int) bool {
	f := stat(pid)
	if f == nil {
		return true
	}
	if f[0] != "Z" && f[0] != "X" {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || len(threads) <= 1
}

// stat is /proc/PID/stat from the state on: [0] state, [1] parent.
func stat(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(f) < 2 {
		return nil
	}
	return f
}

func parent(pid int) int {
	f := stat(pid)
	if f == nil {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func signal(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// put writes a file that the kernel made; it never makes one.
func put(dir, name, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func system(group string) (Cells, error) { return Groups(group), nil }
