package bootclock

import (
	"time"

	"golang.org/x/sys/windows"
)

// Now is the time since the machine was booted.
func Now() time.Duration { return windows.DurationSinceBoot() }

// ID is the minute of the boot: Windows has no ID for it. The wall clock may be
// set between two calls; then what runs is observed to run.
func ID() (string, error) {
	booted := time.Now().Add(-windows.DurationSinceBoot())
	return "boot-" + booted.UTC().Round(time.Minute).Format("20060102T1504"), nil
}
