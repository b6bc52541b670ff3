package containerd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// podVariable names a pod in the environment of its first process, so that it is
// found when nobody wrote its number down.
const podVariable = "POD_INIT_OF="

// keepInit sees to it that a shared PID namespace has its first process, which
// takes in orphans and ends with the pod. Killed, it takes the pod's containers
// with it: then there is a new namespace for their next lives. The pod's life is
// held for writing.
func (r *Runtime) keepInit(p *pod) error {
	if !p.record.SharePID || p.initRuns() {
		return nil
	}
	if err := unmount(p.pin("pid")); err != nil {
		return err
	}
	if err := os.WriteFile(p.pin("pid"), nil, 0o600); err != nil {
		return err
	}
	// sleep doesn't wait for the orphans that it is given: the kernel does, when
	// their end is ignored. That survives exec.
	cmd := exec.Command("/bin/sh", "-c", "trap '' CHLD; exec sleep infinity") //nolint:noctx // it outlives whoever asked for it
	cmd.Env = []string{"PATH=/usr/bin:/bin", podVariable + r.id + "/" + p.record.UID.String()}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the pod's first process: %w", err)
	}
	pid := cmd.Process.Pid
	r.work.Go(func() {
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }() // it is killed: its end says nothing
		select {
		case <-ended:
		case <-r.life.Done(): // the next process's init waits for it
		}
	})
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/pid", pid), p.pin("pid"), "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("pin the pid namespace: %w", err), cmd.Process.Kill())
	}
	r.mu.Lock()
	p.record.Init = pid
	r.mu.Unlock()
	return p.save()
}

// initRuns says whether the process of the record is the pinned namespace's.
func (p *pod) initRuns() bool {
	if p.record.Init == 0 {
		return false
	}
	var pinned, its unix.Stat_t
	return unix.Stat(p.pin("pid"), &pinned) == nil && unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", p.record.Init), &its) == nil &&
		pinned.Ino == its.Ino && pinned.Dev == its.Dev && !zombie(p.record.Init)
}

func zombie(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// initWait is how long the kernel may take to end a namespace's first process.
const initWait = 5 * time.Second

// endInit ends the first process of a pod's PID namespace, whether its number
// was written down or not.
func (r *Runtime) endInit(p *pod) error {
	if !p.record.SharePID {
		return nil
	}
	mine := podVariable + r.id + "/" + p.record.UID.String()
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return err
	}
	for _, name := range found {
		raw, err := os.ReadFile(name)
		if err != nil || !strings.Contains("\x00"+string(raw), "\x00"+mine+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(name, "/")[2])
		if err != nil {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the pod's first process: %w", err)
		}
		for limit := time.Now().Add(initWait); !zombie(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				return fmt.Errorf("the pod's first process %d does not end", pid)
			}
		}
	}
	return nil
}
