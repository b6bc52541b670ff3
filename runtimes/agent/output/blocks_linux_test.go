package output

import (
	"strings"
	"syscall"
	"testing"
)

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

func TestGivesBackBlocks(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Kubernetes())
	for range 4 {
		write(t, dir, Stdout, strings.Repeat("twenty letters here.\n", 60_000))
		take(t, l, 1)
	}
	path, _ := RawPaths(dir)
	if used := blocks(t, path); used > 2<<20 {
		t.Errorf("the raw file takes %d bytes of the disk", used)
	}
}
