package worker_test

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// parent is whose worker this process is: a worker can't ask any more.
var parent = os.Getppid()

// systemCalls are what code that a text got to run could try on other processes.
func systemCalls() map[string]func() error {
	call := func(number uintptr, args ...uintptr) func() error {
		return func() error {
			args := append(args, 0, 0, 0, 0)
			pid, _, failed := syscall.RawSyscall6(number, args[0], args[1], args[2], args[3], 0, 0)
			if failed == 0 && number == unix.SYS_CLONE && pid == 0 {
				_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) // the child
			}
			if failed == 0 {
				return nil
			}
			return failed
		}
	}
	other := uintptr(parent)
	return map[string]func() error{
		"fork":              call(unix.SYS_CLONE, uintptr(unix.SIGCHLD)),
		"kill":              call(unix.SYS_KILL, other),
		"kill a thread":     call(unix.SYS_TKILL, other),
		"kill a group's":    call(unix.SYS_TGKILL, other, other),
		"limit":             call(unix.SYS_PRLIMIT64, other, unix.RLIMIT_CORE),
		"lead signals away": call(unix.SYS_FCNTL, 0, unix.F_SETOWN, other),
		"fork, newer": func() error {
			// Unknown, not forbidden: a C library that hears so begins its threads otherwise.
			if err := call(unix.SYS_CLONE3, 0, 0)(); !errors.Is(err, unix.ENOSYS) {
				return fmt.Errorf("got %w, want it to be unknown", err)
			}
			return unix.EPERM // as good as
		},
		"trace": call(unix.SYS_PTRACE, unix.PTRACE_ATTACH, other),
	}
}
