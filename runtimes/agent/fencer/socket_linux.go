package fencer

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

func socketPath(dir string) string { return filepath.Join(dir, "fence.sock") }

func listen(dir string) (net.Listener, error) {
	if err := os.Remove(socketPath(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return (&net.ListenConfig{}).Listen(context.Background(), "unix", socketPath(dir))
}

// dial reaches the fencer of a directory, and says which process it is.
func dial(ctx context.Context, dir string) (net.Conn, int, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return nil, 0, err
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || got != nil { //nolint:gosec // a descriptor
		return nil, 0, errors.Join(err, got, conn.Close())
	}
	return conn, int(cred.Pid), nil
}

// detached lets the fencer outlive the agent, and a Ctrl-C at its terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// end ends the fencer's process: asked to, or killed.
func end(pid int, kill bool) error {
	sig := unix.SIGTERM
	if kill {
		sig = unix.SIGKILL
	}
	return signal(pid, sig)
}

func gone(pid int) bool { return cgroup.Dead(pid) }
