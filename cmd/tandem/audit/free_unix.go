//go:build unix

package audit

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// freeOn is what the disk of a directory has left for this user.
func freeOn(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:gosec,unconvert // a disk's size; the types differ by system
}
