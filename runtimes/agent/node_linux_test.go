package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

func TestTmpfsIsMountedOnceAndLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secret")
	if err := makeDir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := mountTmpfs(dir, 1<<20, 0o755)
	if errors.Is(err, runtimes.ErrUnsupported) {
		hosttest.Lacks(t, "not allowed to mount: run as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmountTmpfs(dir) })
	if err := mountTmpfs(dir, 1<<20, 0o755); err != nil {
		t.Errorf("mounted again: %v", err)
	}
	if err := swap(dir, map[string]file{"key": {data: []byte("s3"), mode: 0o600}}); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := unmountTmpfs(dir); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("after the unmount: %v %v", left, err) // a second mount would be below, the secret on the disk
	}
}
