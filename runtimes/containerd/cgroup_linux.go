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

// removeCgroups removes a cgroup and what is below it, in every hierarchy. The
// processes in it have been killed; the kernel takes a moment to let them go.
func removeCgroups(group string) error {
	var errs []error
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
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
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
