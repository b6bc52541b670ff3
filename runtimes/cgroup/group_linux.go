package cgroup

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
)

// Root is where the kernel's control groups are mounted.
const Root = "/sys/fs/cgroup"

// pause lies between two looks at what should be gone.
const pause = 2 * time.Millisecond

// A Group is one control group, in all hierarchies.
type Group struct {
	root, path string
	unified    bool
}

// At is the group of a path below a mount of control groups: "/tandem/node".
func At(root, path string) Group { return Group{root, path, Unified(root)} }

// Unified says whether version 2 is mounted there.
func Unified(root string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// Hierarchies are where control groups begin: one directory with version 2, one
// for each controller with version 1, and those that systemd adds.
func Hierarchies(root string) []string {
	if Unified(root) {
		return []string{root}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() { // cpu,cpuacct has links beside it
			out = append(out, filepath.Join(root, e.Name()))
		}
	}
	return out
}

// Unified says whether the group is of version 2.
func (g Group) Unified() bool { return g.unified }

// Dirs are the group's directories, whether they exist or not.
func (g Group) Dirs() []string {
	var out []string
	for _, h := range Hierarchies(g.root) {
		out = append(out, filepath.Join(h, g.path))
	}
	return out
}

// Controller is the group's directory where a controller's files are.
func (g Group) Controller(name string) string {
	if g.unified {
		return filepath.Join(g.root, g.path)
	}
	return filepath.Join(g.root, name, g.path)
}

// below are the directories of the group and of those in it, the outer first.
func (g Group) below() []string {
	var dirs []string
	for _, top := range g.Dirs() {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // what vanishes meanwhile is none
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

// Processes are those of the group and of the groups in it, in whichever
// hierarchy they are, without those of which only the exit code is left.
func (g Group) Processes() map[int]bool {
	out := map[int]bool{}
	for _, dir := range g.below() {
		raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // gone: nobody is in it
		for f := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !Dead(pid) {
				out[pid] = true
			}
		}
	}
	return out
}

// Kill ends all processes of the group, frozen or not, and says how many. On
// version 1 they are frozen meanwhile, so that none can fork faster than it is
// found. It returns when none is left, or says which don't end.
func (g Group) Kill(limit time.Duration) (int, error) {
	killed := map[int]bool{}
	deadline := time.Now().Add(limit)
	for {
		left := g.Processes()
		if len(left) == 0 {
			return len(killed), nil
		}
		if time.Now().After(deadline) {
			return len(killed), fmt.Errorf("processes %s of control group %s were killed but do not end within %s", list(left), g.path, limit)
		}
		g.freeze()
		for pid := range g.Processes() {
			killed[pid] = true
			_ = unix.Kill(pid, unix.SIGKILL) // it has ended, or is looked at again
		}
		if g.unified {
			_ = Put(g.Controller(""), "cgroup.kill", "1") // since Linux 5.14; before, one by one is what there is
		}
		g.thaw()
		time.Sleep(pause)
	}
}

// freeze stops the processes of version 1. On version 2 a kill reaches the
// frozen, and cgroup.kill can't be outrun.
func (g Group) freeze() {
	if !g.unified {
		_ = Put(g.Controller("freezer"), "freezer.state", "FROZEN") // a host without it kills in rounds
	}
}

// thaw lets what was killed end. A group may have been frozen by others, and
// each in it by itself: on version 1 a frozen process doesn't die.
func (g Group) thaw() {
	for _, dir := range g.below() {
		_ = Put(dir, "freezer.state", "THAWED") // one of them is there, or neither
		_ = Put(dir, "cgroup.freeze", "0")
	}
}

// Remove removes the group and those in it. Who was in it has been killed; the
// kernel takes a moment to let them go.
func (g Group) Remove(limit time.Duration) error {
	var errs []error
	deadline := time.Now().Add(limit) // for all together
	for _, dir := range slices.Backward(g.below()) {
		errs = append(errs, remove(dir, deadline))
	}
	return errors.Join(errs...)
}

func remove(dir string, deadline time.Time) error {
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
		time.Sleep(pause)
	}
}

// RemoveEmpty removes a group that others may share, where nothing is in it.
func (g Group) RemoveEmpty() {
	for _, dir := range g.Dirs() {
		_ = unix.Rmdir(dir) // others are in it
	}
}

// list names processes, for people.
func list(pids map[int]bool) string {
	var out []string
	for pid := range pids {
		out = append(out, strconv.Itoa(pid))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// Dead says whether all that is left of a process is its exit code. A leader
// whose threads go on is a zombie too, but not dead.
func Dead(pid int) bool {
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

// Parent is a process's parent; 0 where it has ended.
func Parent(pid int) int {
	f := stat(pid)
	if f == nil {
		return 0
	}
	n, _ := strconv.Atoi(f[1]) // digits
	return n
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

// Put writes a file that the kernel made; it never makes one.
func Put(dir, name, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
