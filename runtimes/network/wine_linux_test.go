package network_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// TestUnderWine runs this package's Windows tests on a machine under Wine.
func TestUnderWine(t *testing.T) {
	if missing := hcstest.Missing(); len(missing) > 0 {
		hosttest.Lacks(t, "not installed: apt-get install "+strings.Join(missing, " "))
	}
	m, err := hcstest.Open(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("the machine: %v", err)
		}
	})
	exe := filepath.Join(t.TempDir(), "network.test.exe")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests for Windows: %v\n%s", err, out)
	}
	out, err := m.Command(t.Context(), exe, "-test.v", "-test.timeout=2m").CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPolicies") {
		t.Errorf("the tests under Wine: %v", err)
	}
}
