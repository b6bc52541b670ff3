//go:build !linux && !windows

package bootclock

import (
	"errors"
	"time"
)

// Now is the wall clock: no node runs here.
func Now() time.Duration { return time.Duration(time.Now().UnixNano()) }

// ID refuses: no node runs here.
func ID() (string, error) { return "", errors.ErrUnsupported }
