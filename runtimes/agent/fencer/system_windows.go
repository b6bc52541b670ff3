package fencer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// Windows has no socket whose other end the kernel names, so the fencer listens
// on the loopback and writes a key into a file of the node's directory, which others can't
// read: who can't show it is hung up on.

const (
	place     = "fence.json"
	keyWait   = 2 * time.Second
	workingMB = 32 << 20 // kept in memory, whatever else wants it
)

type whereabouts struct {
	Address string   `json:"address"`
	Key     [32]byte `json:"key"`
	PID     int      `json:"pid"`
	Created int64    `json:"created"` // that process: its number is another's by and by
}

// errNoFencer says that the file is of one that has ended.
var errNoFencer = errors.New("the fencer has ended")

// created is when a process began; it tells it from another of the same number.
func created(process windows.Handle) (int64, error) {
	var c, e, k, u windows.Filetime
	if err := windows.GetProcessTimes(process, &c, &e, &k, &u); err != nil {
		return 0, err
	}
	return c.Nanoseconds(), nil
}

// lives says whether the process of a file is still there.
func (w *whereabouts) lives() bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(w.PID)) //nolint:gosec // a process's number
	if err != nil {
		return false
	}
	defer windows.CloseHandle(h) //nolint:errcheck // nothing is written through it
	at, err := created(h)
	if err != nil || at != w.Created {
		return false
	}
	e, err := windows.WaitForSingleObject(h, 0)
	return err == nil && e == uint32(windows.WAIT_TIMEOUT)
}

type keyed struct {
	net.Listener

	key [32]byte
}

func listen(dir string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := whereabouts{Address: l.Addr().String(), PID: os.Getpid()}
	_, _ = rand.Read(w.Key[:]) // it doesn't fail
	var b []byte
	if w.Created, err = created(windows.CurrentProcess()); err == nil {
		b, err = json.Marshal(w)
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, place), b, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &keyed{l, w.Key}, nil
}

// Accept hands over callers that know the key.
func (l *keyed) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var key [32]byte
		err = conn.SetReadDeadline(time.Now().Add(keyWait))
		if err == nil {
			_, err = io.ReadFull(conn, key[:])
		}
		if err == nil && subtle.ConstantTimeCompare(key[:], l.key[:]) == 1 && conn.SetReadDeadline(time.Time{}) == nil {
			return conn, nil
		}
		_ = conn.Close() // it isn't the agent
	}
}

func dial(ctx context.Context, dir string) (net.Conn, int, error) {
	b, err := os.ReadFile(filepath.Join(dir, place))
	if err != nil {
		return nil, 0, err
	}
	var w whereabouts
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, 0, err
	}
	if !w.lives() { // neither dialled nor, since it doesn't answer, ended
		return nil, 0, errNoFencer
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return nil, 0, err
	}
	if _, err := conn.Write(w.Key[:]); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return conn, w.PID, nil
}

// detached takes the fencer out of the agent's job and console.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_BREAKAWAY_FROM_JOB | windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}

// end ends the fencer's process. Windows can't ask one that has no window.
func end(pid int, _ bool) error {
	h, err := windows.OpenProcess(windows.PROCESS_TERMINATE, false, uint32(pid)) //nolint:gosec // a process's number
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	return errors.Join(windows.TerminateProcess(h, 1), windows.CloseHandle(h))
}

func gone(pid int) bool {
	h, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(pid)) //nolint:gosec // as above
	if err != nil {
		return true
	}
	e, err := windows.WaitForSingleObject(h, 0)
	_ = windows.CloseHandle(h) // nothing is written through it
	return err == nil && e == windows.WAIT_OBJECT_0
}

// settle puts the process into a job object of its own, first in line for the
// processor, with a part of its memory that is never paged out. The job's handle
// lives as long as the process.
func settle(string, *slog.Logger) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return fmt.Errorf("make the fencer's job object: %w", err)
	}
	limit := windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_PRIORITY_CLASS, PriorityClass: windows.HIGH_PRIORITY_CLASS}
	_, err = windows.SetInformationJobObject(job, windows.JobObjectBasicLimitInformation, uintptr(unsafe.Pointer(&limit)), uint32(unsafe.Sizeof(limit)))
	if err != nil {
		return fmt.Errorf("keep the fencer first in line: %w", err)
	}
	if err := windows.AssignProcessToJobObject(job, windows.CurrentProcess()); err != nil {
		return fmt.Errorf("put the fencer into a job object of its own: %w", err)
	}
	if err := windows.SetPriorityClass(windows.CurrentProcess(), windows.HIGH_PRIORITY_CLASS); err != nil {
		return fmt.Errorf("put the fencer first in line: %w", err)
	}
	const hardMin = 1 // QUOTA_LIMITS_HARDWS_MIN_ENABLE
	if err := windows.SetProcessWorkingSetSizeEx(windows.CurrentProcess(), workingMB, 4*workingMB, hardMin); err != nil {
		return fmt.Errorf("keep the fencer in memory: %w", err)
	}
	return nil
}

func removeOwn(string) {}

// lockFile lets one fencer of a node live: nobody else may open the file.
func lockFile(path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, nil, windows.OPEN_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, fmt.Errorf("another fencer has %s: %w", path, err)
	}
	return os.NewFile(uintptr(h), path), nil
}

func system(string) (Cells, error) {
	return nil, errors.New("the fencer of a Windows node is given its compute systems by the program that starts it")
}
