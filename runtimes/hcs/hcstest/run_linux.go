package hcstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// Need skips a test on a machine that can't be a Windows machine, unless
// TANDEM_REQUIRE forbids that.
func Need(t *testing.T) {
	t.Helper()
	if missing := Missing(); len(missing) > 0 {
		hosttest.Lacks(t, "not installed: apt-get install "+strings.Join(missing, " "))
	}
}

// New is a machine that the test's end takes away.
func New(t *testing.T) *Machine {
	t.Helper()
	Need(t)
	m, err := Open(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("the Windows machine: %v", err)
		}
	})
	return m
}

// BuildTests builds the tests of a package for Windows.
func BuildTests(t *testing.T, pkg string) (exe string) {
	t.Helper()
	exe = filepath.Join(t.TempDir(), "tests.test.exe")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", exe, pkg)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s for Windows: %v\n%s", pkg, err, out)
	}
	return exe
}

// Run runs the tests of a package on a Windows machine under Wine. Those that are
// named must be among the ones that pass.
func Run(t *testing.T, pkg string, names ...string) {
	t.Helper()
	m := New(t)
	out, err := m.Command(t.Context(), BuildTests(t, pkg), "-test.v", "-test.timeout=2m").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("the tests under Wine: %v", err)
	}
	for _, name := range names {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s didn't pass under Wine", name)
		}
	}
}
