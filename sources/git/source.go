package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/refs"
	"github.com/tandem-gitops/tandem/sources/tree"
	"github.com/tandem-gitops/tandem/sources/watch"
)

// Source follows a branch. It holds no connection and no goroutine between two
// calls of Next. It is safe for concurrent use; callers take turns.
type Source struct {
	options Options
	address address
	origin  origin
	logger  *slog.Logger
	hint    chan struct{}
	history history
	modules modules
	turn    chan struct{} // holds one value while nobody looks

	// Owned by who has the turn.
	pace    sources.Pace
	current sources.Snapshot
	dirs    map[plumbing.Hash]*tree.Dir // of the current snapshot

	mu     sync.Mutex
	looked time.Time
}

// An origin is where commits come from.
type origin interface {
	// look finds the commit that is asked for now, with its objects at hand. The
	// ref is the full name it was found under, or "" for a commit asked for by
	// its hash.
	look(ctx context.Context) (found, error)
	// forget drops what turned out to be damaged.
	forget() error
}

type found struct {
	hash    plumbing.Hash
	ref     string
	objects *objects
}

var _ sources.Source = (*Source)(nil)

// New makes a Source. It fails where the options can never work; whether the
// repository answers is for Next to find out.
func New(options Options) (*Source, error) {
	a, err := parse(options.URL)
	if err != nil {
		return nil, err
	}
	if err := options.check(a); err != nil {
		return nil, err
	}
	a.idle = cmp.Or(options.idle, idleTimeout)
	if options.Interval <= 0 {
		options.Interval = DefaultInterval
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		options: options,
		address: a,
		logger:  options.Logger.With(slog.String("source", a.text)),
		hint:    make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
		pace:    sources.Pace{Interval: options.Interval, Longest: longestBackOff},
	}
	s.turn <- struct{}{}
	s.history.source = s
	s.modules = modules{source: s, origins: map[string]*module{}}
	if a.scheme == local {
		path, err := filepath.Abs(a.path)
		if err != nil {
			return nil, fmt.Errorf("follow %s: %w", a.text, err)
		}
		s.origin = &localOrigin{path: path, options: &s.options}
		s.pace = sources.Pace{Interval: localInterval, Longest: localInterval}
		return s, nil
	}
	s.origin = &remoteOrigin{address: a, options: &s.options, logger: s.logger}
	return s, nil
}

// Hint says that there may be something new: a Next that waits looks at once.
func (s *Source) Hint() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}

// Looked is when the repository last answered; zero if it never did. A commit
// that is here is as fresh as ever: it isn't looked for again.
func (s *Source) Looked() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Commit != "" && !s.looked.IsZero() {
		return time.Now()
	}
	return s.looked
}

// Next waits for a commit whose revision is not last. Every error of the
// repository's side is an ErrUnavailable, and the next call waits before it
// tries again.
func (s *Source) Next(ctx context.Context, last state.Revision) (sources.Snapshot, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return sources.Snapshot{}, ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.address.scheme == local {
		return s.nextLocal(ctx, last)
	}
	if s.current.Revision != "" && s.current.Revision != last && !s.pace.Failing() {
		return s.current, nil // another caller has seen it already
	}
	for {
		if s.options.Commit != "" && s.current.Revision != "" && s.current.Revision == last {
			<-ctx.Done() // a commit never changes
			return sources.Snapshot{}, ctx.Err()
		}
		if err := s.pace.Wait(ctx, s.hint); err != nil {
			return sources.Snapshot{}, err
		}
		if changed, err := s.look(ctx, last); err != nil || changed {
			return s.current, err
		}
	}
}

// nextLocal looks at once, then whenever refs change: the watch is armed before
// the look, so that nothing falls between them.
func (s *Source) nextLocal(ctx context.Context, last state.Revision) (sources.Snapshot, error) {
	hints := (<-chan struct{})(s.hint)
	if w, err := watchRefs(s.address.path); err != nil {
		s.logger.LogAttrs(ctx, slog.LevelDebug, "watched no refs, looks now and then", slog.Any("err", err))
	} else {
		defer func() { _ = w.Close() }()
		hints = w.Hints()
	}
	for wait := s.pace.Failing(); ; wait = true {
		if wait {
			if err := s.pace.Wait(ctx, hints); err != nil {
				return sources.Snapshot{}, err
			}
		}
		if changed, err := s.look(ctx, last); err != nil || changed {
			return s.current, err
		}
	}
}

// look asks the origin once. It says whether there is something other than last.
func (s *Source) look(ctx context.Context, last state.Revision) (bool, error) {
	err := s.refresh(ctx)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	s.pace.Looked(err)
	if err != nil {
		return false, fmt.Errorf("git %s: %w", s.address.text, err)
	}
	s.mu.Lock()
	s.looked = time.Now()
	s.mu.Unlock()
	return s.current.Revision != last, nil
}

// refresh makes s.current what the origin has now. A store that turns out to be
// damaged is dropped and filled again, once.
func (s *Source) refresh(ctx context.Context) error {
	for again := false; ; again = true {
		err := s.refreshOnce(ctx)
		if err == nil || again || !errors.Is(err, errDamaged) || ctx.Err() != nil {
			return err
		}
		s.logger.LogAttrs(ctx, slog.LevelWarn, "dropped a damaged store", slog.Any("err", err))
		if err := s.origin.forget(); err != nil {
			return classed(err)
		}
		// The same revision is made again, from sound objects.
		s.current, s.dirs = sources.Snapshot{}, nil
	}
}

func (s *Source) refreshOnce(ctx context.Context) error {
	f, err := s.origin.look(ctx)
	if err != nil {
		return classed(err)
	}
	revision := revisionOf(f)
	if s.modules.damaged() { // the same revision is made again, however often that fails
		s.current = sources.Snapshot{}
	}
	if revision == s.current.Revision {
		return nil
	}
	snapshot, root, dirs, err := s.snapshot(f, revision)
	if err != nil {
		return classed(errors.Join(errDamaged, err))
	}
	s.modules.begin()
	if root, err = s.modules.graft(ctx, root, f.objects, s.address, 1); err != nil {
		return classed(err)
	}
	snapshot.FS = tree.New(root, f.objects, snapshot.Commit.Committer.When)
	if before := s.current.Revision; movedTag(before, revision) {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "found a tag moved", slog.String("rev", string(revision)), slog.String("before", string(before)))
	}
	s.current, s.dirs = snapshot, dirs
	if err := s.modules.prune(); err != nil {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "did not remove submodules that are no longer used", slog.Any("err", err))
	}
	s.logger.LogAttrs(ctx, slog.LevelInfo, "fetched revision", slog.String("rev", string(revision)))
	return nil
}

// snapshot is a commit but for its files, which are below the root.
func (s *Source) snapshot(f found, revision state.Revision) (sources.Snapshot, *tree.Dir, map[plumbing.Hash]*tree.Dir, error) {
	commit, err := f.objects.commit(f.hash)
	if err != nil {
		return sources.Snapshot{}, nil, nil, fmt.Errorf("read commit %s: %w", f.hash, err)
	}
	b := builder{objects: f.objects, old: s.dirs, dirs: map[plumbing.Hash]*tree.Dir{}}
	root, err := b.root(commit.TreeHash)
	if err != nil {
		return sources.Snapshot{}, nil, nil, fmt.Errorf("read the tree of commit %s: %w", f.hash, err)
	}
	said := describe(commit)
	if _, said.Raw, err = f.objects.bytes(f.hash, maxCommit); err != nil {
		return sources.Snapshot{}, nil, nil, fmt.Errorf("read commit %s: %w", f.hash, err)
	}
	return sources.Snapshot{
		Revision: revision,
		Label:    revision.Short(),
		Commit:   said,
	}, root, b.dirs, nil
}

// revisionOf is "main@sha1:…", or "commit@sha1:…" where no ref led to it.
func revisionOf(f found) state.Revision {
	return state.Revision(or(shortName(f.ref), "commit") + "@sha1:" + f.hash.String())
}

// movedTag says whether one tag names another commit than before.
func movedTag(before, now state.Revision) bool {
	was, _, _ := strings.Cut(string(before), "@")
	is, _, _ := strings.Cut(string(now), "@")
	return was == is && strings.HasPrefix(is, refs.Tags) && before != now
}

// classed puts every error of the other side into the class ErrUnavailable.
func classed(err error) error {
	if errors.Is(err, sources.ErrUnavailable) {
		return err
	}
	return &unavailableError{err}
}

// unavailableError adds the class without adding words.
type unavailableError struct{ err error }

// Error is what the other side says in part: no byte of it reaches a terminal that
// would take it for a command.
func (e *unavailableError) Error() string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(e.err.Error(), "\uFFFD"))
}

func (e *unavailableError) Unwrap() []error { return []error{e.err, sources.ErrUnavailable} }

// watchRefs watches what changes when a branch of a repository moves.
func watchRefs(path string) (*watch.Watcher, error) {
	l, err := Locate(path)
	if err != nil {
		return nil, err
	}
	w, err := watch.New(func(path string) bool { return filepath.Ext(path) == ".lock" })
	if err != nil {
		return nil, err
	}
	// HEAD and packed-refs are replaced by renames: their directories are watched.
	err = errors.Join(w.Add(l.GitDir), w.AddAll(filepath.Join(l.CommonDir, "refs")))
	if l.CommonDir != l.GitDir {
		err = errors.Join(err, w.Add(l.CommonDir))
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}
