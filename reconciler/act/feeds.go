package act

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/sources"
)

// Origins opens the sources that applications name.
type Origins interface {
	// Open gives the source of an application and a key that is equal for
	// applications that share it. An empty AppSource is the root's own.
	Open(s state.AppSource) (key string, open func() (sources.Source, error), err error)
}

// How long nothing is followed anew after a look at all applications, by how long
// that took, and at most.
const (
	followShare   = 10
	followLongest = 250 * time.Millisecond
)

// Feeds follows the root and every application's source, renders what changed,
// and tells the machine. Applications of one repository share one fetch.
type Feeds struct {
	c        *Controller
	origins  Origins
	renderer render.Renderer
	path     string // of the root, in its source
	logger   *slog.Logger
	slots    chan struct{} // renders at a time
	quiet    chan struct{} // looks at commits that touch nothing: no render waits for thousands of them

	mu    sync.Mutex
	fails uint64 // looks that no source answered
	feeds map[string]*feed
	subs  map[state.AppName]*subscriber
	wg    sync.WaitGroup
	// followed: Run has looked at what there is.
	followed bool
	// trusted is the newest snapshot of the root that was taken.
	trusted *sources.Snapshot
	// recent are snapshots that may be reviewed for promotion.
	recent []*sources.Snapshot
}

// feed is one source and the applications that read it.
type feed struct {
	key    string
	cancel context.CancelFunc
	source sources.Source
	latest *sources.Snapshot
	lost   bool
	subs   map[state.AppName]*subscriber
}

// subscriber is one application that renders what its feed yields.
type subscriber struct {
	app    state.Application
	feed   *feed
	kick   chan struct{}
	cancel context.CancelFunc

	// Of the newest render, to tell whether another commit touches it. Guarded by
	// busy, which whoever renders holds.
	busy     sync.Mutex
	reads    []state.Read
	rendered bool
	last     state.Revision
	moved    bool // the source was another one until now: nothing follows from what was there
	again    <-chan time.Time
	anew     bool   // the signers changed: the same snapshot is judged again; guarded by Feeds.mu
	looked   uint64 // mark of what was last said of it since the start; 0: nothing; guarded by Feeds.mu
	ill      bool   // the log says, or is about to, that its source doesn't answer; likewise
	warned   bool   // so does this process's log; likewise
}

// NewFeeds follows the root at path of the empty AppSource.
func NewFeeds(c *Controller, origins Origins, renderer render.Renderer, path string, logger *slog.Logger) *Feeds {
	return &Feeds{
		c: c, origins: origins, renderer: renderer, path: path, logger: logger,
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)), quiet: make(chan struct{}, 1), feeds: map[string]*feed{}, subs: map[state.AppName]*subscriber{},
	}
}

// Run follows the applications that the state at the watermark has, until ctx ends.
func (f *Feeds) Run(ctx context.Context) {
	defer f.wg.Wait()
	declared := uint64(0)
	for {
		var seq state.Seq
		begun := time.Now()
		var wanted map[state.AppName]state.Application // nil: what it was
		ill := map[state.AppName]bool{}
		f.c.View(func(s *state.State) {
			seq = s.Seq
			if s.Declarations() == declared && f.followed {
				return
			}
			declared, wanted = s.Declarations(), map[state.AppName]state.Application{}
			for name, a := range s.Apps {
				if !a.Removed {
					wanted[name], ill[name] = a.Spec, a.SourceLost
				}
			}
		})
		if wanted != nil {
			f.follow(ctx, wanted, ill)
			f.followed = true
		}
		// A look goes through all applications, and each that is declared brings one:
		// where there are thousands, it is not to take more than a share of a processor.
		if took := time.Since(begun); took > time.Millisecond {
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(followShare*took, followLongest)):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-f.c.Changed(seq):
		}
	}
}

// Hint asks an application's source to look now, where it can.
func (f *Feeds) Hint(name state.AppName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.subs[name]; s != nil && s.feed != nil {
		if h, ok := s.feed.source.(interface{ Hint() }); ok {
			h.Hint()
		}
	}
}

// HintWhere asks every source that an application for which match is true
// names to look now, where it can.
func (f *Feeds) HintWhere(match func(state.AppSource) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := map[*feed]bool{}
	for _, s := range f.subs {
		if s.feed == nil || asked[s.feed] || !match(s.app.Source) {
			continue
		}
		asked[s.feed] = true
		if h, ok := s.feed.source.(interface{ Hint() }); ok {
			h.Hint()
		}
	}
}

// Looked says whether the source of every application was looked at since the
// start, and readers see what came of it.
func (f *Feeds) Looked() bool {
	paths := map[state.AppName]string{}
	f.c.View(func(s *state.State) {
		for name, a := range s.Apps {
			if !a.Removed {
				paths[name] = a.Spec.Path
			}
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, path := range paths {
		if sub := f.subs[name]; sub == nil || sub.looked == 0 || sub.app.Path != path || !f.c.Seen(sub.looked) {
			return false
		}
	}
	return len(f.subs) > 0
}

// A Look is when an application's source last answered.
type Look struct {
	App  state.AppName
	At   time.Time // zero: not since the start
	Lost bool
}

// Looks are those of every application, by name, and how many looks failed
// since the start.
func (f *Feeds) Looks() (looks []Look, failed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.subs)) {
		l := Look{App: name, Lost: true} // until its source could be opened
		if s := f.subs[name]; s.feed != nil {
			l.Lost = s.feed.lost
			if source, ok := s.feed.source.(interface{ Looked() time.Time }); ok {
				l.At = source.Looked()
			}
		}
		looks = append(looks, l)
	}
	return looks, f.fails
}

// say tells the machine about an application, and that its source answers where
// it was told that it doesn't: by this process, or by the one before.
func (f *Feeds) say(name state.AppName, e state.Event) {
	mark := f.c.mark(e)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.subs[name]
	if s == nil {
		return
	}
	s.looked = mark
	if s.ill && s.feed != nil && !s.feed.lost {
		s.ill, s.warned = false, false
		f.c.Submit(&state.SourceStatus{App: name, OK: true})
	}
}

// follow makes the subscriptions those that are wanted.
func (f *Feeds) follow(ctx context.Context, wanted map[state.AppName]state.Application, ill map[state.AppName]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := map[state.AppName]state.AppSource{}
	for name, s := range f.subs {
		if app, ok := wanted[name]; !ok || !reflect.DeepEqual(app, s.app) {
			was[name] = s.app.Source
			f.drop(name, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if f.subs[name] == nil {
			old, known := was[name]
			f.subscribe(ctx, &subscriber{app: wanted[name], moved: known && old.Repo != wanted[name].Source.Repo, ill: ill[name]})
		}
	}
}

func (f *Feeds) drop(name state.AppName, s *subscriber) {
	s.cancel()
	delete(f.subs, name)
	if s.feed == nil {
		return
	}
	delete(s.feed.subs, name)
	if len(s.feed.subs) == 0 {
		s.feed.cancel()
		delete(f.feeds, s.feed.key)
	}
}

func (f *Feeds) subscribe(ctx context.Context, s *subscriber) {
	app := s.app
	subCtx, cancel := context.WithCancel(ctx)
	s.kick, s.cancel = make(chan struct{}, 1), cancel
	f.subs[app.Name] = s
	key, open, err := f.origins.Open(app.Source)
	fd := f.feeds[key]
	if err == nil && fd == nil {
		fd = &feed{key: key, subs: map[state.AppName]*subscriber{}}
		if fd.source, err = open(); err == nil {
			feedCtx, stop := context.WithCancel(ctx)
			fd.cancel = stop
			f.feeds[key] = fd
			f.wg.Add(1)
			go f.pump(feedCtx, fd)
		}
	}
	if err != nil {
		f.unwell(app.Name, err)
		f.wg.Add(1)
		go f.reopen(ctx, subCtx, s)
		return
	}
	s.feed = fd
	fd.subs[app.Name] = s
	f.wg.Add(1)
	go f.serve(subCtx, s)
	if fd.latest != nil {
		s.wake()
	}
}

// reopen tries again to open a source that could not be opened: its directory may
// not be there yet, or the disk full.
func (f *Feeds) reopen(ctx, sub context.Context, s *subscriber) {
	defer f.wg.Done()
	select {
	case <-sub.Done():
		return
	case <-time.After(judgeAgain):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs[s.app.Name] == s {
		f.drop(s.app.Name, s)
		f.subscribe(ctx, &subscriber{app: s.app, moved: s.moved, ill: s.ill, warned: s.warned})
	}
}

func (s *subscriber) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// pump waits for snapshots and wakes whoever reads them.
func (f *Feeds) pump(ctx context.Context, fd *feed) {
	defer f.wg.Done()
	var last state.Revision
	for ctx.Err() == nil {
		snap, err := fd.source.Next(ctx, last)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.lost(fd, err)
			// The source backs off by itself; this only bounds one that doesn't.
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		last = snap.Revision
		f.mu.Lock()
		before := fd.latest
		fd.latest = &snap
		back := fd.lost
		fd.lost = false
		subs := slices.Collect(maps.Values(fd.subs))
		f.mu.Unlock()
		f.logger.LogAttrs(ctx, slog.LevelDebug, "fetched revision", slog.String("rev", string(snap.Revision)))
		for _, s := range subs {
			if back {
				f.well(s.app.Name)
			}
		}
		f.sweep(ctx, before, &snap, subs)
	}
}

func (f *Feeds) lost(fd *feed, err error) {
	f.mu.Lock()
	f.fails++
	first := !fd.lost
	fd.lost = true
	subs := slices.Collect(maps.Values(fd.subs))
	f.mu.Unlock()
	if !first {
		return
	}
	for _, s := range subs {
		f.status(s.app.Name, err)
	}
}

// well tells that a source answers again.
func (f *Feeds) well(name state.AppName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.subs[name]; s != nil {
		s.ill, s.warned = false, false
	}
	f.c.Submit(&state.SourceStatus{App: name, OK: true})
}

// status tells that a source doesn't answer.
func (f *Feeds) status(name state.AppName, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unwell(name, err)
}

// unwell is status under the lock. What goes on is told once: what is tried again
// every few seconds would fill the disk with words.
func (f *Feeds) unwell(name state.AppName, err error) {
	s := f.subs[name]
	if s == nil {
		return // nobody follows it any more
	}
	level := slog.LevelDebug
	if !s.warned {
		level = slog.LevelWarn
	}
	f.logger.LogAttrs(context.Background(), level, "source did not answer", slog.String("app", string(name)), slog.Any("err", err))
	if !s.ill {
		f.c.Submit(&state.SourceStatus{App: name, Detail: f.c.Text(err.Error())})
	}
	s.ill, s.warned = true, true
}

// serve renders the feed's newest snapshot whenever there is another.
func (f *Feeds) serve(ctx context.Context, s *subscriber) {
	defer f.wg.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-s.again:
		}
		s.busy.Lock()
		s.again = nil
		f.look(ctx, s)
		s.busy.Unlock()
	}
}

// look renders the newest snapshot, where that is another than the last one.
func (f *Feeds) look(ctx context.Context, s *subscriber) {
	f.mu.Lock()
	snap, anew := s.feed.latest, s.anew
	s.anew = false
	f.mu.Unlock()
	if snap == nil || snap.Revision == s.last && !anew {
		return
	}
	turn := f.slots
	if s.rendered && !anew && render.Unchanged(snap.FS, s.reads) {
		turn = f.quiet
	}
	select {
	case <-ctx.Done():
		return
	case turn <- struct{}{}:
	}
	f.render(ctx, s, snap)
	<-turn
}

// render tells the machine what a snapshot means for an application. A commit
// that touches nothing that the last render read costs a look at those files.
func (f *Feeds) render(ctx context.Context, s *subscriber, snap *sources.Snapshot) {
	v, err := f.judge(ctx, s, snap)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, errNotYet) {
			f.status(s.app.Name, err)
			s.again = time.After(judgeAgain)
		}
		return
	}
	f.remember(snap)
	commit := f.commit(snap)
	if v.signer != "" {
		commit.Signer = f.c.Text(v.signer)
	}
	if len(v.problems) > 0 {
		s.last = snap.Revision
		f.say(s.app.Name, &state.Rendered{
			App: s.app.Name, Revision: snap.Revision, Commit: commit, Problems: v.problems, Detail: f.c.Text(printed(v.problems)), Rewound: v.rewound,
		})
		return
	}
	isRoot := s.app.Name == state.RootApp
	if s.rendered && render.Unchanged(snap.FS, s.reads) {
		s.last = snap.Revision
		f.say(s.app.Name, &state.Unchanged{App: s.app.Name, Revision: snap.Revision, Commit: commit, Rewound: v.rewound})
		if isRoot && !v.rewound {
			f.trust(snap)
		}
		return
	}
	app := s.app
	if app.Name == state.RootApp {
		app.Path = f.path
	}
	result, err := f.renderer.Render(ctx, *snap, app)
	if err != nil {
		if ctx.Err() == nil {
			f.status(app.Name, fmt.Errorf("render %s: %w", snap.Revision.Short(), err))
			s.again = time.After(judgeAgain)
		}
		return
	}
	s.last, s.moved = snap.Revision, false
	s.rendered = result.Manifest != nil
	if result.Manifest != nil {
		s.reads = result.Manifest.Reads
	}
	detail := f.c.Text(printed(result.Problems))
	if app.Name == state.RootApp {
		f.say(app.Name, &state.RootRendered{
			Revision: snap.Revision, Commit: commit, Apps: result.Apps, Pipelines: f.tokens(result.Pipelines), Access: f.accessTokens(result.Access), Manifest: result.Manifest, Problems: result.Problems, Detail: detail, Rewound: v.rewound,
			Rollout: state.DefaultRollout(),
		})
		if len(result.Problems) == 0 && !v.rewound {
			f.trust(snap)
		}
		return
	}
	f.say(app.Name, &state.Rendered{
		App: app.Name, Revision: snap.Revision, Commit: commit, Manifest: result.Manifest, Problems: result.Problems, Detail: detail, Rewound: v.rewound,
	})
}

// printed is all problems as a person reads them.
func printed(problems []state.Problem) string {
	var b strings.Builder
	for i, p := range problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.Error())
	}
	return b.String()
}

// commit puts the names and words of a commit beside the log.
func (f *Feeds) commit(snap *sources.Snapshot) state.Commit {
	c := snap.Commit
	if c.Hash == "" {
		return state.Commit{}
	}
	return state.Commit{
		Hash: c.Hash, Author: f.c.Text(person(c.Author)), Committer: f.c.Text(person(c.Committer)),
		Message: f.c.Text(c.Message), Time: c.Committer.When.UnixNano(), Parents: int32(len(c.Parents)), Tree: c.Tree,
	}
}

func person(p sources.Person) string {
	switch {
	case p.Email == "":
		return p.Name
	case p.Name == "":
		return p.Email
	default:
		return p.Name + " <" + p.Email + ">"
	}
}
