package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

// Check looks at this machine and says what it lacks to be a node, each with
// what to do. It changes nothing that stays.
func Check() []Finding {
	const install = "install it: apt-get install containerd runc (Debian, Ubuntu)"
	findings := []Finding{root(), program("containerd", install), program("runc", install), cgroups(), overlay()}
	if f := namespaced(); !f.OK {
		findings = append(findings, f)
	}
	return findings
}

func root() Finding {
	f := Finding{Name: "root", OK: os.Geteuid() == 0, Fatal: true, Detail: fmt.Sprintf("running as uid %d", os.Geteuid())}
	if !f.OK {
		f.Remedy = "run as root, or simulate Linux nodes with --simulate linux=1"
	}
	return f
}

func program(name, remedy string) Finding {
	f := Finding{Name: name, Fatal: true}
	path, err := exec.LookPath(name)
	if err != nil {
		f.Detail, f.Remedy = "not in PATH", remedy
		return f
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		f.Detail, f.Remedy = fmt.Sprintf("%s does not run: %v", path, err), remedy
		return f
	}
	line, _, _ := strings.Cut(string(out), "\n")
	f.OK, f.Detail = true, path+": "+line
	return f
}

func cgroups() Finding {
	f := Finding{Name: "cgroups", Fatal: true}
	switch _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); {
	case cgroup.Unified(cgroup.Root):
		f.OK, f.Detail = true, "version 2"
	case err == nil:
		f.OK, f.Detail = true, "version 1"
	default:
		f.Detail, f.Remedy = "/sys/fs/cgroup has no memory controller", "mount cgroups (systemd does), and boot without cgroup_disable=memory"
	}
	return f
}

func overlay() Finding {
	f := Finding{Name: "overlayfs"}
	raw, err := os.ReadFile("/proc/filesystems")
	if err == nil && strings.Contains(string(raw), "\toverlay\n") {
		f.OK, f.Detail = true, "known to the kernel"
		return f
	}
	f.Detail = "not known to the kernel: every container copies its image"
	f.Remedy = "load the module: modprobe overlay"
	return f
}

func namespaced() Finding {
	f := Finding{Name: "namespaces", OK: true, Fatal: true}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			f.OK, f.Detail, f.Remedy = false, "the kernel has no "+ns+" namespaces", "use a kernel with namespaces"
		}
	}
	return f
}
