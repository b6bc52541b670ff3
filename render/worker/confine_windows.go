package worker

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// confine holds this process to its limits for good, by a job object: so much
// memory, and no other process. Windows has no filter of system calls for a
// process that already runs: that a render opens no file and dials nobody is
// here by what the code does, not by the kernel.
func confine(l Limits) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return fmt.Errorf("make a job object: %w", err)
	}
	limit := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{ProcessMemoryLimit: uintptr(l.Memory) + slack}
	limit.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_PROCESS_MEMORY | windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS |
		windows.JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	limit.BasicLimitInformation.ActiveProcessLimit = 1
	if _, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&limit)), uint32(unsafe.Sizeof(limit))); err != nil { //nolint:gosec // that is how Windows takes it
		return fmt.Errorf("limit the job object: %w", err)
	}
	if err := windows.AssignProcessToJobObject(job, windows.CurrentProcess()); err != nil {
		return fmt.Errorf("enter the job object: %w", err)
	}
	return nil // the handle stays open for as long as the process is
}

// slack is the data that is no heap.
const slack = 256 << 20

func processorTime() (time.Duration, error) {
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user); err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	const tick = 100 * time.Nanosecond
	sum := func(t windows.Filetime) time.Duration {
		return time.Duration(int64(t.HighDateTime)<<32|int64(t.LowDateTime)) * tick
	}
	return sum(kernel) + sum(user), nil
}

func program() (string, error) { return os.Executable() }

// prepare sets what a worker's process begins with.
func prepare(cmd *exec.Cmd) {
	// An interrupt at the console is the controller's.
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}

// byKill is never known: Windows kills no process for want of memory, it refuses
// the memory, which is what the process says last.
func byKill(error) bool { return false }
