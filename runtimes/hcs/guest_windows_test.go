package hcs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/windows/registry"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// bootable gives the image's layer what a guest boots from.
func (n *node) bootable(t *testing.T) {
	t.Helper()
	layers, err := filepath.Glob(filepath.Join(n.dir, "layers", "*.json"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("layers: %v, %v", layers, err)
	}
	for _, l := range layers {
		if err := os.Mkdir(filepath.Join(strings.TrimSuffix(l, ".json"), "UtilityVM"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGuest: a pod in a Hyper-V guest has its endpoint and no namespace, outlives
// its agent, takes commands, holds one container at a time, and leaves nothing.
func TestGuest(t *testing.T) {
	n := newNode(t)
	n.uid[0]++
	s := n.sandbox(n.uid)
	s.Isolation = state.HyperV
	before := left(t)
	made, err := n.Sandbox(t.Context(), s)
	if err != nil || made.IP == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	if now := left(t); now["Endpoints"] != before["Endpoints"]+1 || now["Namespaces"] != before["Namespaces"] {
		t.Errorf("before there were %v, with a guest's pod %v", before, now)
	}
	if err := n.Run(t.Context(), n.container("wait")); !errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), "UtilityVM") {
		t.Errorf("an image without anything to boot: %v", err)
	}
	n.bootable(t)
	if err := n.Run(t.Context(), n.container("say", "begun", "wait")); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.Runtime = open(t, n.dir)
	var out bytes.Buffer
	code, err := n.Exec(t.Context(), n.uid, "main", runtimes.Exec{Command: []string{"/prog", "say", "inside"}, Stdout: &out})
	if code != 0 || err != nil || !strings.Contains(out.String(), "inside") {
		t.Errorf("a command in a guest: %d, %v, %q", code, err, &out)
	}
	second := n.container("wait")
	second.Name = "second"
	if err := n.Run(t.Context(), second); !errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), "holds one") {
		t.Errorf("a second container: %v", err)
	}
	if killed, err := n.cells(t).Shut(n.uid); killed != 1 || err != nil {
		t.Errorf("its fencer killed %d: %v", killed, err)
	}
	if c := n.ended(t); c.ExitCode != aborted {
		t.Errorf("it ended as %+v", c)
	}
	if err := n.cells(t).Drop(n.uid); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context(), second); err != nil { // as after an init container
		t.Errorf("another, when the first has ended: %v", err)
	}
	if err := n.Remove(t.Context(), n.uid); err != nil {
		t.Fatal(err)
	}
	if now := left(t); now["Endpoints"] != before["Endpoints"] || now["systems"]+now["volumes"] > 0 {
		t.Errorf("left: %v", now)
	}
}

// TestIsolationsOfMachine: Hyper-V is offered where it is installed.
func TestIsolationsOfMachine(t *testing.T) {
	n := newNode(t)
	offers := func() []state.Isolation {
		f, err := n.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return f.Isolations
	}
	if got := offers(); !slices.Equal(got, []state.Isolation{state.Process}) {
		t.Errorf("without Hyper-V: %v", got)
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\vmms`, registry.QUERY_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	_ = k.Close()
	t.Cleanup(func() { _ = registry.DeleteKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\vmms`) })
	if got := offers(); !slices.Equal(got, []state.Isolation{state.Process, state.HyperV}) {
		t.Errorf("with Hyper-V: %v", got)
	}
	for _, f := range hcs.Check() {
		if !f.OK {
			t.Errorf("%+v", f)
		}
	}
}
