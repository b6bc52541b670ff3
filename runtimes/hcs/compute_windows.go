package hcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	operationTimeout = 4 * time.Minute // Windows' own is as long
	allAccess        = 0x1fffff        // GENERIC_ALL of a system or process
	eventDisconnect  = 0x02000000      // the compute service went away
)

type (
	// processStatus is what a process came to.
	processStatus struct {
		ProcessID      uint32 `json:"ProcessId"`
		Exited         bool
		ExitCode       uint32
		LastWaitResult int32
	}

	// properties of a compute system.
	properties struct {
		ID      string `json:"Id"`
		Owner   string
		State   string
		Stopped bool
	}
)

// compute is the door to computecore.dll. Events are hints: who hears one asks
// what is true.
type compute struct {
	callback uintptr

	mu      sync.Mutex
	last    uintptr
	hearers map[uintptr]func(kind uint32)
}

// openCompute makes sure that the library and every call we need are there.
func openCompute() (*compute, error) {
	for _, proc := range []*windows.LazyProc{
		procHcsCreateOperation, procHcsCreateComputeSystem, procHcsCreateProcess, procHcsOpenProcess, procHcsSetProcessCallback,
		procHcsSetComputeSystemCallback, procHcsWaitForOperationResultAndProcessInfo, procHcsGetProcessProperties, procHcsModifyProcess,
		procHcsCancelOperation, procHcsCloseOperation, procHcsCloseProcess, procHcsCloseComputeSystem, procHcsEnumerateComputeSystems,
		procHcsGetComputeSystemProperties, procHcsOpenComputeSystem, procHcsShutDownComputeSystem, procHcsStartComputeSystem,
		procHcsTerminateComputeSystem, procHcsTerminateProcess, procHcsWaitForOperationResult,
	} {
		if err := proc.Find(); err != nil {
			return nil, fmt.Errorf("%w: find %s in computecore.dll: %w", runtimes.ErrUnsupported, proc.Name, err)
		}
	}
	c := &compute{hearers: map[uintptr]func(uint32){}}
	// One for each Runtime: a callback is never freed.
	c.callback = windows.NewCallback(func(event *struct{ kind uint32 }, context uintptr) uintptr {
		c.mu.Lock()
		hear := c.hearers[context]
		c.mu.Unlock()
		if hear != nil && event != nil {
			hear(event.kind)
		}
		return 0
	})
	return c, nil
}

// hear gives a listener its number; it must not block.
func (c *compute) hear(f func(kind uint32)) (context uintptr, forget func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	n := c.last
	c.hearers[n] = f
	return n, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.hearers, n)
	}
}

func utf16(s string) (*uint16, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // NULL is what the calls want for nothing
	}
	return windows.UTF16PtrFromString(s)
}

// take copies a result and frees it.
func take(p *uint16) string {
	if p == nil {
		return ""
	}
	defer windows.CoTaskMemFree(unsafe.Pointer(p))
	return windows.UTF16PtrToString(p)
}

// failure makes an Error of an answer; nil when it was a success.
func failure(o op, hr uint32, result string) error {
	if hr < 1<<31 {
		return nil
	}
	var said struct{ ErrorMessage string }
	if result != "" {
		_ = json.Unmarshal([]byte(result), &said) // its text is welcome, not needed
	}
	return &Error{Op: string(o), Code: hr, Text: said.ErrorMessage}
}

// An answer is what an operation came to.
type answer struct {
	hr     uint32
	result string
	info   processInformation
}

// operate begins an operation and waits for it. When ctx ends first, the
// operation is cancelled and what it still comes to is waited for in the
// background: late gets it, so that nothing it made is lost.
func (c *compute) operate(ctx context.Context, o op, begin func(operationHandle) uint32, late func(answer)) (answer, error) {
	return c.operateWith(ctx, o, begin, late, func(h operationHandle, _ *answer, result **uint16) uint32 {
		return hcsWaitForOperationResult(h, uint32(operationTimeout.Milliseconds()), result)
	})
}

// operateProcess is operate for the one operation that answers with a process.
func (c *compute) operateProcess(ctx context.Context, o op, begin func(operationHandle) uint32, late func(answer)) (answer, error) {
	return c.operateWith(ctx, o, begin, late, func(h operationHandle, a *answer, result **uint16) uint32 {
		return hcsWaitForOperationResultAndProcessInfo(h, uint32(operationTimeout.Milliseconds()), &a.info, result)
	})
}

func (c *compute) operateWith(ctx context.Context, o op, begin func(operationHandle) uint32, late func(answer), wait func(operationHandle, *answer, **uint16) uint32) (answer, error) {
	h := hcsCreateOperation(0, 0)
	if h == 0 {
		return answer{}, &Error{Op: string(o), Code: codeServiceUnavailable}
	}
	done := make(chan answer, 1)
	go func() { // also begin hangs where the service does
		var a answer
		var result *uint16
		if hr := begin(h); hr >= 1<<31 && normal(hr) != codePending {
			hcsWaitForOperationResult(h, 0, &result)
			a.hr = hr
		} else {
			a.hr = wait(h, &a, &result)
		}
		a.result = take(result)
		hcsCloseOperation(h)
		done <- a
	}()
	select {
	case a := <-done:
		return a, failure(o, a.hr, a.result)
	case <-ctx.Done():
		hcsCancelOperation(h)
		go func() {
			if a := <-done; late != nil {
				late(a)
			}
		}()
		return answer{}, fmt.Errorf("%s: %w: %w", o, runtimes.ErrUnavailable, context.Cause(ctx))
	}
}

// A system is an open compute system.
type system struct {
	c      *compute
	id     string
	handle systemHandle
	close  func()
}

func (c *compute) newSystem(id string, h systemHandle) *system {
	return &system{c: c, id: id, handle: h, close: sync.OnceFunc(func() { hcsCloseComputeSystem(h) })}
}

// create makes a compute system and starts it. The document is of schema 2, or of
// schema 1 for a guest: the service tells them by their fields.
func (c *compute) create(ctx context.Context, id string, document any) (*system, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	name, err := utf16(id)
	if err != nil {
		return nil, err
	}
	text, err := utf16(string(raw))
	if err != nil {
		return nil, err
	}
	var h systemHandle
	_, err = c.operate(ctx, opCreate, func(on operationHandle) uint32 {
		return hcsCreateComputeSystem(name, text, on, 0, &h)
	}, func(answer) {
		if h == 0 {
			return
		}
		late := c.newSystem(id, h)
		defer late.close()
		ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
		defer cancel()
		_ = late.terminate(ctx) // nobody waits for it; the sweep would find it
	})
	if err != nil {
		return nil, err
	}
	s := c.newSystem(id, h)
	if _, err := c.operate(ctx, opStart, func(on operationHandle) uint32 {
		return hcsStartComputeSystem(h, on, nil)
	}, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open opens a compute system that is there.
func (c *compute) open(id string) (*system, error) {
	name, err := utf16(id)
	if err != nil {
		return nil, err
	}
	var h systemHandle
	if err := failure(opOpen, hcsOpenComputeSystem(name, allAccess, &h), ""); err != nil {
		return nil, err
	}
	return c.newSystem(id, h), nil
}

// list says which of our compute systems exist.
func (c *compute) list(ctx context.Context) ([]properties, error) {
	query, err := utf16(`{"Owners":["` + owner + `"]}`)
	if err != nil {
		return nil, err
	}
	a, err := c.operate(ctx, opList, func(on operationHandle) uint32 {
		return hcsEnumerateComputeSystems(query, on)
	}, nil)
	if err != nil {
		return nil, err
	}
	var found []properties
	if a.result != "" {
		if err := json.Unmarshal([]byte(a.result), &found); err != nil {
			return nil, fmt.Errorf("list containers: %w: %w", runtimes.ErrUnavailable, err)
		}
	}
	return found, nil
}

// shutdown asks the processes to end: each gets CTRL_SHUTDOWN_EVENT.
func (s *system) shutdown(ctx context.Context) error {
	_, err := s.c.operate(ctx, opShutdown, func(on operationHandle) uint32 {
		return hcsShutDownComputeSystem(s.handle, on, nil)
	}, nil)
	return err
}

// terminate kills the processes; a system that has stopped is fine.
func (s *system) terminate(ctx context.Context) error {
	_, err := s.c.operate(ctx, opTerminate, func(on operationHandle) uint32 {
		return hcsTerminateComputeSystem(s.handle, on, nil)
	}, nil)
	if isGone(err) {
		return nil
	}
	return err
}

// A process is an open process of a compute system, with the pipes it was
// created with.
type process struct {
	c           *compute
	pid         uint32
	handle      processHandle
	in          windows.Handle // zero where there is none
	out, errOut windows.Handle
	close       func()
}

func (s *system) newProcess(pid uint32, h processHandle) *process {
	return &process{c: s.c, pid: pid, handle: h, close: sync.OnceFunc(func() { hcsCloseProcess(h) })}
}

// start creates a process in the system: its first, or a command.
func (s *system) start(ctx context.Context, o op, p processParameters) (*process, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	text, err := utf16(string(raw))
	if err != nil {
		return nil, err
	}
	var h processHandle
	a, err := s.c.operateProcess(ctx, o, func(on operationHandle) uint32 {
		return hcsCreateProcess(s.handle, text, on, 0, &h)
	}, func(a answer) {
		closeHandles(a.info.in, a.info.out, a.info.err)
		if h != 0 {
			hcsCloseProcess(h)
		}
	})
	if err != nil {
		return nil, err
	}
	made := s.newProcess(a.info.pid, h)
	made.in, made.out, made.errOut = a.info.in, a.info.out, a.info.err
	return made, nil
}

// openProcess opens a process that is there.
func (s *system) openProcess(pid uint32) (*process, error) {
	var h processHandle
	if err := failure(opOpenProcess, hcsOpenProcess(s.handle, pid, allAccess, &h), ""); err != nil {
		return nil, err
	}
	return s.newProcess(pid, h), nil
}

func (p *process) status(ctx context.Context) (processStatus, error) {
	a, err := p.c.operate(ctx, opAskProcess, func(on operationHandle) uint32 {
		return hcsGetProcessProperties(p.handle, on, nil)
	}, nil)
	if err != nil {
		return processStatus{}, err
	}
	var st processStatus
	if err := json.Unmarshal([]byte(a.result), &st); err != nil {
		return processStatus{}, fmt.Errorf("ask for the process: %w: %w", runtimes.ErrUnavailable, err)
	}
	return st, nil
}

// wait returns when the process has exited, with its code. An error says that it
// can't be known through this handle.
func (p *process) wait(ctx context.Context) (uint32, error) {
	rung := make(chan struct{}, 1)
	listener, forget := p.c.hear(func(uint32) {
		select {
		case rung <- struct{}{}:
		default:
		}
	})
	defer forget()
	if err := failure(opWatch, hcsSetProcessCallback(p.handle, 0, listener, p.c.callback), ""); err != nil {
		return 0, err
	}
	defer hcsSetProcessCallback(p.handle, 0, 0, 0)
	for {
		st, err := p.status(ctx)
		if err != nil {
			return 0, err
		}
		if st.Exited {
			return st.ExitCode, nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// kill ends a process; one that has exited is fine.
func (p *process) kill(ctx context.Context) error {
	_, err := p.c.operate(ctx, opKillProcess, func(on operationHandle) uint32 {
		return hcsTerminateProcess(p.handle, on, nil)
	}, nil)
	if isGone(err) {
		return nil
	}
	return err
}

// modify changes a process: its console's size, or which end of input is shut.
func (p *process) modify(ctx context.Context, settings any) error {
	raw, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	text, err := utf16(string(raw))
	if err != nil {
		return err
	}
	_, err = p.c.operate(ctx, opChange, func(on operationHandle) uint32 {
		return hcsModifyProcess(p.handle, on, text)
	}, nil)
	return err
}

func closeHandles(handles ...windows.Handle) {
	for _, h := range handles {
		if h != 0 && h != windows.InvalidHandle {
			_ = windows.CloseHandle(h) // nothing is lost when it was none
		}
	}
}

// A pipe reads or writes a process's stream and can be closed meanwhile.
type pipe interface {
	Read(b []byte) (int, error)
	Write(b []byte) (int, error)
	Close() error
}

// openPipe takes over a handle that the compute service opened for overlapped
// reading and writing.
func openPipe(h windows.Handle) (pipe, error) {
	f, err := winio.NewOpenFile(h)
	if err != nil {
		closeHandles(h)
		return nil, fmt.Errorf("%w: open a pipe of the container: %w", runtimes.ErrUnavailable, err)
	}
	return f, nil
}

// broken says whether a pipe has ended because nobody is at its other end.
func broken(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA) ||
		errors.Is(err, windows.ERROR_PIPE_NOT_CONNECTED) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, syscall.EPIPE)
}
