// Package watch turns file system events into hints that something changed.
//
//	directory, refs ──events──► [ watch ] ──hint──► sources/dir, sources/git
//
// In: directories. Out: one channel that says "look again", never what changed:
// events get lost, so who is hinted compares what is there with what it knew.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A Watcher hints at changes below directories until it is closed.
type Watcher struct {
	notify *fsnotify.Watcher
	skip   func(path string) bool
	hints  chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	roots   []string // watched with all that is below
	changed string   // a path that changed lately
	err     error
}

// New makes a Watcher that leaves out the directories and the files for which
// skip says true; skip may be nil.
func New(skip func(path string) bool) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, explain("", err)
	}
	if skip == nil {
		skip = func(string) bool { return false }
	}
	w := &Watcher{notify: notify, skip: skip, hints: make(chan struct{}, 1)}
	w.done.Go(w.run)
	return w, nil
}

// Close stops the hints and waits for what the Watcher had started.
func (w *Watcher) Close() error {
	err := w.notify.Close()
	w.done.Wait()
	return err
}

// Add watches one directory alone, without what is below.
func (w *Watcher) Add(dir string) error {
	if err := w.notify.Add(dir); err != nil {
		return explain(dir, err)
	}
	return nil
}

// AddAll watches a directory and all directories below, also those to come.
func (w *Watcher) AddAll(root string) error {
	w.mu.Lock()
	w.roots = append(w.roots, root)
	w.mu.Unlock()
	return w.addBelow(root)
}

func (w *Watcher) addBelow(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != dir:
			return nil // it went while we walked
		case errors.Is(err, fs.ErrPermission) && path != dir:
			return fs.SkipDir // who reads the tree says so of the file
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case path != dir && w.skip(path):
			return fs.SkipDir
		}
		if err := w.notify.Add(path); err != nil && (!errors.Is(err, fs.ErrNotExist) || path == dir) && !errors.Is(err, fs.ErrPermission) {
			return explain(path, err)
		}
		return nil
	})
}

// Hints carries a value after a change. Several changes may give one hint.
func (w *Watcher) Hints() <-chan struct{} { return w.hints }

// Err is why hints may be missing, or nil. The caller should look by itself now
// and then.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Changed is a path that changed lately, to be named in messages.
func (w *Watcher) Changed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Quiet waits until there was no hint for the given time, but no longer than
// most. It says whether it became quiet.
func (w *Watcher) Quiet(ctx context.Context, quiet, most time.Duration) (bool, error) {
	end := time.NewTimer(most)
	defer end.Stop()
	for {
		timer := time.NewTimer(quiet)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-end.C:
			timer.Stop()
			return false, nil
		case <-timer.C:
			return true, nil
		case <-w.hints:
			timer.Stop()
		}
	}
}

func (w *Watcher) run() {
	events, errs := w.notify.Events, w.notify.Errors
	for events != nil || errs != nil {
		select {
		case event, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if event.Op == fsnotify.Chmod || w.skip(event.Name) {
				continue
			}
			if event.Has(fsnotify.Create) && w.below(event.Name) {
				// A new directory may have been filled before it is watched: the
				// hint comes after the watch.
				if err := w.addBelow(event.Name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
					w.fail(err)
				}
			}
			w.hint(event.Name)
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			w.fail(explain("", err))
			w.hint("")
		}
	}
}

// below says whether a directory made at path is to be watched.
func (w *Watcher) below(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, root := range w.roots {
		if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

func (w *Watcher) hint(path string) {
	w.mu.Lock()
	w.changed = path
	w.mu.Unlock()
	select {
	case w.hints <- struct{}{}:
	default: // one is waiting already
	}
}

func (w *Watcher) fail(err error) {
	if errors.Is(err, fsnotify.ErrEventOverflow) {
		return // the hint that follows it is all that is needed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func explain(path string, err error) error {
	if remedy := limitRemedy(err); remedy != "" {
		return fmt.Errorf("watch %s: %w: %s", path, err, remedy)
	}
	return fmt.Errorf("watch %s: %w", path, err)
}
