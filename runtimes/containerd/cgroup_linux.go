package containerd

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

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func specLinux() *specs.Linux { return &specs.Linux{} }

// hierarchies are where cgroups are mounted: one directory with version 2, one
// for each controller with version 1 (and those that systemd adds).
func hierarchies() []string {
	const top = "/sys/fs/cgroup"
	if unified() {
		return []string{top}
	}
	entries, err := os.ReadDir(top)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() { // cpu,cpuacct has links beside it
			found = append(found, filepath.Join(top, e.Name()))
		}
	}
	return found
}

// cgroupRoot is where the kernel's control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// oomKills counts the processes of a cgroup that the kernel killed for memory.
func oomKills(group string) int {
	file := cgroupRoot + "/memory/" + group + "/memory.oom_control"
	if unified() {
		file = cgroupRoot + "/" + group + "/memory.events"
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// oomLeast is the lowest OOM score that this machine lets us give: within some
// virtual machines and containers root is denied CAP_SYS_RESOURCE, and then its
// own score is the least.
func oomLeast() (int, error) {
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("ask for own capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return -1000, nil
	}
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

// endCgroups kills whatever still runs in a cgroup and below it, frozen or not,
// and removes it. What was half made when its shim was killed is known to
// nobody else.
func endCgroups(group string) error {
	if err := killCgroups(group); err != nil {
		return err
	}
	return removeCgroups(group)
}

// killCgroups returns when no process is in a cgroup, nor below it.
func killCgroups(group string) error {
	deadline := time.Now().Add(cgroupEnds)
	for {
		left := 0
		for _, h := range hierarchies() {
			left += killIn(filepath.Join(h, group))
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of cgroup %s were killed but do not end within %s", left, group, cgroupEnds)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// killIn kills the processes below one directory and counts them. A frozen
// process of version 1 dies only when it is thawed.
func killIn(top string) int {
	count := 0
	entries, _ := os.ReadDir(top) // what is gone needs no end
	for _, e := range entries {
		if e.IsDir() {
			count += killIn(filepath.Join(top, e.Name()))
		}
	}
	raw, _ := os.ReadFile(filepath.Join(top, "cgroup.procs"))
	for field := range strings.FieldsSeq(string(raw)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 && unix.Kill(pid, unix.SIGKILL) == nil {
			count++
		}
	}
	if len(raw) > 0 {
		thaw(top)
	}
	return count
}

func thaw(dir string) {
	for name, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		if f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0); err == nil { // one of them is there, or neither
			_, _ = f.WriteString(value) // else the processes are counted again
			_ = f.Close()
		}
	}
}

// cgroupEnds is how long processes that were killed may take to leave a cgroup,
// and an empty one to be removed.
const cgroupEnds = 5 * time.Second

// removeCgroups removes a cgroup and what is below it, in every hierarchy. The
// processes in it have been killed; the kernel takes a moment to let them go.
func removeCgroups(group string) error {
	var errs []error
	deadline := time.Now().Add(cgroupEnds) // for all together
	for _, h := range hierarchies() {
		top := filepath.Join(h, group)
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil
			}
			return err
		})
		if err != nil {
			errs = append(errs, err)
		}
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, removeCgroup(dir, deadline))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string, deadline time.Time) error {
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// removeCgroupIfEmpty removes a cgroup that others may share.
func removeCgroupIfEmpty(group string) {
	for _, h := range hierarchies() {
		_ = unix.Rmdir(filepath.Join(h, group)) // others are in it
	}
}
