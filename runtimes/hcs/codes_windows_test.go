package hcs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

const goesOn = 0x80370103 // HCS_E_OPERATION_PENDING, no failure of a call

// A step is a call of the double that an op of ours makes. Those that are late
// fail through their operation as well.
type step struct {
	op, call string
	late     bool
}

// left counts what the services have.
func left(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	if err := json.Unmarshal([]byte(ask(t, "test.left")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// each breaks a call with every code that is known there, and hands over what is
// to be heard of it.
func (s step) each(t *testing.T, try func(t *testing.T, known hcs.Known)) {
	t.Helper()
	for _, known := range hcs.KnownAt(s.op) {
		for _, late := range []bool{false, true} {
			if late && !s.late || !late && s.late && known.Code == goesOn {
				continue
			}
			name := fmt.Sprintf("%s/0x%08x", s.call, known.Code)
			if late {
				name += "/late"
			}
			t.Run(name, func(t *testing.T) {
				faults(t, map[string]any{"call": s.call, "hresult": known.Code, "times": 1, "late": late})
				try(t, known)
			})
		}
	}
}

// wants holds an error to what is said of its code.
func wants(t *testing.T, err error, op string, known hcs.Known) {
	t.Helper()
	if !errors.Is(err, known.Class) {
		t.Errorf("%v isn't %v", err, known.Class)
		return
	}
	for _, want := range []string{op + ": " + known.Text, known.Remedy, fmt.Sprintf("0x%08x", known.Code)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

// TestCodesOfAStart: each code at each call that starts a container is named with
// its class and remedy, and nothing is left; the next start works.
func TestCodesOfAStart(t *testing.T) {
	n := newNode(t)
	before := left(t)
	for _, s := range []step{
		{"make the writable layer", "CreateSandboxLayer", false},
		{"activate the writable layer", "ActivateLayer", false},
		{"prepare the writable layer", "PrepareLayer", false},
		{"mount the writable layer", "GetLayerMountPath", false},
		{"make the writable layer", "NameToGuid", false},
		{"create the container", "HcsCreateComputeSystem", true},
		{"start the container", "HcsStartComputeSystem", true},
		{"start the process", "HcsCreateProcess", true},
	} {
		s.each(t, func(t *testing.T, known hcs.Known) {
			wants(t, n.Run(t.Context(), n.container("wait")), s.op, known)
			if now := left(t); !maps.Equal(before, now) {
				t.Errorf("before there were %v, now there are %v", before, now)
			}
		})
	}
	if err := n.Run(t.Context(), n.container("exit", "4")); err != nil {
		t.Fatalf("after all: %v", err)
	}
	if c := n.ended(t); c.ExitCode != 4 {
		t.Errorf("it ended as %+v", c)
	}
}

// TestCodesOfASandbox: likewise for a pod's network.
func TestCodesOfASandbox(t *testing.T) {
	n := newNode(t)
	before := left(t)
	uid := n.uid
	uid[0]++
	for _, s := range []step{
		{"find the network", "HcnEnumerateNetworks", false},
		{"make the network namespace", "HcnCreateNamespace", false},
		{"make the endpoint", "HcnCreateEndpoint", false},
		{"attach the endpoint", "HcnModifyNamespace", false},
	} {
		s.each(t, func(t *testing.T, known hcs.Known) {
			_, err := n.Sandbox(t.Context(), n.sandbox(uid))
			wants(t, err, s.op, known)
			if now := left(t); !maps.Equal(before, now) {
				t.Errorf("before there were %v, now there are %v", before, now)
			}
		})
	}
	if _, err := n.Sandbox(t.Context(), n.sandbox(uid)); err != nil {
		t.Fatalf("after all: %v", err)
	}
	for _, s := range []step{
		{"remove the endpoint", "HcnDeleteEndpoint", false}, {"remove the network namespace", "HcnDeleteNamespace", false},
	} {
		s.each(t, func(t *testing.T, known hcs.Known) {
			if err := n.Remove(t.Context(), uid); err != nil { // gone is gone
				wants(t, err, s.op, known)
				if err := n.Remove(t.Context(), uid); err != nil {
					t.Errorf("remove it again: %v", err)
				}
			}
			if _, err := n.Sandbox(t.Context(), n.sandbox(uid)); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := n.Remove(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if now := left(t); !maps.Equal(before, now) {
		t.Errorf("before there were %v, now there are %v", before, now)
	}
}

// TestCodesOfARunning: a container that runs is told of by what can be found out;
// no code at a command, a look or a question to end is taken for its end.
func TestCodesOfARunning(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("wait")); err != nil {
		t.Fatal(err)
	}
	n.until(t, "*.exit.waiting") // its keeper opens it too
	for _, s := range []step{{"open the container", "HcsOpenComputeSystem", false}, {"start the command", "HcsCreateProcess", true}} {
		s.each(t, func(t *testing.T, known hcs.Known) {
			_, err := n.Exec(t.Context(), n.uid, "main", runtimes.Exec{Command: []string{"/prog", "exit", "0"}})
			wants(t, err, s.op, known)
		})
	}
	o, err := n.Observe(t.Context(), 0)
	if err != nil || len(o.Containers) != 1 || !o.Containers[0].Running {
		t.Fatalf("after all: %+v, %v", o.Containers, err)
	}
	var out bytes.Buffer
	code, err := n.Exec(t.Context(), n.uid, "main", runtimes.Exec{Command: []string{"/prog", "say", "inside"}, Stdout: &out})
	if code != 0 || err != nil || !strings.Contains(out.String(), "inside") {
		t.Errorf("a command after all: %d, %v, %q", code, err, &out)
	}
}

// TestCodesOfAnEnd: whatever Windows answers to being told to end a container, it
// is named, the container isn't called ended, and the next try ends it.
func TestCodesOfAnEnd(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("wait")); err != nil {
		t.Fatal(err)
	}
	s := step{"terminate the container", "HcsTerminateComputeSystem", true}
	s.each(t, func(t *testing.T, known hcs.Known) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if errors.Is(known.Class, runtimes.ErrNotFound) { // what is said to be gone is waited for
			ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			if err := n.Stop(ctx, n.uid, "main", 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it was stopped: %v", err)
			}
		} else {
			wants(t, n.Stop(ctx, n.uid, "main", 0), s.op, known)
		}
		if o, err := n.Observe(t.Context(), 0); err != nil || len(o.Containers) != 1 || !o.Containers[0].Running {
			t.Fatalf("it is called ended: %+v, %v", o.Containers, err)
		}
	})
	if err := n.Stop(t.Context(), n.uid, "main", 0); err != nil {
		t.Errorf("stop it after all: %v", err)
	}
	if got := n.ended(t); got.ExitCode != aborted || got.Error != "" {
		t.Errorf("it ended as %+v", got)
	}
}
