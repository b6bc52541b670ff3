package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/sources"
)

// What holds for every worker unless Options say otherwise.
const (
	MaxMemory = 1 << 30                         // bytes
	MaxCPU    = 2 * overlay.MaxTime             // processor time; the garbage collector has a thread of its own
	MaxTime   = overlay.MaxTime + 5*time.Second // by the clock: a render that doesn't look at its own
	maxSent   = 4 * overlay.MaxOutputBytes      // of one render, from a worker
	starting  = 30 * time.Second                // until a worker is ready
	idleFor   = time.Minute                     // after which a worker beyond the first is ended
)

// Options are what a Pool needs.
type Options struct {
	Command []string // the program and arguments that call Serve; an empty first one: this program
	Tokens  manifest.Tokens
	Keys    *sops.Keys
	Workers int // at most; 0: as many as Go uses processors
	Limits  Limits
	Logger  *slog.Logger
}

// Pool is a render.Renderer whose renders run in workers. It is safe for
// concurrent use; Close ends all processes.
type Pool struct {
	options Options
	slots   chan struct{}
	bodies  *bodyCache

	mu     sync.Mutex
	idle   []*process // the longest idle first
	closed bool
	wg     sync.WaitGroup
	ctx    context.Context //nolint:containedctx // of the processes: they outlive calls
	cancel context.CancelFunc
}

var _ render.Renderer = (*Pool)(nil)

// New makes a Pool and begins to start its first worker.
func New(o Options) *Pool {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	if o.Limits.Memory <= 0 {
		o.Limits.Memory = MaxMemory
	}
	set(&o.Limits.CPU, MaxCPU)
	set(&o.Limits.Time, MaxTime)
	p := &Pool{options: o, slots: make(chan struct{}, o.Workers), bodies: newBodyCache()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.spare()
	return p
}

// Close ends every worker and waits for it.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	p.cancel()
	for _, w := range idle {
		w.discard()
	}
	p.wg.Wait()
	return nil
}

// errShort is a render that the machine has no memory for: the text may be right.
var errShort = errors.New("its process was killed twice, as the kernel does where memory is short: give the machine, or the control group of Tandem's service, more memory, or render fewer things at once (GOMAXPROCS)")

// Render implements render.Renderer. A render that passes a limit is a problem
// of the text, and one whose process ends otherwise is tried once more. One that
// something else kills twice is an error: the machine is to blame.
func (p *Pool) Render(ctx context.Context, snap sources.Snapshot, app state.Application) (render.Result, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return render.Result{}, fmt.Errorf("render %s: %w", app.Name, ctx.Err())
	}
	defer func() { <-p.slots }()
	for again := false; ; again = true {
		take := p.take
		if again {
			take = p.start // a second one that waited may have ended with the first
		}
		w, err := take(ctx)
		if err != nil {
			return render.Result{}, fmt.Errorf("render %s: %w", app.Name, err)
		}
		result, err := w.render(ctx, p, snap, app)
		if err == nil {
			p.giveBack(w)
			return result, nil
		}
		killed := w.killed(err)
		died := w.end()
		p.spare()
		if ctx.Err() != nil {
			return render.Result{}, fmt.Errorf("render %s: %w", app.Name, ctx.Err())
		}
		limit := w.passed(err, died)
		p.options.Logger.LogAttrs(ctx, slog.LevelWarn, "ended a worker for renders", slog.Any("app", app.Name), slog.String("limit", limit), slog.Any("err", errors.Join(err, died)))
		switch {
		case limit != "":
			return p.refused(&snap, &app, limit), nil
		case again && killed:
			return render.Result{}, fmt.Errorf("render %s: %w", app.Name, errShort)
		case again:
			return p.refused(&snap, &app, ""), nil
		}
	}
}

// refused is a text that no process survives.
func (p *Pool) refused(snap *sources.Snapshot, app *state.Application, limit string) render.Result {
	l := p.options.Limits
	cause := "ends the process that renders it, twice"
	switch limit {
	case limitMemory:
		cause = fmt.Sprintf("takes more than %d MiB of memory to render (limit worker.MaxMemory)", l.Memory>>20)
	case limitCPU:
		cause = fmt.Sprintf("takes more than %s of processor time to render (limit worker.MaxCPU)", l.CPU)
	case limitTime:
		cause = fmt.Sprintf("takes longer than %s to render (limit worker.MaxTime)", l.Time)
	}
	path := app.Path
	if path == "" {
		path = "."
	}
	return render.Result{Problems: []state.Problem{{At: state.Origin{Path: path, Revision: snap.Revision}, Cause: cause, Remedy: "split it into several Applications, or look for what grows without end"}}}
}

// take gives a worker that waits, or a new one.
func (p *Pool) take(ctx context.Context) (*process, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errEnded
		}
		n := len(p.idle) - 1
		if n < 0 {
			p.mu.Unlock()
			return p.start(ctx)
		}
		w := p.idle[n]
		p.idle = p.idle[:n]
		p.mu.Unlock()
		w.retire.Stop()
		if w.alive() {
			return w, nil
		}
		w.discard()
	}
}

func (p *Pool) giveBack(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.wg.Go(w.discard)
		return
	}
	p.idle = append(p.idle, w)
	w.retire = time.AfterFunc(idleFor, func() { p.retire(w) })
}

// retire ends a worker that nobody took for a while, unless it is the only one.
func (p *Pool) retire(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == w && len(p.idle) > 1 && !p.closed {
			p.idle = append(p.idle[:i:i], p.idle[i+1:]...)
			p.wg.Go(w.discard)
			return
		}
	}
}

// spare starts a worker beforehand where none waits.
func (p *Pool) spare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) > 0 {
		return
	}
	p.wg.Go(func() {
		w, err := p.start(p.ctx)
		if err != nil {
			if p.ctx.Err() == nil {
				p.options.Logger.LogAttrs(p.ctx, slog.LevelWarn, "started no worker for renders", slog.Any("err", err))
			}
			return
		}
		p.giveBack(w)
	})
}
