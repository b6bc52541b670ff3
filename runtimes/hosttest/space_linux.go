package hosttest

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Space is a network namespace of a test: it goes with its last handle and
// process, however the test ends.
type Space struct{ file *os.File }

// NewSpace makes one; its loopback device is up.
func NewSpace() (*Space, error) {
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		result <- made{f, err}
	}()
	m := <-result
	if m.err != nil {
		return nil, m.err
	}
	s := &Space{m.file}
	err := s.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return s, nil
}

// Do runs f on a thread within the namespace; what it opens or starts stays
// there.
func (s *Space) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Setns(s.Fd(), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// Fd is a handle of the namespace.
func (s *Space) Fd() int { return int(s.file.Fd()) }

// Path leads to the namespace, within this process.
func (s *Space) Path() string { return fmt.Sprintf("/proc/self/fd/%d", s.Fd()) }

// Close gives up the handle.
func (s *Space) Close() error { return s.file.Close() }
