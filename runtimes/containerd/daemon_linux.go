package containerd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	daemonReady   = 30 * time.Second // until a started daemon must answer
	daemonStop    = 10 * time.Second // between SIGTERM and SIGKILL
	daemonLogSize = 16 << 20         // its log is emptied above this when it starts
)

// A daemon is one process of containerd: our child, or one that an earlier
// process of ours left running.
type daemon struct {
	pid    int
	since  time.Time
	exited chan struct{}
}

// daemonConfig boots 1.6 and 2.x alike. The old io.containerd.runtime.v1.linux
// stays: without it the tasks service of 1.6 does not load.
const daemonConfig = `version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri",
]
[grpc]
  address = %q
[timeouts]
  "io.containerd.timeout.task.state" = "5s"
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "10s"
`

func (r *Runtime) socket() string {
	if r.o.Socket != "" {
		return r.o.Socket
	}
	return filepath.Join(r.run, "containerd.sock")
}

func (r *Runtime) stateDir() string   { return filepath.Join(r.run, "state") }
func (r *Runtime) rootDir() string    { return filepath.Join(r.o.Dir, "containerd") }
func (r *Runtime) configPath() string { return filepath.Join(r.run, "containerd.toml") }

// startDaemon adopts the daemon that runs on our socket or starts one. Two on
// one root would block each other for ever, so it looks first.
func (r *Runtime) startDaemon(ctx context.Context) (*daemon, error) {
	if d := r.adopt(ctx); d != nil {
		return d, nil
	}
	if err := os.MkdirAll(r.rootDir(), 0o711); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	config := fmt.Sprintf(daemonConfig, r.rootDir(), r.stateDir(), r.socket())
	if err := os.WriteFile(r.configPath(), []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	logPath := filepath.Join(r.o.Dir, "containerd.log")
	flags := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if info, err := os.Stat(logPath); err == nil && info.Size() > daemonLogSize {
		flags |= os.O_TRUNC
	}
	logFile, err := os.OpenFile(logPath, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	defer logFile.Close()
	// Not CommandContext: it must outlive us, and a Ctrl-C at the terminal.
	cmd := exec.Command(r.binary, "--config", r.configPath(), "--log-level", "warn") //nolint:noctx // outlives us on purpose
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start containerd: %w: %w", runtimes.ErrUnavailable, err)
	}
	d := &daemon{pid: cmd.Process.Pid, since: time.Now(), exited: make(chan struct{})}
	go func() { // ends with the child
		_ = cmd.Wait() // how it ended is in its log
		close(d.exited)
	}()
	r.logger.LogAttrs(ctx, slog.LevelInfo, "started containerd", slog.Int("pid", d.pid), slog.String("socket", r.socket()))
	return d, nil
}

// adopt finds the daemon that an earlier process of ours started; nil when it
// has ended.
func (r *Runtime) adopt(ctx context.Context) *daemon {
	pid := r.daemonPid()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	// The descriptor is held before the check, so the number can't pass to
	// another process in between.
	if r.daemonPid() != pid {
		_ = unix.Close(fd)
		return nil
	}
	d := &daemon{pid: pid, since: time.Now(), exited: make(chan struct{})}
	go func() { // ends with the daemon
		defer close(d.exited)
		defer unix.Close(fd)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	r.logger.LogAttrs(ctx, slog.LevelInfo, "adopted containerd", slog.Int("pid", pid))
	return d
}

// daemonPid finds the daemon by its command line, which names our own
// configuration; 0 when there is none. A file with its number could be missing
// when we were killed just after starting it.
func (r *Runtime) daemonPid() int {
	for pid, args := range processes() {
		if len(args) > 2 && args[1] == "--config" && args[2] == r.configPath() {
			return pid
		}
	}
	return 0
}

// processes yields the command lines of all processes.
func processes() iter.Seq2[int, []string] {
	return func(yield func(int, []string) bool) {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			raw, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if err != nil || len(raw) == 0 {
				continue
			}
			if !yield(pid, strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")) {
				return
			}
		}
	}
}

// stop ends the daemon; pods' processes are not its children and stay.
func (d *daemon) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(d.pid, sig); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		select {
		case <-d.exited:
			return nil
		case <-time.After(daemonStop):
		}
	}
	return fmt.Errorf("containerd (pid %d) does not end", d.pid)
}

// answer waits until the socket accepts a connection. The gRPC client backs
// off a second after a refusal, so it is dialled only then.
func (r *Runtime) answer(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, daemonReady)
	defer cancel()
	var exited chan struct{}
	if d != nil {
		exited = d.exited
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", r.socket())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("%w: containerd ended at once; see %s", runtimes.ErrUnavailable, filepath.Join(r.o.Dir, "containerd.log"))
		case <-ctx.Done():
			return fmt.Errorf("%w: containerd does not answer on %s: %w", runtimes.ErrUnavailable, r.socket(), err)
		case <-tick.C:
		}
	}
}

func parentOf(pid int) int {
	fields, err := stat(pid)
	if err != nil {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// stat is /proc/PID/stat from the state on: [0] state, [1] parent, [19] start.
func stat(pid int) ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// kill ends a daemon that does not answer.
func (d *daemon) kill() error {
	if err := syscall.Kill(d.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill containerd: %w", err)
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(daemonStop):
		return fmt.Errorf("containerd (pid %d) was killed but does not end within %s", d.pid, daemonStop)
	}
}
