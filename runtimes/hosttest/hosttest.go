// Package hosttest is what tests of real parts have in common: what they need of
// the machine, network namespaces of their own, and one account of what a node
// has on a machine, taken before and after.
//
//	tests ──need──► [ hosttest: machine, before ─► after ] ──► what was left
//
// Tests run beside each other on one machine: only what bears a node's marks is
// its own. It is imported by tests alone.
package hosttest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Root is needed by a test that changes the machine.
const Root = "root"

// Need skips the test where the machine lacks something, and fails it where
// TANDEM_REQUIRE=all: Root, or a program in PATH.
func Need(t testing.TB, things ...string) {
	t.Helper()
	for _, thing := range things {
		if thing == Root {
			if os.Geteuid() > 0 {
				Lacks(t, "this test needs root")
			}
			continue
		}
		if _, err := exec.LookPath(thing); err != nil {
			Lacks(t, "this test needs "+thing+", which is not installed")
		}
	}
}

// Lacks skips the test because of what this machine lacks, and fails it where
// TANDEM_REQUIRE=all.
func Lacks(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("TANDEM_REQUIRE") == "all" {
		t.Fatalf("%s (TANDEM_REQUIRE=all)", why)
	}
	t.Skip(why)
}

// Soak is a test's full count with TANDEM_SOAK=1, and its sample otherwise.
func Soak(sample, full int) int {
	if os.Getenv("TANDEM_SOAK") == "1" {
		return full
	}
	return sample
}

// ID is how a node that keeps its things in a directory marks what it has
// elsewhere on the machine.
func ID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:4])
}

// More is what the second account has and the first hasn't.
func More(before, after []string) []string {
	left := slices.Clone(before)
	var more []string
	for _, thing := range after {
		if i := slices.Index(left, thing); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		more = append(more, thing)
	}
	return more
}

// Files lists what lies below directories.
func Files(dirs ...string) []string {
	var found []string
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error { // what goes meanwhile is none
			if err == nil && path != dir {
				found = append(found, "file "+path)
			}
			return nil
		})
	}
	return found
}
