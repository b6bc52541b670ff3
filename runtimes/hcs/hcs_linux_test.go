package hcs_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
)

const image = "shop.example/prog:1"

// need skips where Wine is truly absent, unless TANDEM_REQUIRE forbids.
func need(t *testing.T) {
	t.Helper()
	missing := hcstest.Missing()
	if len(missing) == 0 {
		return
	}
	hosttest.Lacks(t, "not installed: apt-get install "+strings.Join(missing, " "))
}

// machine is a Windows machine that the test's end takes away.
func machine(t *testing.T) *hcstest.Machine {
	t.Helper()
	need(t)
	m, err := hcstest.Open(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("the machine: %v", err)
		}
	})
	return m
}

// restarts kills the double of the services and starts it again whenever a test
// on the machine makes a file, which it then removes.
func restarts(t *testing.T, m *hcstest.Machine, wish string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := os.Stat(wish); err != nil {
				continue
			}
			if err := errors.Join(m.KillBroker(), m.StartBroker(ctx), os.Remove(wish)); err != nil {
				t.Errorf("restart the services: %v", err)
				return
			}
		}
	}()
}

// TestUnderWine runs this package's Windows tests on a machine under Wine.
func TestUnderWine(t *testing.T) {
	m := machine(t)
	dir := t.TempDir()
	exe := filepath.Join(dir, "hcs.test.exe")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests for Windows: %v\n%s", err, out)
	}
	prog, err := os.ReadFile(runtimetest.Build(t, "windows"))
	if err != nil {
		t.Fatal(err)
	}
	layouts := filepath.Join(dir, "images")
	if _, err := images.Write(layouts, images.Spec{Name: image, Variants: []images.Variant{{
		OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.2113", Entrypoint: []string{"/prog"}, Env: []string{"FROM=image"},
		Files: []images.File{{Path: "prog.exe", Mode: 0o755, Data: prog}},
	}}}); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v", "-test.timeout=5m"}
	if run := os.Getenv("HCSTEST_RUN"); run != "" {
		args = append(args, "-test.run="+run)
	}
	cmd := m.Command(t.Context(), exe, args...)
	wish := filepath.Join(dir, "restart")
	cmd.Env = append(cmd.Env, "HCSTEST_IMAGES="+m.Path(layouts), "HCSTEST_RESTART="+m.Path(wish))
	restarts(t, m, wish)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the tests under Wine: %v", err)
	}
	left, err := m.Left(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
