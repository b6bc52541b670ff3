package containerd_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes"
)

// stuckLimit is how long the node may take to get over something that hangs.
const stuckLimit = 60 * time.Second

// shim is the process that serves this node's only pod.
func (n *node) shim(t *testing.T) int {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(raw), "containerd-shim-runc") && strings.Contains(string(raw), n.runDir()+"/") {
			pid, err := strconv.Atoi(strings.Split(file, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no shim of this node was found")
	return 0
}

func (n *node) openWithin(t *testing.T, limit time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
		case <-time.After(limit):
			panic("the node is not taken over after " + limit.String())
		}
	}()
	n.open(t)
	close(done)
}

func (n *node) close(t *testing.T) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.Runtime = nil
}

// A shim that hangs doesn't hang the node: its container ends, and the pod can
// be removed.
func TestStuckShim(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	n.run(t, n.container(n.pod(t, 1), "main", forever))
	n.close(t)
	if err := syscall.Kill(n.shim(t), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.openWithin(t, stuckLimit)
	n.until(t, "the container ended", func(o runtimes.Observation) bool {
		c, ok := find(o, uid(1), "main")
		return !ok || !c.Running
	})
	n.untilCount(t, 0)
	n.run(t, n.again(n.container(uid(1), "main", forever)))
}

// again is the next attempt of a container.
func (n *node) again(c runtimes.Container) runtimes.Container {
	c.Attempt++
	return c
}

// A shim that hangs while the node runs doesn't keep its pod for ever.
func TestStuckShimOfRunning(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	n.run(t, n.container(n.pod(t, 1), "main", forever))
	if err := syscall.Kill(n.shim(t), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), stuckLimit)
	defer cancel()
	if err := n.Remove(ctx, uid(1)); err != nil {
		t.Fatal(err)
	}
	n.untilCount(t, 0)
}

// A containerd that hangs is ended when the node is taken over, and another
// started: what runs goes on.
func TestStuckDaemon(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	n.run(t, n.container(n.pod(t, 1), "main", forever))
	before := n.daemonPid(t)
	n.close(t)
	if err := syscall.Kill(before, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.openWithin(t, stuckLimit)
	if now := n.daemonPid(t); now == before {
		t.Errorf("the daemon that hangs is still used: pid %d", now)
	}
	n.until(t, "the container", func(o runtimes.Observation) bool {
		c, ok := find(o, uid(1), "main")
		return ok && c.Running && c.Attempt == 0
	})
	n.untilCount(t, 1)
}

// groups are the directories of a container's control group, one a hierarchy.
func (n *node) groups(t *testing.T, name string) []string {
	t.Helper()
	tail := filepath.Join("tandem", "test."+filepath.Base(n.runDir()), uid(1).String(), name)
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + tail)
	if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", tail)); err == nil {
		found = append(found, filepath.Join("/sys/fs/cgroup", tail))
	}
	if len(found) == 0 {
		t.Fatalf("no control group %s", tail)
	}
	return found
}

// A process that was left in a control group, frozen as well, is ended: it is
// known to neither a shim nor runc.
func TestStrayProcess(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	n.run(t, n.container(n.pod(t, 1), "main", forever))
	groups := n.groups(t, "main")
	n.close(t)
	stray := exec.Command("/bin/busybox", "sleep", "3600")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = stray.Wait()
		close(ended)
	}()
	t.Cleanup(func() { _ = stray.Process.Kill() })
	for _, dir := range groups {
		dir = filepath.Join(filepath.Dir(dir), "lost")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, cpuset := range []string{"cpuset.cpus", "cpuset.mems"} { // of version 1: none may run before they are set
			if raw, err := os.ReadFile(filepath.Join(filepath.Dir(dir), cpuset)); err == nil && len(raw) > 1 {
				_ = os.WriteFile(filepath.Join(dir, cpuset), raw, 0) // else the next write fails
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(stray.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("FROZEN"), 0) // where there is one
	}
	begin := time.Now()
	n.openWithin(t, stuckLimit)
	select {
	case <-ended:
	case <-time.After(stuckLimit):
		t.Error("the stray process lives on")
	}
	t.Logf("taken over in %s", time.Since(begin))
	n.untilCount(t, 1)
}

// What a kill leaves of an attempt, after the sweep has looked, doesn't fail the
// next try of the same attempt: a container that runc was making, and a shim
// that came up late.
func TestLeftOfAttempt(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	first := n.container(u, "main", forever)
	n.run(t, first)
	_, id, _ := strings.Cut(string(n.cmdline(t, n.shim(t))), "\x00-id\x00")
	id, _, _ = strings.Cut(id, "\x00")
	if err := n.Stop(t.Context(), u, "main", 0); err != nil {
		t.Fatal(err)
	}
	next := strings.TrimSuffix(id, "-0") + "-1"
	for _, dir := range []string{filepath.Join(n.runDir(), "runc", "tandem", next), filepath.Join(n.runDir(), "state", "io.containerd.runtime.v2.task", "tandem", next)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.lateShim(t, next)
	n.run(t, n.again(first))
	n.untilCount(t, 1)
}

func (n *node) cmdline(t *testing.T, pid int) []byte {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// lateShim starts a shim as containerd does.
func (n *node) lateShim(t *testing.T, id string) {
	t.Helper()
	bundle := filepath.Join(n.runDir(), "state", "io.containerd.runtime.v2.task", "tandem", id)
	config := `{"ociVersion":"1.0.2","annotations":{"io.containerd.runc.v2.group":"` + uid(1).String() + `"}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(n.runDir(), "containerd.sock")
	cmd := exec.CommandContext(t.Context(), "containerd-shim-runc-v2", "-namespace", "tandem", "-id", id, "-address", socket, "-publish-binary", "containerd", "start")
	cmd.Dir = bundle
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+socket+".ttrpc", "GRPC_ADDRESS="+socket, "NAMESPACE=tandem")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("start a shim: %v\n%s", err, out)
	}
}
