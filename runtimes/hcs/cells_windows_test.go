package hcs_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// slow makes the next call of a name take long, and then fail.
func slow(t *testing.T, call string) {
	t.Helper()
	faults(t, map[string]any{"call": call, "hresult": uint32(0x800706ba), "times": 1, "delay": int64(5 * time.Second)})
}

func faults(t *testing.T, fault map[string]any) {
	t.Helper()
	raw, err := json.Marshal(fault)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, "test.fault", string(raw))
}

// away crashes the services, which come back after a while.
func away(t *testing.T, d time.Duration) {
	t.Helper()
	if err := os.WriteFile(os.Getenv("HCSTEST_RESTART"), []byte(d.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		port, err := os.ReadFile(`C:\hcstest\port`)
		if err != nil {
			t.Fatal(err)
		}
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+string(port))
		if err != nil {
			return
		}
		_ = c.Close()
		if time.Since(begin) > d {
			t.Fatal("the services don't crash")
		}
	}
}

// cells are a fencer's, which knows the node's directory and nothing else.
func (n *node) cells(t *testing.T) *hcs.Cells {
	t.Helper()
	c, err := hcs.OpenCells(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A pod is asked to end, killed and kept from beginning, through the services and
// past them: where they hang, and where they are gone.
func TestCells(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T)
		code  int32
	}{
		{"services that answer", func(*testing.T) {}, aborted},
		{"services that list and don't terminate", func(t *testing.T) { t.Helper(); slow(t, "HcsTerminateComputeSystem") }, aborted},
		{"services that hang", func(t *testing.T) { t.Helper(); slow(t, "HcsEnumerateComputeSystems") }, aborted},
		{"services that have crashed", func(t *testing.T) { t.Helper(); away(t, 3*time.Second) }, 255}, // nobody saw how
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			cells := n.cells(t)
			if err := n.Run(t.Context(), n.container("wait")); err != nil {
				t.Fatal(err)
			}
			c.spoil(t)
			begin := time.Now()
			killed, err := cells.Shut(n.uid)
			if took := time.Since(begin); err != nil || killed != 1 || took > 4*time.Second {
				t.Fatalf("killed %d in %v: %v", killed, took, err)
			}
			if got := n.ended(t); got.ExitCode != c.code {
				t.Errorf("it ended as %+v", got)
			}
			again := n.container("exit", "3")
			again.Attempt = 1
			if err := n.Run(t.Context(), again); !errors.Is(err, runtimes.ErrUnavailable) || !strings.Contains(err.Error(), "fencer") {
				t.Errorf("a container of a pod that is shut: %v", err)
			}
			if killed, err := cells.Shut(n.uid); err != nil || killed != 0 {
				t.Errorf("shut again: killed %d: %v", killed, err)
			}
			if err := cells.Open(n.uid); err != nil {
				t.Fatal(err)
			}
			if err := n.Run(t.Context(), again); err != nil {
				t.Errorf("a container of a pod that is open again: %v", err)
			}
			if got := n.ended(t); got.ExitCode != 3 {
				t.Errorf("it ended as %+v", got)
			}
		})
	}
}

// Asked to end, a container has its time to, and nobody waits for it.
func TestCellsAsk(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("wait")); err != nil {
		t.Fatal(err)
	}
	if err := n.cells(t).Term(n.uid); err != nil {
		t.Fatal(err)
	}
	if c := n.ended(t); c.ExitCode == aborted {
		t.Errorf("it was killed: %+v", c)
	}
}

// A pod of which nothing was ever started can be shut while the services hang.
func TestCellsOfNothing(t *testing.T) {
	n := newNode(t)
	cells := n.cells(t)
	slow(t, "HcsEnumerateComputeSystems")
	slow(t, "HcsEnumerateComputeSystems")
	for _, uid := range []state.UID{n.uid, {9}} {
		if killed, err := cells.Shut(uid); err != nil || killed != 0 {
			t.Errorf("killed %d of pod %s: %v", killed, uid, err)
		}
		if err := cells.Drop(uid); err != nil {
			t.Error(err)
		}
	}
}

// A start that hangs in the services is given up with its caller, and leaves
// nothing.
func TestStartGivenUp(t *testing.T) {
	n := newNode(t)
	faults(t, map[string]any{"call": "HcsCreateComputeSystem", "times": 1, "delay": int64(3 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := n.Run(ctx, n.container("wait")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := n.Run(t.Context(), n.container("exit", "5"))
		if err == nil {
			break
		}
		if !errors.Is(err, runtimes.ErrUnavailable) || time.Now().After(deadline) { // the one given up may come in between
			t.Fatal(err)
		}
	}
	if c := n.ended(t); c.ExitCode != 5 {
		t.Errorf("it ended as %+v", c)
	}
}
