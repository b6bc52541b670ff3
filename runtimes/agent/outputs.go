package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/output"
)

// logsKept is how many lives of a container keep their output: this one and
// those that --previous may ask for.
const logsKept = 2

type lifeKey struct {
	uid       state.UID
	container string
}

// outputs turns what the containers of a node write into lines, for as long as
// the agent runs.
type outputs struct {
	agent *Agent

	mu    sync.Mutex // guards what follows
	lives map[lifeKey]*life
	ctx   context.Context //nolint:containedctx // of the goroutines; nil before run
	all   *sync.WaitGroup
	watch *watcher
}

// A life is being written, or was until a moment ago.
type life struct {
	*output.Life

	attempt int32
	hint    chan struct{} // something was written
	watched bool          // and nothing is written without a hint
	failed  atomic.Bool   // the last Take did: it is tried again
	ended   bool          // the container has ended; guarded by outputs.mu
	stop    context.CancelFunc
	done    chan struct{}
}

func (a *Agent) logDir(uid state.UID, container string, attempt int32) string {
	return filepath.Join(a.logsDir(), uid.String(), container, strconv.Itoa(int(attempt)))
}

// run takes up what a former process left, and ends with ctx.
func (o *outputs) run(ctx context.Context, all *sync.WaitGroup) {
	watch, err := newWatcher()
	if err != nil {
		o.agent.log.LogAttrs(ctx, slog.LevelWarn, "logs come with a delay, files can't be watched", slog.Any("err", err))
	}
	o.mu.Lock()
	o.ctx, o.all, o.watch = ctx, all, watch
	o.mu.Unlock()
	if watch != nil {
		all.Go(watch.run)
		all.Go(func() { <-ctx.Done(); watch.close() })
	}
	all.Go(func() { o.pulse(ctx) })
	dirs, err := filepath.Glob(filepath.Join(o.agent.logsDir(), "*", "*", "*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		uid, err := state.ParseUID(filepath.Base(filepath.Dir(filepath.Dir(dir))))
		attempt, e := strconv.ParseInt(filepath.Base(dir), 10, 32)
		if err != nil || e != nil || output.Sealed(dir) {
			continue
		}
		if err := o.open(uid, filepath.Base(filepath.Dir(dir)), int32(attempt)); err != nil {
			o.agent.log.LogAttrs(ctx, slog.LevelError, "left a log alone", slog.String("file", dir), slog.Any("err", err))
		}
	}
}

// begin makes ready for a life that is about to begin.
func (o *outputs) begin(uid state.UID, container string, attempt int32) error {
	if err := o.open(uid, container, attempt); err != nil {
		return err
	}
	for old := attempt - logsKept; old >= 0; old-- {
		dir := o.agent.logDir(uid, container, old)
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			break // it and those before it are gone
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func (o *outputs) open(uid state.UID, container string, attempt int32) error {
	key := lifeKey{uid, container}
	o.mu.Lock()
	old := o.lives[key]
	if old != nil && old.attempt >= attempt {
		o.mu.Unlock()
		return nil
	}
	o.mu.Unlock()
	if old != nil {
		o.seal(old)
	}
	// Who sees the directory of a life finds the life: both come under the lock.
	o.mu.Lock()
	defer o.mu.Unlock()
	l, err := output.Open(o.agent.logDir(uid, container, attempt), output.Kubernetes())
	if err != nil {
		return err
	}
	n := &life{Life: l, attempt: attempt, hint: make(chan struct{}, 1), done: make(chan struct{})}
	ctx, stop := context.WithCancel(o.ctx)
	n.stop = stop
	o.lives[key] = n
	if o.watch != nil {
		n.watched = true
		out, errs := output.RawPaths(o.agent.logDir(uid, container, attempt))
		for _, path := range []string{out, errs} {
			if err := o.watch.add(path, n.hint); err != nil {
				n.watched = false
				o.agent.log.LogAttrs(ctx, slog.LevelWarn, "a log comes with a delay, its file can't be watched", slog.String("file", path), slog.Any("err", err))
			}
		}
	}
	o.all.Go(func() { o.follow(ctx, n) })
	return nil
}

// pulse has lives looked at whose writes nobody tells of, all at the same time:
// a node that rests should wake up seldom.
func (o *outputs) pulse(ctx context.Context) {
	tick := time.NewTicker(takeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		o.mu.Lock()
		for _, l := range o.lives {
			if !l.watched || l.failed.Load() {
				nudge(l.hint)
			}
		}
		o.mu.Unlock()
	}
}

func nudge(hint chan struct{}) {
	select {
	case hint <- struct{}{}:
	default:
	}
}

// follow takes what a life writes until it is sealed.
func (o *outputs) follow(ctx context.Context, l *life) {
	defer close(l.done)
	for {
		err := l.Take(time.Now())
		if err != nil && !l.failed.Load() {
			o.agent.log.LogAttrs(ctx, slog.LevelWarn, "kept no lines of a log for now", slog.Any("err", err))
		}
		l.failed.Store(err != nil)
		select {
		case <-ctx.Done():
			if err := l.Close(); err != nil {
				o.agent.log.LogAttrs(ctx, slog.LevelWarn, "closed a log badly", slog.Any("err", err))
			}
			return
		case <-l.hint:
		}
	}
}

// seal takes the rest of a life, which nobody writes any more.
func (o *outputs) seal(l *life) {
	if err := l.Seal(time.Now()); err != nil {
		o.agent.log.LogAttrs(context.Background(), slog.LevelWarn, "sealed a log badly", slog.Any("err", err))
	}
	l.stop()
	<-l.done
}

// observed seals what is written no more.
func (o *outputs) observed(_ context.Context, seen *runtimes.Observation) {
	for i := range seen.Containers {
		c := &seen.Containers[i]
		key := lifeKey{c.UID, c.Name}
		o.mu.Lock()
		l := o.lives[key]
		over := l != nil && (c.Attempt > l.attempt || c.Attempt == l.attempt && !c.Running)
		if over {
			l.ended = true
			if over = !c.Writing || c.Attempt > l.attempt; over {
				delete(o.lives, key)
			}
		}
		o.mu.Unlock()
		if over {
			o.seal(l)
		}
	}
}

// remove leaves nothing of a pod's output.
func (o *outputs) remove(uid state.UID) error {
	o.mu.Lock()
	var all []*life
	for key, l := range o.lives {
		if key.uid == uid {
			all = append(all, l)
			delete(o.lives, key)
		}
	}
	o.mu.Unlock()
	for _, l := range all {
		l.stop()
		<-l.done
	}
	if err := os.RemoveAll(filepath.Join(o.agent.logsDir(), uid.String())); err != nil {
		return unavailable(err)
	}
	return nil
}

// life is the life of a container that may still be written; nil when it is
// sealed.
func (o *outputs) life(uid state.UID, container string, attempt int32) (l *life, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l = o.lives[lifeKey{uid, container}]; l == nil || l.attempt != attempt {
		return nil, true
	}
	return l, l.ended
}
