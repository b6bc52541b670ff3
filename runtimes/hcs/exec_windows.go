package hcs

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// outputWait is for the output of a command that has ended: what it left running
// may hold its pipes for ever.
const outputWait = 2 * time.Second

// Exec runs a command in a running container and returns its exit code.
func (r *Runtime) Exec(ctx context.Context, uid state.UID, name string, x runtimes.Exec) (int, error) {
	code, err := r.exec(ctx, uid, name, &x)
	if err != nil {
		return 0, fmt.Errorf("exec in %s of pod %s: %w", name, uid, err)
	}
	return code, nil
}

func (r *Runtime) exec(ctx context.Context, uid state.UID, name string, x *runtimes.Exec) (int, error) {
	c := r.container(uid, name)
	if c == nil {
		return 0, fmt.Errorf("%w: no such container here", runtimes.ErrNotFound)
	}
	rec := r.recordOf(c)
	if rec.Phase != running {
		return 0, fmt.Errorf("%w: the container doesn't run", runtimes.ErrNotFound)
	}
	if len(x.Command) == 0 {
		return 0, fmt.Errorf("%w: no command", runtimes.ErrRejected)
	}
	sys, err := r.compute.open(rec.ID)
	if err != nil {
		return 0, err
	}
	defer sys.close()
	p, err := sys.start(ctx, opExec, processParameters{
		CommandLine: joinArgs(x.Command), User: rec.User, WorkingDirectory: rec.WorkingDir, Environment: rec.Environment,
		EmulateConsole: x.TTY, CreateStdInPipe: x.Stdin != nil, CreateStdOutPipe: true, CreateStdErrPipe: !x.TTY,
	})
	if err != nil {
		return 0, err
	}
	defer p.close()
	streams, err := openStreams(p, x)
	if err != nil {
		_ = p.kill(context.WithoutCancel(ctx)) // the first error is what matters
		return 0, err
	}
	defer streams.close()
	streams.copy(ctx, p, x)
	code, err := p.wait(ctx)
	if err != nil {
		_ = p.kill(context.WithoutCancel(ctx)) // it must not outlive who asked
		return 0, err
	}
	streams.drain(outputWait)
	return int(int32(code)), nil //nolint:gosec // Windows' codes are 32 bits, also those above 1<<31
}

// streams are the pipes of a command; nil where there is none.
type streams struct {
	in, out, err pipe
	outputs      sync.WaitGroup
	over         chan struct{} // closed when the command has ended
}

func openStreams(p *process, x *runtimes.Exec) (*streams, error) {
	s := &streams{over: make(chan struct{})}
	var err error
	if p.in != 0 && x.Stdin != nil {
		if s.in, err = openPipe(p.in); err != nil {
			closeHandles(p.out, p.errOut)
			return nil, err
		}
	}
	if p.out != 0 {
		if s.out, err = openPipe(p.out); err != nil {
			closeHandles(p.errOut)
			s.close()
			return nil, err
		}
	}
	if p.errOut != 0 {
		if s.err, err = openPipe(p.errOut); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *streams) close() {
	for _, p := range []pipe{s.in, s.out, s.err} {
		if p != nil {
			_ = p.Close() // nothing more is read or written
		}
	}
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}

// copy moves bytes until the pipes end. Input is read until its reader ends,
// which nobody can force.
func (s *streams) copy(ctx context.Context, p *process, x *runtimes.Exec) {
	if s.in != nil {
		go func() {
			_, _ = io.Copy(s.in, x.Stdin) // an end that the command doesn't wait for
			_ = s.in.Close()
			_ = p.modify(ctx, map[string]any{"Operation": "CloseHandle", "CloseHandle": map[string]string{"Handle": "StdIn"}})
		}()
	}
	for _, o := range []struct {
		from pipe
		to   io.Writer
	}{{s.out, x.Stdout}, {s.err, x.Stderr}} {
		if o.from == nil {
			continue
		}
		if o.to == nil {
			o.to = io.Discard
		}
		s.outputs.Go(func() { _, _ = io.Copy(o.to, o.from) }) // a broken pipe is its end
	}
	if x.Resize == nil || !x.TTY {
		return
	}
	go func() {
		for {
			select {
			case size, ok := <-x.Resize:
				if !ok {
					return
				}
				_ = p.modify(ctx, map[string]any{"Operation": "ConsoleSize", "ConsoleSize": map[string]uint16{"Height": size.Height, "Width": size.Width}})
			case <-s.over:
				return
			}
		}
	}()
}

func (s *streams) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.outputs.Wait()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
