package fencer

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile lets one fencer of a node live.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // it says nothing more
		return nil, fmt.Errorf("another fencer has %s: %w", path, err)
	}
	return f, nil
}
