package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/sources"
)

// limitTime is told by the controller's clock.
const limitTime = "time"

// errPassed is a limit that a worker says it passed.
type errPassed struct{ limit string }

func (e *errPassed) Error() string { return "the render passed its limit of " + e.limit }

// process is a worker seen from the controller.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	out    *os.File
	pipe   *pipe
	said   *tail
	died   chan struct{} // closed when it has ended
	err    error         // how; after died
	kill   sync.Once
	retire *time.Timer

	stopped atomic.Bool // it was killed here
}

// errEnded says that the pool was closed.
var errEnded = errors.New("the workers are ended")

// start runs a worker and waits until it is confined.
func (p *Pool) start(ctx context.Context) (*process, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errEnded
	}
	p.wg.Add(1) // Close waits for it
	p.mu.Unlock()
	w, err := launch(p.options.Command)
	if err != nil {
		p.wg.Done()
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	go func() {
		w.err = w.cmd.Wait()
		close(w.died)
		p.wg.Done()
	}()
	if err := w.ready(ctx, p.options.Limits); err != nil {
		died := w.end()
		return nil, errors.Join(err, died)
	}
	return w, nil
}

func launch(command []string) (*process, error) {
	self := command[0]
	if self == "" {
		var err error
		if self, err = program(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	cmd := exec.Command(self, command[1:]...) //nolint:gosec,noctx // our own program; it outlives calls
	if command[0] == "" {
		cmd.Args[0] = "tandem"
	}
	// Nothing of our environment. Two threads, so that the garbage collector has
	// one, and no memory in a crash's words.
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	prepare(cmd)
	w := &process{cmd: cmd, said: &tail{}, died: make(chan struct{})}
	cmd.Stderr = w.said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe() // with cmd.StdoutPipe the end of an idle one would not be noticed
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	cmd.Stdout = theirs
	err = cmd.Start()
	_ = theirs.Close() // the worker has its own
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	w.stdin, w.out, w.pipe = in, out, newPipe(out, in)
	return w, nil
}

func (w *process) ready(ctx context.Context, l Limits) error {
	limited, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	defer context.AfterFunc(limited, w.stop)()
	err := w.pipe.send(down{Limits: &l})
	var m up
	if err == nil {
		err = w.pipe.dec.Decode(&m)
	}
	switch {
	case err != nil:
		return fmt.Errorf("start a worker: %w", err)
	case m.Ready == nil:
		return errors.New("start a worker: it isn't one of this program's")
	case m.Ready.Refused != "":
		return fmt.Errorf("start a worker: %s", m.Ready.Refused)
	}
	return nil
}

// stop kills the process. What it has written can still be read.
func (w *process) stop() {
	w.kill.Do(func() {
		w.stopped.Store(true)
		_ = w.cmd.Process.Kill() // it may have ended by itself
	})
}

// alive says whether it still runs.
func (w *process) alive() bool {
	select {
	case <-w.died:
		return false
	default:
		return true
	}
}

// dying is how long a process whose pipe has ended may take to end: how it ended
// is known only where it isn't killed here.
const dying = 2 * time.Second

// killed says whether something else killed the process: the kernel does where
// memory is short, on the whole machine or in the control group of its service.
func (w *process) killed(err error) bool {
	if w.stopped.Load() || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		return false
	}
	select {
	case <-w.died:
	case <-time.After(dying):
		return false
	}
	return byKill(w.err)
}

// end makes the process end, waits for it and says how it ended.
func (w *process) end() error {
	w.stop()
	_ = w.stdin.Close()
	<-w.died
	_ = w.out.Close()
	if w.err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", w.err, w.said)
}

// discard ends a worker that nobody asks anything more: how it ended is of no use.
func (w *process) discard() { _ = w.end() }

// passed says which limit a dead process passed; "" for none.
func (w *process) passed(err, died error) string {
	if p, ok := errors.AsType[*errPassed](err); ok {
		return p.limit
	}
	// Go's own last words, when the kernel gives it no more memory.
	if died != nil && (strings.Contains(w.said.String(), "out of memory") || strings.Contains(w.said.String(), "cannot allocate memory")) {
		return limitMemory
	}
	return ""
}

// render does one job. After an error the process is of no use.
func (w *process) render(ctx context.Context, p *Pool, snap sources.Snapshot, app state.Application) (render.Result, error) {
	limited, cancel := context.WithTimeoutCause(ctx, p.options.Limits.Time, &errPassed{limitTime})
	defer cancel()
	defer context.AfterFunc(limited, w.stop)()
	w.pipe.in.left = maxSent
	result, err := w.converse(p, snap, app)
	w.pipe.in.left = -1
	if err != nil && limited.Err() != nil {
		return result, errors.Join(context.Cause(limited), err)
	}
	return result, err
}

func (w *process) converse(p *Pool, snap sources.Snapshot, app state.Application) (render.Result, error) {
	if err := w.pipe.send(down{Job: &job{App: app, Revision: snap.Revision, Keys: p.options.Keys != nil}}); err != nil {
		return render.Result{}, err
	}
	var d *done
	for d == nil {
		var m up
		if err := w.pipe.dec.Decode(&m); err != nil {
			return render.Result{}, err
		}
		switch {
		case m.Ask != nil:
			if err := w.pipe.send(down{Answer: p.answer(&snap, m.Ask)}); err != nil {
				return render.Result{}, err
			}
		case m.Passed != nil:
			return render.Result{}, &errPassed{m.Passed.Limit}
		case m.Done != nil:
			d = m.Done
		default:
			return render.Result{}, errors.New("the worker says what nobody asked for")
		}
	}
	if d.Err != "" {
		return render.Result{}, errors.New(d.Err)
	}
	result := render.Result{Apps: d.Apps, Pipelines: d.Pipelines, Access: d.Access, Problems: d.Problems}
	if d.Manifest == nil {
		return result, nil
	}
	var err error
	result.Manifest, err = w.manifest(p, app.Name, d.Manifest)
	return result, err
}

// manifest puts a manifest together: bodies that are there already stay the
// same ones, the others are sent.
func (w *process) manifest(p *Pool, app state.AppName, h *head) (*state.Manifest, error) {
	m := &state.Manifest{App: app, Reads: h.Reads, Pairs: h.Pairs, Warnings: h.Warnings, Digest: h.Digest}
	var missing []*state.Variant
	var kinds []string
	ask := want{Variants: []int{}}
	n := 0
	for _, oh := range h.Objects {
		o := &state.Object{Ref: oh.Ref, Variants: make([]state.Variant, len(oh.Variants))}
		for i, vh := range oh.Variants {
			v := &o.Variants[i]
			*v = state.Variant{OS: vh.OS, Digest: vh.Digest, Origin: vh.Origin, Body: p.bodies.find(oh.Ref, vh.Digest)}
			if v.Body == nil {
				missing, kinds, ask.Variants = append(missing, v), append(kinds, oh.Ref.Kind), append(ask.Variants, n)
			}
			n++
		}
		m.Objects = append(m.Objects, o)
	}
	if err := w.pipe.send(down{Want: &ask}); err != nil {
		return nil, err
	}
	var reply up
	if err := w.pipe.dec.Decode(&reply); err != nil {
		return nil, err
	}
	if reply.Passed != nil {
		return nil, &errPassed{reply.Passed.Limit}
	}
	if reply.Bodies == nil || len(reply.Bodies.JSON) != len(missing) {
		return nil, errors.New("the worker doesn't send the objects that it made")
	}
	for i, raw := range reply.Bodies.JSON {
		body, err := manifest.DecodeBody(kinds[i], raw)
		if err != nil {
			return nil, fmt.Errorf("decode what the worker made: %w", err)
		}
		missing[i].Body = body
	}
	p.bodies.keep(m.Objects)
	return m, nil
}

// answer does for a worker what it can't do itself.
func (p *Pool) answer(snap *sources.Snapshot, a *ask) *answer {
	switch a.Op {
	case opToken:
		return &answer{Secret: []byte(p.options.Tokens.Token(a.Value))}
	case opUnwrap:
		key, err := p.options.Keys.Unwrap(a.Stanzas)
		if errors.Is(err, age.ErrIncorrectIdentity) {
			return &answer{}
		}
		return &answer{Secret: key, Err: toWire(err)}
	case opLook, opRead, opList, opBlob:
		return answerTree(snap.FS, a)
	default:
		return &answer{Err: &wireError{Text: "unknown question"}}
	}
}

// tail keeps the first words of a process that ends: they say why.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p[:min(len(p), max(0, most-t.buf.Len()))])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}
