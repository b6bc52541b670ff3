package containerd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// podsMax is how many pods a node takes, as a kubelet has it.
const podsMax = 110

// Describe says what this machine is.
func (r *Runtime) Describe(ctx context.Context) (state.NodeFacts, error) {
	if _, err := r.get(ctx); err != nil {
		return state.NodeFacts{}, err
	}
	memory, err := memoryTotal()
	if err != nil {
		return state.NodeFacts{}, fmt.Errorf("describe the machine: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(r.o.Dir, &disk); err != nil {
		return state.NodeFacts{}, fmt.Errorf("describe the machine: %w", err)
	}
	capacity := state.Resources{
		MilliCPU: int64(runtime.NumCPU()) * 1000, Memory: memory,
		Ephemeral: int64(disk.Blocks) * disk.Bsize, //nolint:gosec // a disk below 8 EiB
		Pods:      min(podsMax, r.addresses.size()),
	}
	allocatable := capacity.Sub(r.o.Reserve)
	r.mu.Lock()
	version := r.version
	r.mu.Unlock()
	version, _, _ = strings.Cut(version, "~") // Debian's suffix
	return state.NodeFacts{
		OS: state.Linux, Arch: runtime.GOARCH, Capacity: capacity, Labels: r.o.Labels, Taints: r.o.Taints, Address: r.o.Address,
		Allocatable: state.Resources{
			MilliCPU: max(0, allocatable.MilliCPU), Memory: max(0, allocatable.Memory),
			Ephemeral: max(0, allocatable.Ephemeral), Pods: max(0, allocatable.Pods),
		},
		Runtime: "containerd://" + version, Kernel: unix.ByteSliceToString(r.kernel.Release[:]), OSImage: osImage(),
	}, nil
}

func memoryTotal() (int64, error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemTotal")
}

// osImage is the distribution's name, empty where it says none.
func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}
