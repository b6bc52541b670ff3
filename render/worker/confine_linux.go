package worker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls that a Go program makes while it computes, reads
// and writes what it already has open. Everything else, so also to open a file,
// to make a socket and to run a program, fails with EPERM.
func allowed() []string {
	return []string{
		"brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
		"exit", "exit_group", "futex", "get_robust_list", "gettid", "membarrier", "rseq", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address",
		"arch_prctl", "getpid", "getrandom", "getrusage", "uname",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack",
		"clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "restart_syscall", "setitimer", "timer_create", "timer_delete", "timer_settime",
		"close", "fstat", "lseek", "pread64", "read", "readv", "write", "writev",
		"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "pipe2", "poll", "ppoll",
	}
}

// allowedOnly are those that are allowed with some arguments: they reach other
// processes with others.
func allowedOnly() []seccomp.NameWithConditions {
	only := func(name string, argument uint32, is seccomp.Operation, value uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: is, Value: value}}}
	}
	return []seccomp.NameWithConditions{
		only("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD),        // no process, which no limit would end
		only("tgkill", 0, seccomp.Equal, uint64(unix.Getpid())),     // to its own threads
		only("fcntl", 1, seccomp.LessOrEqual, uint64(unix.F_SETFL)), // flags; not who gets signals
	}
}

// confine holds this process to its limits for good.
func confine(l Limits) error {
	// Several workers may take more than the machine has: then it isn't the
	// controller that ends.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return fmt.Errorf("be the first to end where memory is short: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep other processes from reading this one's memory: %w", err)
	}
	// The kernel's own hold, for a render that allocates between two looks.
	data := uint64(l.Memory) + slack
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: data, Max: data}); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid files: %w", err)
	}
	known, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("find the system calls of this machine: %w", err)
	}
	names := slices.DeleteFunc(allowed(), func(name string) bool { _, ok := known.SyscallNames[name]; return !ok })
	filter := seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
			{Names: names, NamesWithCondtions: allowedOnly(), Action: seccomp.ActionAllow},
			// The C library, where the program is linked with it, begins threads by
			// clone3, whose flags no filter can read, and by clone where that is unknown.
			{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
		}},
	}
	runtime.LockOSThread() // both steps of loading it are this thread's; it is then handed to the others
	defer runtime.UnlockOSThread()
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("forbid system calls (does the kernel have CONFIG_SECCOMP_FILTER?): %w", err)
	}
	return nil
}

// slack is the data that is no heap.
const slack = 256 << 20

func processorTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// byKill says whether a process ended by SIGKILL.
func byKill(ended error) bool {
	exit, ok := errors.AsType[*exec.ExitError](ended)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// program is this program, also when its file was replaced.
func program() (string, error) { return "/proc/self/exe", nil }

// prepare sets what a worker's process begins with.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is the controller's
}
