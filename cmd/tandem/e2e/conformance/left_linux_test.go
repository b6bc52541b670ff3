package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// left is what an ended cluster has left on this machine: processes, mounts,
// control groups, network links, routes and rules.
func (c *cluster) left() []string {
	var found []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.dir) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range commands {
		raw, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(raw), c.dir) && name != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			found = append(found, "process "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	for _, m := range c.machines {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/tandem/" + m.name + ".*")
		unified, _ := filepath.Glob("/sys/fs/cgroup/tandem/" + m.name + ".*")
		for _, g := range append(groups, unified...) {
			found = append(found, "cgroup "+g)
		}
		if m.space == nil {
			continue
		}
		err := m.do(func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				if n := l.Attrs().Name; n != "lo" && n != "up0" {
					found = append(found, m.name+": link "+n)
				}
			}
			if err != nil {
				return err
			}
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			for _, r := range routes {
				if r.Protocol == 0x54 {
					found = append(found, fmt.Sprintf("%s: route %s", m.name, r.Dst))
				}
			}
			if err != nil {
				return err
			}
			cmd := exec.Command("nft", "list", "tables")
			out, err := cmd.CombinedOutput()
			if strings.TrimSpace(string(out)) != "" {
				found = append(found, m.name+": nft "+string(out))
			}
			return err
		})
		if err != nil {
			found = append(found, m.name+": "+err.Error())
		}
	}
	return found
}

// tell shows what the processes had to say, for whoever looks into a failure.
func (c *cluster) tell(t *testing.T) {
	dir := os.Getenv("TANDEM_TEST_KEEP")
	if dir == "" {
		if c.control != nil {
			t.Logf("the controller said:\n%s", c.control.out)
		}
		return
	}
	_ = os.MkdirAll(dir, 0o755)
	_ = os.WriteFile(filepath.Join(dir, "controller.log"), []byte(c.control.out.String()), 0o644)
	for _, m := range c.machines {
		if m.agent != nil {
			_ = os.WriteFile(filepath.Join(dir, m.name+".log"), []byte(m.agent.out.String()), 0o644)
		}
	}
}
