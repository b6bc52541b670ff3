package hosttest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// Each kind of thing that a node may leave is noticed, and wiped.
func TestWhatIsLeftIsNoticed(t *testing.T) {
	hosttest.Need(t, hosttest.Root, "nft", "sleep")
	space, err := hosttest.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	dir := t.TempDir()
	id := hosttest.ID(dir)
	n := hosttest.Node{Marks: []string{dir, id}, Daemon: dir + "/sock", Pods: []string{"some-uid"}}
	if err := space.Do(func() error { return look(t.Context(), n, nil) }); err != nil {
		t.Fatal(err)
	}

	group := "/sys/fs/cgroup/tandem/w." + id
	if _, err := os.Stat("/sys/fs/cgroup/pids"); err == nil {
		group = "/sys/fs/cgroup/pids/tandem/w." + id
	}
	err = space.Do(func() error {
		defer n.Wipe(context.WithoutCancel(t.Context()))
		if err := leave(t.Context(), dir, id, group); err != nil {
			return err
		}
		want := []string{"cgroup " + group, "cgroup " + group + "/pod", "directory /run/tandem/" + id, "link td" + id + ".1", "mount " + dir + "/mount", "nft table ip tandem-" + id, "process "}
		return look(t.Context(), n, want)
	})
	if err != nil {
		t.Error(err)
	}
	if err := space.Do(func() error { return look(t.Context(), n, nil) }); err != nil {
		t.Errorf("after it was wiped: %v", err)
	}
}

// leave makes one of each kind.
func leave(ctx context.Context, dir, id, group string) error {
	for _, d := range []string{dir + "/mount", group + "/pod", "/run/tandem/" + id} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", dir+"/mount", "tmpfs", 0, "size=64k"); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "td" + id + ".1"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, "nft", "add", "table", "ip", "tandem-"+id).Run(); err != nil {
		return err
	}
	// Only its control group says whose it is.
	sleeper := exec.CommandContext(ctx, "sleep", "600")
	if err := sleeper.Start(); err != nil {
		return err
	}
	go func() { _ = sleeper.Wait() }() // it is killed
	return os.WriteFile(filepath.Join(group, "pod", "cgroup.procs"), []byte(strconv.Itoa(sleeper.Process.Pid)), 0)
}

// look wants a line that begins with each text, and no other.
func look(ctx context.Context, n hosttest.Node, want []string) error {
	var have []string
	var err error
	if len(want) == 0 {
		have, err = n.Left(ctx, nil)
	} else {
		have, err = n.Things(ctx)
	}
	if err != nil {
		return err
	}
	begins := func(a, b string) bool { return strings.HasPrefix(a, b) }
	if !slices.EqualFunc(have, want, begins) {
		return fmt.Errorf("found\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

func TestMore(t *testing.T) {
	before := []string{"link lo", "mount a", "mount a"}
	if more := hosttest.More(before, []string{"mount a", "link lo"}); len(more) > 0 {
		t.Errorf("less is %v more", more)
	}
	if more := hosttest.More(before, []string{"mount a", "mount a", "mount a", "link b", "link lo"}); !slices.Equal(more, []string{"mount a", "link b"}) {
		t.Errorf("more is %v", more)
	}
}

// What a namespace has is told: its links, a node's routes and the connections.
func TestNetwork(t *testing.T) {
	hosttest.Need(t, hosttest.Root, "nft")
	space, err := hosttest.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	err = space.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		_, dst, _ := net.ParseCIDR("10.99.0.0/24")
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Protocol: 0x54}); err != nil {
			return err
		}
		have, err := hosttest.Network(t.Context())
		if want := []string{"link lo", "route 10.99.0.0/24"}; err == nil && !slices.Equal(have, want) {
			err = fmt.Errorf("found %v, want %v", have, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
