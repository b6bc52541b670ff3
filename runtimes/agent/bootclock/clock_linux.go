package bootclock

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since the machine was booted.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("CLOCK_BOOTTIME: %v", err)) // it is there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// ID names this boot of the machine.
func ID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// A Timer fires at a time of this clock, also where the machine slept past it.
type Timer struct {
	C    <-chan struct{}
	file *os.File
	all  sync.WaitGroup
}

// NewTimer is a timer that isn't set.
func NewTimer() (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer that goes on in suspend: %w", err)
	}
	c := make(chan struct{}, 1)
	t := &Timer{C: c, file: os.NewFile(uintptr(fd), "timerfd")}
	t.all.Go(func() {
		var b [8]byte
		for {
			if _, err := t.file.Read(b[:]); err != nil {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
	})
	return t, nil
}

// Set makes the timer fire at a time, and no longer at the one before; false:
// not at all.
func (t *Timer) Set(at time.Duration, on bool) error {
	var spec unix.ItimerSpec
	if on {
		spec.Value = unix.NsecToTimespec(max(1, int64(at))) // zero would stop it
	}
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := conn.Control(func(fd uintptr) { set = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil) }); err != nil { //nolint:gosec // a descriptor
		return err
	}
	return set
}

// Close ends the timer.
func (t *Timer) Close() error {
	err := t.file.Close()
	t.all.Wait()
	return err
}
