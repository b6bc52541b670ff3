package fencer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/cgroup"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// A yard is a control group of a test, and what runs in it.
type yard struct {
	*groups

	t   *testing.T
	uid state.UID
}

func newYard(t *testing.T, root string) *yard {
	hosttest.Need(t, hosttest.Root)
	y := &yard{groups: groupsAt(root, fmt.Sprintf("/tandem-fencer-%d-%s", os.Getpid(), filepath.Base(root))), t: t, uid: state.UID{7}}
	t.Cleanup(func() {
		if _, err := y.Shut(y.uid); err != nil {
			t.Error(err)
		}
		for _, h := range y.hierarchies() {
			for _, dir := range []string{y.uid.String() + "/main", y.uid.String(), ""} {
				path := filepath.Join(h, y.prefix, dir)
				for end := time.Now().Add(patience); errors.Is(unix.Rmdir(path), unix.EBUSY) && time.Now().Before(end); {
				}
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("left behind: %s", path)
				}
			}
		}
	})
	return y
}

// run starts a shell in the container's groups, and hands over what it says.
func (y *yard) run(script string) *bufio.Reader {
	y.t.Helper()
	cmd := exec.CommandContext(y.t.Context(), "/bin/sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		y.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		y.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for _, top := range y.pod(y.uid).Dirs() {
		dir := filepath.Join(top, "main")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			y.t.Fatal(err)
		}
		if err := cgroup.Put(dir, "cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil && !strings.Contains(dir, "cpuset") && !errors.Is(err, unix.ESRCH) { // it may be killed by now
			y.t.Fatal(err)
		}
	}
	if _, err := io.WriteString(in, "go\n"); err != nil && !errors.Is(err, unix.EPIPE) {
		y.t.Fatal(err)
	}
	return bufio.NewReader(out)
}

func said(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestGroups kills what ignores every signal and goes on forking, lets nothing
// begin after that, and leaves nothing: on control groups of both versions.
func TestGroups(t *testing.T) {
	for _, root := range []string{groupRoot, groupRoot + "/unified"} {
		t.Run(filepath.Base(root), func(t *testing.T) {
			y := newYard(t, root)
			if root != groupRoot {
				if !y.unified {
					hosttest.Lacks(t, "this test needs control groups of version 2 beside those of version 1")
				}
			}
			out := y.run(`trap 'echo asked' TERM; echo begun; while :; do sleep 0.1 & wait $!; (trap '' TERM; sleep 100) & done`)
			if got := said(t, out); got != "begun" {
				t.Fatalf("it said %q", got)
			}
			if err := y.Term(y.uid); err != nil {
				t.Fatal(err)
			}
			if got := said(t, out); got != "asked" {
				t.Errorf("asked to end, it said %q", got)
			}
			killed, err := y.Shut(y.uid)
			if err != nil || killed == 0 {
				t.Fatalf("killed %d: %v", killed, err)
			}
			if left := y.pod(y.uid).Processes(); len(left) > 0 {
				t.Errorf("%d processes are left", len(left))
			}
			late := make(chan string, 1)
			go func() {
				line, _ := y.run(`(echo forked); echo over`).ReadString('\n')
				late <- line
			}()
			// It comes in whenever it does; then it is killed, or can't go on and ends.
			for gone, end := false, time.Now().Add(10*time.Second); !gone; {
				killed, err := y.Shut(y.uid)
				if err != nil || time.Now().After(end) {
					t.Fatalf("a late one: killed %d: %v", killed, err)
				}
				select {
				case line := <-late:
					if strings.Contains(line, "forked") {
						t.Error("a container began in a shut cell")
					}
					gone = true
				case <-time.After(shutPause): // it isn't there yet, or is frozen
				}
			}
			if _, err := y.Shut(y.uid); err != nil {
				t.Error(err)
			}
			if err := y.Open(y.uid); err != nil {
				t.Fatal(err)
			}
			if got := said(t, y.run(`(echo forked)`)); got != "forked" {
				t.Errorf("in an open cell it said %q", got)
			}
			if err := y.Drop(y.uid); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestShutBefore shuts a cell of which nothing is there yet, and leaves nothing.
func TestShutBefore(t *testing.T) {
	y := newYard(t, groupRoot)
	if n, err := y.Shut(y.uid); n != 0 || err != nil {
		t.Fatalf("killed %d: %v", n, err)
	}
	if _, err := os.Stat(y.limits(y.uid)); err != nil {
		t.Error("nothing forbids a container to begin")
	}
	if err := y.Drop(y.uid); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(y.limits(y.uid)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its group is left: %v", err)
	}
}
