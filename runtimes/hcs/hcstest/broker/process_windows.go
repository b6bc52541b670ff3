package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A process is a real one, of Wine's.
type process struct {
	pid      uint32
	handle   windows.Handle
	ready    windows.Handle // an event that programs of Go set; zero: of a former broker
	exited   bool           // under broker.mu
	code     uint32
	audience audience
}

type parameters struct {
	ApplicationName, CommandLine, User, WorkingDirectory string

	Environment                                         map[string]string
	EmulateConsole                                      bool
	CreateStdInPipe, CreateStdOutPipe, CreateStdErrPipe bool
	ConsoleSize                                         []int32
}

func (b *broker) onProcess(do func(processRef, *operation, *request)) handler {
	return func(r *request) (uint32, []any) {
		b.mu.Lock()
		ref, isProcess := b.handles[r.number(0)].(processRef)
		b.mu.Unlock()
		o := b.operation(r.number(1))
		if !isProcess || o == nil {
			return invalidHandle, nil
		}
		go do(ref, o, r)
		return ok, nil
	}
}

func (b *broker) processCalls() map[string]handler {
	return map[string]handler{
		"HcsCreateProcess":        b.createProcess,
		"HcsOpenProcess":          b.openProcess,
		"HcsCloseProcess":         b.closeHandle,
		"HcsTerminateProcess":     b.onProcess(b.terminateProcess),
		"HcsGetProcessProperties": b.onProcess(b.processProperties),
		"HcsModifyProcess":        b.onProcess(func(_ processRef, o *operation, _ *request) { o.finish(ok, "") }),
	}
}

func (b *broker) createProcess(r *request) (uint32, []any) {
	b.mu.Lock()
	ref, isSystem := b.handles[r.number(0)].(systemRef)
	b.mu.Unlock()
	o := b.operation(r.number(2))
	if !isSystem || o == nil {
		return invalidHandle, nil
	}
	var p parameters
	if err := json.Unmarshal([]byte(r.text(1)), &p); err != nil {
		return invalidJSON, nil
	}
	made, info, hr := b.run(ref.system, &p, r.pid)
	if hr != ok {
		o.finish(hr, "")
		return ok, []any{uint64(0)}
	}
	o.finish(ok, "", info...)
	b.mu.Lock()
	defer b.mu.Unlock()
	return ok, []any{b.handle(processRef{made, ref.system, make(chan struct{})})}
}

// openProcess finds one that runs; one that has ended is gone.
func (b *broker) openProcess(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ref, isSystem := b.handles[r.number(0)].(systemRef)
	if !isSystem {
		return invalidHandle, nil
	}
	p := ref.processes[uint32(r.number(1))]
	if p == nil || p.exited {
		return elementNotFound, nil
	}
	return ok, []any{b.handle(processRef{p, ref.system, make(chan struct{})})}
}

func (b *broker) terminateProcess(p processRef, o *operation, _ *request) {
	b.mu.Lock()
	over := p.exited
	b.mu.Unlock()
	if over {
		o.finish(processStopped, "")
		return
	}
	_ = windows.TerminateProcess(p.handle, processAborted) // it may end by itself meanwhile
	o.finish(ok, "")
}

func (b *broker) processProperties(p processRef, o *operation, _ *request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, err := json.Marshal(map[string]any{"ProcessId": p.pid, "Exited": p.exited, "ExitCode": p.code, "LastWaitResult": 0})
	if err != nil {
		o.finish(invalidJSON, "")
		return
	}
	o.finish(ok, string(raw))
}

// run starts a process in a system and gives the caller its ends of the pipes.
func (b *broker) run(s *system, p *parameters, caller uint32) (*process, []uint64, uint32) {
	b.mu.Lock()
	k := b.kept.Systems[s.id]
	running := k != nil && k.State == "Running" && !s.stopping
	files := b.roots(s)
	own := b.own(s)
	b.mu.Unlock()
	if !running {
		return nil, nil, invalidState
	}
	program := find(files, s, p)
	if program == "" {
		return nil, nil, fileNotFound
	}
	pipes, err := newPipes(p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: pipes:", err)
		return nil, nil, notSupported
	}
	defer pipes.closeChild()
	b.spawn.Lock()
	pi, err := spawn(program, p, own, directory(files, s, p.WorkingDirectory), pipes)
	for range 3 { // Wine fails so about once in a thousand starts
		if !errors.Is(err, windows.ERROR_INTERNAL_ERROR) {
			break
		}
		fmt.Fprintf(os.Stderr, "broker: start %s again: %v\n", program, err)
		pi, err = spawn(program, p, own, directory(files, s, p.WorkingDirectory), pipes)
	}
	b.spawn.Unlock()
	if err != nil {
		pipes.closeOwn()
		fmt.Fprintf(os.Stderr, "broker: start %s: %v\n", program, err) // every failed start is told
		return nil, nil, 0x80070000 | uint32(errno(err))
	}
	defer closeAll([3]windows.Handle{pi.Thread})
	if err := windows.AssignProcessToJobObject(s.job, pi.Process); err != nil {
		fmt.Fprintln(os.Stderr, "broker: job:", err)
	}
	hold(s.job, pi.Process)
	info, err := pipes.give(caller)
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: hand pipes over:", err)
	}
	made := &process{pid: pi.ProcessId, handle: pi.Process, ready: readyEvent(pi.ProcessId)}
	b.mu.Lock()
	s.processes[made.pid] = made
	k.Processes[made.pid] = &keptProcess{Created: created(pi.Process)}
	b.save()
	b.mu.Unlock()
	go b.follow(s, made)
	if _, err := windows.ResumeThread(pi.Thread); err != nil {
		fmt.Fprintln(os.Stderr, "broker: resume:", err)
	}
	return made, append([]uint64{uint64(made.pid)}, info...), ok
}

// readyEvent is what c/mend.c looks for.
func readyEvent(pid uint32) windows.Handle {
	name, err := windows.UTF16PtrFromString(fmt.Sprintf("hcstest-ready-%d", pid))
	if err != nil {
		return 0
	}
	h, err := windows.CreateEvent(nil, 1, 0, name)
	if err != nil {
		return 0
	}
	return h
}

func errno(err error) syscall.Errno {
	if e, is := err.(syscall.Errno); is { //nolint:errorlint // of a system call, as it came
		return e
	}
	return windows.ERROR_GEN_FAILURE
}

// follow waits for a process's end and tells.
func (b *broker) follow(s *system, p *process) {
	var code uint32
	_, err := windows.WaitForSingleObject(p.handle, windows.INFINITE)
	if err == nil {
		err = windows.GetExitCodeProcess(p.handle, &code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: wait for", p.pid, err) // nothing is known, so it isn't called ended
		return
	}
	b.mu.Lock()
	p.exited, p.code = true, code
	if p.ready != 0 {
		_ = windows.SetEvent(p.ready) // nobody waits for it any more
	}
	if k := b.kept.Systems[s.id]; k != nil && k.Processes[p.pid] != nil {
		k.Processes[p.pid].Exited, k.Processes[p.pid].ExitCode = true, code
		b.save()
	}
	b.mu.Unlock()
	p.audience.tell(event{eventProcessExited, fmt.Sprintf(`{"ProcessId":%d,"Exited":true,"ExitCode":%d,"LastWaitResult":0}`, p.pid, code)})
	b.settle(s)
}

// adopt finds the processes of a system that a former broker started.
func (b *broker) adopt(id string, k *keptSystem) error {
	d, err := parse(string(k.Document))
	if err != nil {
		return err
	}
	job, err := newJob(id)
	if err != nil {
		return err
	}
	s := &system{id: id, document: d, job: job, processes: map[uint32]*process{}, stopped: make(chan struct{})}
	b.systems[id] = s
	for pid, kp := range k.Processes {
		p := &process{pid: pid, exited: kp.Exited, code: kp.ExitCode}
		s.processes[pid] = p
		if p.exited {
			continue
		}
		h, err := windows.OpenProcess(windows.PROCESS_ALL_ACCESS|windows.SYNCHRONIZE, false, pid) // x/sys' "all" can't be waited for
		if err != nil || created(h) != kp.Created {
			p.exited, p.code, kp.Exited, kp.ExitCode = true, processAborted, true, processAborted
			continue
		}
		p.handle = h
		_ = windows.AssignProcessToJobObject(job, h) // it is there already, where the job has kept its name
		go b.follow(s, p)
	}
	return nil
}

func created(h windows.Handle) int64 {
	var c, e, k, u windows.Filetime
	if err := windows.GetProcessTimes(h, &c, &e, &k, &u); err != nil {
		return 0
	}
	return c.Nanoseconds()
}

// readyTimeout, in milliseconds, is for programs that never say that they run.
const readyTimeout = 15000

// ask sends CTRL_SHUTDOWN_EVENT as the console does: by running its routine in a
// new thread of the process. Libraries of the system lie at the same address in
// every process.
func (p *process) ask() error {
	if p.ready != 0 {
		_, _ = windows.WaitForSingleObject(p.ready, readyTimeout)
	}
	routine := windows.NewLazySystemDLL("kernelbase.dll").NewProc("CtrlRoutine")
	thread := windows.NewLazySystemDLL("kernel32.dll").NewProc("CreateRemoteThread")
	if err := routine.Find(); err != nil {
		return err
	}
	const shutdown = 6 // CTRL_SHUTDOWN_EVENT
	h, _, err := thread.Call(uintptr(p.handle), 0, 0, routine.Addr(), shutdown, 0, 0)
	if h == 0 {
		return err
	}
	return windows.CloseHandle(windows.Handle(h))
}

// roots are where a system's files lie: scratch first, then layers.
func (b *broker) roots(s *system) []string {
	dirs := []string{b.kept.Volumes[s.document.Container.Storage.Path]}
	if s.document.SchemaVersion.Major == 1 {
		dirs[0] = s.document.folder
	}
	for _, l := range s.document.Container.Storage.Layers {
		dirs = append(dirs, l.Path)
	}
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], "Files")
	}
	return dirs
}

// inside is where a path of the container lies on this machine.
func inside(files []string, s *system, path string) []string {
	path = strings.ReplaceAll(path, "/", `\`)
	if len(path) > 1 && path[1] == ':' {
		path = path[2:]
	}
	var found []string
	for _, m := range s.document.Container.MappedDirectories {
		target := m.ContainerPath
		if len(target) > 1 && target[1] == ':' {
			target = target[2:]
		}
		if len(path) >= len(target) && strings.EqualFold(path[:len(target)], target) {
			found = append(found, filepath.Join(m.HostPath, path[len(target):]))
		}
	}
	for _, dir := range files {
		found = append(found, filepath.Join(dir, path))
	}
	return found
}

// find looks for the program in the container, then in Wine, which stands for
// the layers of Windows itself.
func find(files []string, s *system, p *parameters) string {
	name := p.ApplicationName
	if name == "" {
		if args, err := windows.DecomposeCommandLine(p.CommandLine); err == nil && len(args) > 0 {
			name = args[0]
		}
	}
	var tried []string
	if strings.ContainsAny(name, `\/`) {
		tried = inside(files, s, name)
	} else {
		for _, dir := range append([]string{p.WorkingDirectory}, strings.Split(p.Environment["PATH"], ";")...) {
			tried = append(tried, inside(files, s, filepath.Join(dir, name))...)
		}
		tried = append(tried, `C:\windows\system32\`+name)
	}
	for _, path := range tried {
		for _, suffix := range []string{"", ".exe"} {
			if st, err := os.Stat(path + suffix); err == nil && !st.IsDir() {
				return path + suffix
			}
		}
	}
	return ""
}

func directory(files []string, s *system, path string) string {
	for _, dir := range inside(files, s, path) {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
	}
	return files[0]
}

var pipeNumber atomic.Uint64 //nolint:gochecknoglobals // names of pipes are the machine's

// pipes are the standard streams of a process: its own ends and the caller's.
type pipes struct{ child, own [3]windows.Handle }

func newPipes(p *parameters) (*pipes, error) {
	out := &pipes{}
	for i, wanted := range []bool{p.CreateStdInPipe, p.CreateStdOutPipe, p.CreateStdErrPipe} {
		if !wanted {
			continue
		}
		name, err := windows.UTF16PtrFromString(fmt.Sprintf(`\\.\pipe\hcstest-%d-%d`, os.Getpid(), pipeNumber.Add(1)))
		if err != nil {
			return nil, err
		}
		mode, access := uint32(windows.PIPE_ACCESS_INBOUND), uint32(windows.GENERIC_WRITE)
		if i == 0 {
			mode, access = windows.PIPE_ACCESS_OUTBOUND, windows.GENERIC_READ
		}
		const size = 64 << 10
		out.own[i], err = windows.CreateNamedPipe(name, mode|windows.FILE_FLAG_OVERLAPPED, windows.PIPE_TYPE_BYTE, 1, size, size, 0, nil)
		if err == nil {
			out.child[i], err = windows.CreateFile(name, access, 0, nil, windows.OPEN_EXISTING, 0, 0)
		}
		if err != nil {
			out.closeChild()
			out.closeOwn()
			return nil, err
		}
	}
	return out, nil
}

func closeAll(handles [3]windows.Handle) {
	for _, h := range handles {
		if h != 0 && h != windows.InvalidHandle {
			_ = windows.CloseHandle(h)
		}
	}
}

func (p *pipes) closeChild() { closeAll(p.child) }
func (p *pipes) closeOwn()   { closeAll(p.own) }

// give moves the caller's ends into its process.
func (p *pipes) give(caller uint32) ([]uint64, error) {
	defer p.closeOwn()
	to, err := windows.OpenProcess(windows.PROCESS_DUP_HANDLE, false, caller)
	if err != nil {
		return nil, err
	}
	defer closeAll([3]windows.Handle{to})
	given := make([]uint64, 3)
	for i, h := range p.own {
		if h == 0 {
			continue
		}
		var there windows.Handle
		if err := windows.DuplicateHandle(windows.CurrentProcess(), h, to, &there, 0, false, windows.DUPLICATE_SAME_ACCESS); err != nil {
			return nil, err
		}
		given[i] = uint64(there)
	}
	return given, nil
}

// spawn starts a suspended process. Wine's own variables stand for those that
// Windows' layers bring.
func spawn(program string, p *parameters, own map[string]string, dir string, pipes *pipes) (windows.ProcessInformation, error) {
	env := map[string]string{
		"SystemRoot": `C:\windows`, "SystemDrive": "C:", "PATH": `C:\windows\system32;C:\windows`, "TEMP": `C:\windows\temp`,
		"USERNAME": "ContainerAdministrator", "COMPUTERNAME": "HCSTEST",
	}
	maps.Copy(env, own)
	for _, name := range []string{"TANDEM_WINE_MEND"} {
		if v := os.Getenv(name); v != "" {
			env[name] = v
		}
	}
	for name, v := range p.Environment {
		for old := range env {
			if strings.EqualFold(old, name) {
				delete(env, old)
			}
		}
		env[name] = v
	}
	var block []uint16
	for _, name := range slices.Sorted(maps.Keys(env)) {
		block = append(block, utf16.Encode([]rune(name+"="+env[name]))...)
		block = append(block, 0)
	}
	block = append(block, 0)
	var pi windows.ProcessInformation
	app, err := windows.UTF16PtrFromString(program)
	if err != nil {
		return pi, err
	}
	line, err := windows.UTF16PtrFromString(p.CommandLine)
	if err != nil {
		return pi, err
	}
	cwd, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return pi, err
	}
	si := windows.StartupInfo{Flags: windows.STARTF_USESTDHANDLES}
	si.Cb = uint32(unsafe.Sizeof(si))
	for i, to := range []*windows.Handle{&si.StdInput, &si.StdOutput, &si.StdErr} {
		h := pipes.child[i]
		if h == 0 {
			if h, err = nothing(); err != nil {
				return pi, err
			}
			defer closeAll([3]windows.Handle{h}) //nolint:gocritic // three at most, all until the process has begun
		}
		if err := windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
			return pi, err
		}
		*to = h
	}
	const flags = windows.CREATE_SUSPENDED | windows.CREATE_UNICODE_ENVIRONMENT | windows.DETACHED_PROCESS
	err = windows.CreateProcess(app, line, nil, nil, true, flags, &block[0], cwd, &si, &pi)
	return pi, err
}

func nothing() (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString("NUL")
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
}
