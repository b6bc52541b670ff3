package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	execDrain = 2 * time.Second // for output after the end: a grandchild may hold it open
	execClear = 10 * time.Second
)

// Exec runs a command in a running container. When ctx ends first, the command
// is killed. Stdout and Stderr are written at once from two goroutines: don't
// give both the same buffer.
func (r *Runtime) Exec(ctx context.Context, uid state.UID, name string, x runtimes.Exec) (int, error) {
	code, err := r.exec(ctx, uid, name, x)
	if err != nil {
		return 0, fmt.Errorf("exec in %s of pod %s: %w", name, uid, classify(err))
	}
	return code, nil
}

func (r *Runtime) exec(ctx context.Context, uid state.UID, name string, x runtimes.Exec) (int, error) {
	if len(x.Command) == 0 {
		return 0, fmt.Errorf("%w: no command is given", runtimes.ErrRejected)
	}
	c := r.container(uid, name)
	if c == nil {
		return 0, fmt.Errorf("%w: no such container runs here", runtimes.ErrNotFound)
	}
	r.mu.Lock()
	id, now := c.record.ID, c.record.Phase
	r.mu.Unlock()
	if now != running {
		return 0, fmt.Errorf("%w: the container does not run", runtimes.ErrNotFound)
	}
	cl, err := r.get(ctx)
	if err != nil {
		return 0, err
	}
	ctx = r.inNamespace(ctx)
	made, err := cl.LoadContainer(ctx, id)
	if err != nil {
		return 0, err
	}
	spec, err := made.Spec(ctx)
	if err != nil {
		return 0, err
	}
	task, err := made.Task(ctx, nil)
	if err != nil {
		return 0, err
	}
	proc := *spec.Process
	proc.Args, proc.Terminal = x.Command, x.TTY
	if x.TTY {
		proc.Env = append(slices.Clip(proc.Env), "TERM=xterm")
	}
	return r.execIn(ctx, task, &proc, x)
}

// execIn runs one process and cleans up after it, whatever ends first.
func (r *Runtime) execIn(ctx context.Context, task client.Task, spec *specs.Process, x runtimes.Exec) (int, error) {
	fifos := filepath.Join(r.run, "exec")
	if err := os.MkdirAll(fifos, 0o700); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(fifos, "x")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	stdin := &endNoted{from: x.Stdin, end: make(chan struct{})}
	opts := []cio.Opt{cio.WithFIFODir(dir), cio.WithStreams(stdin.reader(), orDiscard(x.Stdout), orDiscard(x.Stderr))}
	if x.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	// The process is not bound to ctx: a call cut off half way would leave it.
	calls := context.WithoutCancel(ctx)
	proc, err := task.Exec(calls, filepath.Base(dir), spec, cio.NewCreator(opts...))
	if err != nil {
		return 0, err
	}
	defer r.clearExec(calls, proc)
	exits, err := proc.Wait(calls)
	if err != nil {
		return 0, err
	}
	if err := proc.Start(calls); err != nil {
		return 0, fmt.Errorf("%w: %w", runtimes.ErrRejected, err)
	}
	over := make(chan struct{})
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer close(over)
	helpers.Go(func() { attend(calls, proc, x, stdin, over) })
	select {
	case exit := <-exits:
		if err := exit.Error(); err != nil {
			return 0, fmt.Errorf("%w: lost the command: %w", runtimes.ErrUnavailable, err)
		}
		drain(proc.IO())
		return int(exit.ExitCode()), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", runtimes.ErrUnavailable, context.Cause(ctx))
	case <-r.life.Done():
		return 0, fmt.Errorf("%w: the node is closed", runtimes.ErrUnavailable)
	}
}

// attend passes on the terminal's size and the end of the input.
func attend(ctx context.Context, proc client.Process, x runtimes.Exec, stdin *endNoted, over <-chan struct{}) {
	resize, end := x.Resize, stdin.end
	for {
		select {
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			_ = proc.Resize(ctx, uint32(size.Width), uint32(size.Height)) // the process may have ended
		case <-end:
			_ = proc.CloseIO(ctx, client.WithStdinCloser) // the process may have ended
			end = nil
		case <-over:
			return
		}
	}
}

// drain waits until all output has been written.
func drain(streams cio.IO) {
	if streams == nil {
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); streams.Wait() }() // ends when the streams are closed
	select {
	case <-done:
	case <-time.After(execDrain):
	}
}

func (r *Runtime) clearExec(ctx context.Context, proc client.Process) {
	ctx, cancel := context.WithTimeout(ctx, execClear)
	defer cancel()
	exits, err := proc.Wait(ctx)
	if err == nil && proc.Kill(ctx, syscall.SIGKILL) == nil {
		<-exits // delete refuses what still runs
	}
	if _, err := proc.Delete(ctx); err != nil {
		if streams := proc.IO(); streams != nil { // the task is gone, and with it the process
			streams.Cancel()
			_ = streams.Close()
		}
	}
}

// endNoted is an input that says when it ended.
type endNoted struct {
	from io.Reader
	end  chan struct{}
	once sync.Once
}

// reader is nil where there is no input.
func (e *endNoted) reader() io.Reader {
	if e.from == nil {
		return nil
	}
	return e
}

// Read implements io.Reader.
func (e *endNoted) Read(p []byte) (int, error) {
	n, err := e.from.Read(p)
	if err != nil {
		e.once.Do(func() { close(e.end) })
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = io.EOF // whoever typed has gone; the command sees the end
	}
	return n, err
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
