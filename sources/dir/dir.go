package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/tree"
	"github.com/tandem-gitops/tandem/sources/watch"
)

// Options say which directory to follow.
type Options struct {
	Path   string
	Ignore []string     // paths below it that are not part of the tree, such as our own data
	Logger *slog.Logger // nil discards
}

// Times of following a directory.
const (
	settle   = 100 * time.Millisecond // without an event, before the tree is read
	restless = 10 * time.Second       // of constant change, before that is an error
	interval = 10 * time.Second       // between looks that no event asked for
	unheard  = time.Second            // the same where nothing can be watched
)

// Source follows one directory. It holds nothing open between two calls of Next.
// It is safe for concurrent use; callers take turns.
type Source struct {
	path   string
	ignore []string
	logger *slog.Logger
	turn   chan struct{} // holds one value while nobody looks

	pace    sources.Pace
	current sources.Snapshot
	looked  atomic.Int64     // when the directory last could be read, wall nanoseconds; 0: never
	files   map[string]known // of the last scan, by path
	head    *git.Head
}

var _ sources.Source = (*Source)(nil)

// New makes a Source of an existing directory.
func New(options Options) (*Source, error) {
	path, err := filepath.Abs(options.Path)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", options.Path, err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, state.Problem{Cause: "there is no directory " + options.Path, Remedy: "give the path of a directory with manifests"}
	case err != nil:
		return nil, fmt.Errorf("follow %s: %w", options.Path, err)
	case !info.IsDir():
		return nil, state.Problem{Cause: options.Path + " is not a directory", Remedy: "give the directory that it lies in"}
	}
	s := &Source{path: path, logger: options.Logger, turn: make(chan struct{}, 1), pace: sources.Pace{Interval: interval, Longest: interval}}
	for _, p := range options.Ignore {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("leave out %s: %w", p, err)
		}
		s.ignore = append(s.ignore, abs)
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.logger = s.logger.With(slog.String("source", path))
	s.turn <- struct{}{}
	return s, nil
}

// Looked is when the directory could last be read; zero if it never could.
func (s *Source) Looked() time.Time {
	if at := s.looked.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// Next waits for contents whose revision is not last. The first call looks at
// once; later ones when something changed and then was quiet for a tenth of a
// second.
func (s *Source) Next(ctx context.Context, last state.Revision) (sources.Snapshot, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return sources.Snapshot{}, ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	for wait := s.pace.Failing(); ; wait = true {
		changed, err := s.cycle(ctx, last, wait)
		if ctx.Err() != nil {
			return sources.Snapshot{}, ctx.Err()
		}
		if err != nil {
			return sources.Snapshot{}, fmt.Errorf("directory %s: %w", s.path, err)
		}
		if changed {
			return s.current, nil
		}
	}
}

// cycle arms the watch, waits if there is nothing to expect yet, and looks. The
// watch comes before the look, so nothing falls between them; it is a new one
// each time, for the directory may be replaced by another of its name.
func (s *Source) cycle(ctx context.Context, last state.Revision, wait bool) (bool, error) {
	root, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		root = s.path // the look tells
	}
	w, err := s.watch(root)
	if w != nil {
		defer func() { _ = w.Close() }()
	}
	if err != nil {
		s.logger.LogAttrs(ctx, slog.LevelDebug, "watched nothing, looks every second", slog.Any("err", err))
		s.pace.Interval = unheard
	} else {
		s.pace.Interval = interval
	}
	var changed bool
	for first := !wait; ; first = false {
		if !first {
			if err := s.pace.Wait(ctx, hints(w)); err != nil {
				return false, err
			}
		}
		err := s.look(ctx, root, w, !first)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		s.pace.Looked(err)
		if err != nil {
			return false, errors.Join(sources.ErrUnavailable, err)
		}
		s.looked.Store(time.Now().UnixNano())
		if changed = s.current.Revision != last; changed || !first {
			return changed, nil
		}
	}
}

func hints(w *watch.Watcher) <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.Hints()
}

func (s *Source) watch(root string) (*watch.Watcher, error) {
	w, err := watch.New(func(path string) bool { return s.skip(root, path) })
	if err != nil {
		return nil, err
	}
	if err := w.AddAll(root); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// skip says whether a path below root is no part of the tree.
func (s *Source) skip(root, path string) bool {
	if filepath.Base(path) == ".git" {
		return true
	}
	if rel, err := filepath.Rel(root, path); err == nil {
		path = filepath.Join(s.path, rel)
	}
	return slices.ContainsFunc(s.ignore, func(ignored string) bool {
		rel, err := filepath.Rel(ignored, path)
		return err == nil && filepath.IsLocal(rel)
	})
}

// look reads the directory until nothing changed while it was read.
func (s *Source) look(ctx context.Context, root string, w *watch.Watcher, changing bool) error {
	end := time.Now().Add(restless)
	for {
		if changing && w != nil {
			quiet, err := w.Quiet(ctx, settle, restless)
			if err != nil {
				return err
			}
			if !quiet {
				return fmt.Errorf("it doesn't come to rest (%s keeps changing): keep what programs write out of it", w.Changed())
			}
		}
		scan := scanner{source: s, base: root, old: s.files, files: map[string]known{}, contents: map[string][]byte{}}
		dir, err := scan.scan(ctx)
		if err != nil {
			return err
		}
		if w == nil || !hinted(w) {
			s.files = scan.files
			return s.take(ctx, root, dir, &scan)
		}
		if changing = true; time.Now().After(end) {
			return fmt.Errorf("it doesn't come to rest (%s keeps changing): keep what programs write out of it", w.Changed())
		}
	}
}

func hinted(w *watch.Watcher) bool {
	select {
	case <-w.Hints():
		return true
	default:
		return false
	}
}

// take makes the snapshot of a scan.
func (s *Source) take(ctx context.Context, root string, dir *tree.Dir, scan *scanner) error {
	revision := state.Revision("dir@sha256:" + hashOf(dir))
	if revision == s.current.Revision {
		return nil
	}
	label, commit := filepath.Base(s.path), sources.Commit{}
	head, err := git.HeadAround(root, s.head)
	switch {
	case errors.Is(err, sources.ErrNotFound):
	case err != nil:
		s.logger.LogAttrs(ctx, slog.LevelWarn, "read no label from Git", slog.Any("err", err))
	default:
		s.head = head
		uncommitted := scan.uncommitted(root, head, dir)
		label = state.Revision(head.Branch + "@sha1:" + head.Commit.Hash).Short()
		switch uncommitted {
		case 0:
			commit = head.Commit
		case 1:
			label += " + 1 uncommitted file"
		default:
			label += fmt.Sprintf(" + %d uncommitted files", uncommitted)
		}
	}
	s.current = sources.Snapshot{
		Revision: revision,
		Label:    label,
		Commit:   commit,
		FS:       tree.New(dir, memory(scan.contents), time.Time{}),
	}
	s.logger.LogAttrs(ctx, slog.LevelInfo, "read directory", slog.String("rev", string(revision)))
	return nil
}
