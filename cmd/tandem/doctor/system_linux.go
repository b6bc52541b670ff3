package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// fenceNeeds is what a fencer that doesn't start lacks here.
const fenceNeeds = "give the agent root, CAP_IPC_LOCK and writable control groups"

// checks are of what runs containers.
func checks() []check {
	var all []check
	for _, f := range containerd.Check() {
		all = append(all, check{f.Name, f.OK, f.Fatal, f.Detail, f.Remedy})
	}
	return all
}

func system(ctx context.Context, o *Options) []Finding {
	return []Finding{nft(), forwarding(), pids(), fence(ctx, o), disk(o.Data), resolver(), clock(), unitPath()}
}

// nft programs Services where nobody sees them.
func nft() Finding {
	f := Finding{Name: "nftables", State: OK, Detail: "the kernel takes the rules of Services"}
	switch m := network.Missing(); {
	case m != "":
		f.State = Bad
		f.Detail, f.Remedy, _ = strings.Cut(m, "; ")
	default:
		if err := network.Try(); err != nil {
			f.State, f.Detail = Bad, "the kernel refuses a rule of Services: "+firstLine(err.Error())
			f.Remedy = "load what it lacks: modprobe -a nft_chain_nat nft_fib_ipv4 nft_masq nft_nat nft_numgen nft_reject_ipv4"
		}
	}
	return f
}

func forwarding() Finding {
	f := Finding{Name: "forwarding", State: OK, Detail: "the agent may switch it on"}
	if err := unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK); err != nil {
		f.State, f.Detail, f.Remedy = Bad, "/proc/sys/net/ipv4/ip_forward can't be written", "give the agent a writable /proc/sys: pods reach nothing otherwise"
	}
	return f
}

// pids is the controller that the fencer shuts pods with.
func pids() Finding {
	f := Finding{Name: "pids", State: OK, Detail: "the number of a pod's processes can be limited"}
	_, v1 := os.Stat("/sys/fs/cgroup/pids")
	v2, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if v1 != nil && !strings.Contains(string(v2), "pids") {
		f.State, f.Detail = Warn, "the kernel has no pids controller: the fencer freezes what it can't forbid to begin"
		f.Remedy = "use a kernel with CONFIG_CGROUP_PIDS"
	}
	return f
}

func disk(data string) Finding {
	f := Finding{Name: "disk", State: OK}
	at := data
	for at != "/" && at != "." {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		at = filepath.Dir(at)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(at, &s); err != nil {
		f.State, f.Detail, f.Remedy = Bad, fmt.Sprintf("%s: %v", at, err), "choose another directory: --data DIR"
		return f
	}
	free := s.Bavail * uint64(s.Bsize) //nolint:gosec // a block's size
	f.Detail = fmt.Sprintf("%d MiB free at %s", free>>20, at)
	switch {
	case free < diskLeast || s.Files > 0 && s.Ffree == 0:
		f.State = Bad
	case free < diskGood || s.Files > 0 && s.Ffree < s.Files/20:
		f.State = Warn
	}
	f.Remedy = "make room there, or choose another directory: --data DIR"
	return f
}

func resolver() Finding {
	f := Finding{Name: "dns", State: OK}
	raw, err := os.ReadFile("/etc/resolv.conf")
	var names []string
	for line := range strings.Lines(string(raw)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "nameserver" {
			names = append(names, w[1])
		}
	}
	if err != nil || len(names) == 0 {
		f.State, f.Detail, f.Remedy = Warn, "/etc/resolv.conf names no server", "write `nameserver ADDRESS` into it: pods resolve names outside the cluster through it"
		return f
	}
	f.Detail = "names outside the cluster go to " + strings.Join(names, ", ")
	return f
}

// staUnsync says that nothing keeps the clock right (adjtimex(2)).
const staUnsync = 0x40

func clock() Finding {
	f := Finding{Name: "clock", State: OK, Detail: "kept right from outside"}
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil || t.Status&staUnsync != 0 {
		f.State, f.Detail = Warn, "nothing keeps the clock right; leases don't need it, times in logs and certificates do"
		f.Remedy = "run a time service: apt-get install systemd-timesyncd (Debian, Ubuntu)"
	}
	return f
}

func unitPath() Finding {
	f := Finding{Name: "systemd", State: OK, Detail: "`tandem agent install` can make a unit"}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		f.State, f.Detail, f.Remedy = Warn, "does not run here", "start the agent by another supervisor: tandem agent install --print shows what it should do"
	}
	return f
}
