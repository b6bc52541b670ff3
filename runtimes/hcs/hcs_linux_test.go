package hcs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
)

const image = "shop.example/prog:1"

// restarts kills the double of the services and starts it again whenever a test
// on the machine makes a file, which it then removes. The file may say how long
// they are to be away.
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
			raw, err := os.ReadFile(wish)
			if err != nil {
				continue
			}
			away, _ := time.ParseDuration(string(raw)) // mostly it says nothing
			err = m.KillBroker()
			select {
			case <-ctx.Done():
			case <-time.After(away):
			}
			if err := errors.Join(err, m.StartBroker(ctx), os.Remove(wish)); err != nil {
				t.Errorf("restart the services: %v", err)
				return
			}
		}
	}()
}

// TestUnderWine runs this package's Windows tests on a machine under Wine.
func TestUnderWine(t *testing.T) {
	m := hcstest.New(t)
	dir := t.TempDir()
	exe := hcstest.BuildTests(t, ".")
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
