package fencer

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dogSeconds is how long the machine lives after the last pet: longer than a
// busy machine may keep the fencer waiting.
const dogSeconds = 10

// watchdog is a device that resets the machine when it isn't petted. Kernel
// documentation, watchdog-api: any write pets, 'V' before the close disarms.
type watchdog struct{ f *os.File }

func openWatchdog(path string) (*watchdog, error) {
	if path == "" {
		return &watchdog{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the watchdog: %w", err)
	}
	seconds := int32(dogSeconds)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.WDIOC_SETTIMEOUT, uintptr(unsafe.Pointer(&seconds)))
	if errno != 0 {
		return nil, errors.Join(fmt.Errorf("set the watchdog %s to %d s: %w", path, dogSeconds, errno), f.Close())
	}
	return &watchdog{f: f}, nil
}

func (w *watchdog) pet() {
	if w.f != nil {
		_, _ = w.f.Write([]byte{0}) // if it failed, the machine is reset
	}
}

// close disarms the device where the fencer ends in order.
func (w *watchdog) close(orderly bool) error {
	if w.f == nil {
		return nil
	}
	if orderly {
		_, _ = w.f.WriteString("V") // as above
	}
	return w.f.Close()
}
