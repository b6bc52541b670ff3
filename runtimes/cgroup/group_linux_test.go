package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/cgroup"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

const patience = 30 * time.Second

// roots are both versions where both are mounted.
func roots() []string {
	out := []string{cgroup.Root}
	if unified := filepath.Join(cgroup.Root, "unified"); cgroup.Unified(unified) {
		out = append(out, unified)
	}
	return out
}

// newGroup makes a group of the test in every hierarchy, with groups in it.
func newGroup(t *testing.T, root string, inner ...string) cgroup.Group {
	t.Helper()
	g := cgroup.At(root, fmt.Sprintf("/tandem-cgroup-%d", os.Getpid()))
	t.Cleanup(func() {
		if _, err := g.Kill(patience); err != nil {
			t.Error(err)
		}
		if err := g.Remove(patience); err != nil {
			t.Error(err)
		}
		for _, dir := range g.Dirs() {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("left behind: %s", dir)
			}
		}
	})
	for _, dir := range g.Dirs() {
		for _, name := range inner {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return g
}

// run starts a script within a group's directories.
func run(t *testing.T, g cgroup.Group, inner, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // it is killed, and not left as a zombie
	joined := 0
	for _, dir := range g.Dirs() { // cpuset takes nobody before it is told processors
		if cgroup.Put(filepath.Join(dir, inner), "cgroup.procs", strconv.Itoa(cmd.Process.Pid)) == nil {
			joined++
		}
	}
	if joined == 0 {
		t.Fatal("no control group takes a process")
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
}

// What ignores signals and forks as fast as it can is ended, wherever it is.
func TestKill(t *testing.T) {
	hosttest.Need(t, hosttest.Root)
	for _, root := range roots() {
		t.Run(filepath.Base(root), func(t *testing.T) {
			g := newGroup(t, root, "pod/main", "pod/side")
			for _, inner := range []string{"pod/main", "pod/side"} {
				run(t, g, inner, `trap '' TERM INT; while :; do (trap '' TERM; sleep 100) & sleep 0.01; done`)
			}
			for end := time.Now().Add(patience); len(g.Processes()) < 6; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it does not fork")
				}
			}
			killed, err := g.Kill(patience)
			if err != nil || killed < 3 {
				t.Errorf("killed %d: %v", killed, err)
			}
			if left := g.Processes(); len(left) > 0 {
				t.Errorf("left are %v", left)
			}
			if killed, err := g.Kill(0); killed != 0 || err != nil {
				t.Errorf("of an empty one it killed %d: %v", killed, err)
			}
		})
	}
}

// What somebody froze, in a group within, is ended too.
func TestKillFrozen(t *testing.T) {
	hosttest.Need(t, hosttest.Root)
	for _, root := range roots() {
		t.Run(filepath.Base(root), func(t *testing.T) {
			g := newGroup(t, root, "pod/main")
			run(t, g, "pod/main", "sleep 100; sleep 100")
			frozen := false
			for _, dir := range g.Dirs() {
				inner := filepath.Join(dir, "pod", "main")
				frozen = cgroup.Put(inner, "freezer.state", "FROZEN") == nil || cgroup.Put(inner, "cgroup.freeze", "1") == nil || frozen
			}
			if !frozen {
				t.Fatal("no control group freezes")
			}
			if killed, err := g.Kill(patience); killed == 0 || err != nil {
				t.Errorf("killed %d: %v", killed, err)
			}
		})
	}
}

// A group that isn't empty isn't removed, and the failure names it.
func TestRemove(t *testing.T) {
	hosttest.Need(t, hosttest.Root)
	for _, root := range roots() {
		t.Run(filepath.Base(root), func(t *testing.T) {
			g := newGroup(t, root, "pod/main")
			run(t, g, "pod/main", "sleep 100; sleep 100")
			if err := g.Remove(10 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "/pod/main") {
				t.Errorf("removed with a process in it: %v", err)
			}
			g.RemoveEmpty()
			if len(g.Processes()) == 0 {
				t.Error("the process is gone")
			}
		})
	}
}
