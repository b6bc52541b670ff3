package audit

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// freeOn is what the disk of a directory has left for this user.
func freeOn(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(free), nil //nolint:gosec // a disk's size
}
