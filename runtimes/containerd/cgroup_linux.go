package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

func specLinux() *specs.Linux { return &specs.Linux{} }

// oomKills counts the processes of a cgroup that the kernel killed for memory.
func oomKills(group string) int {
	g, file := cgroup.At(cgroup.Root, group), "memory.oom_control"
	if g.Unified() {
		file = "memory.events"
	}
	raw, err := os.ReadFile(filepath.Join(g.Controller("memory"), file))
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

// cgroupEnds is how long processes that were killed may take to leave a cgroup,
// and an empty one to be removed.
const cgroupEnds = 5 * time.Second

// endCgroups kills whatever still runs in a cgroup and below it, frozen or not,
// and removes it. What was half made when its shim was killed is known to
// nobody else.
func endCgroups(group string) error {
	if err := killCgroups(group); err != nil {
		return err
	}
	return cgroup.At(cgroup.Root, group).Remove(cgroupEnds)
}

// killCgroups returns when no process is in a cgroup, nor below it.
func killCgroups(group string) error {
	_, err := cgroup.At(cgroup.Root, group).Kill(cgroupEnds)
	return err
}
