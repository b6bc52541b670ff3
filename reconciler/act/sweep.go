package act

import (
	"context"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/sources"
)

// A sweep is a look at what a new snapshot touches, over all that follow one
// source: most of thousands aren't touched, and the machine is told of these at once.
type sweep struct {
	feeds   *Feeds
	snap    *sources.Snapshot
	before  *sources.Snapshot // nil: none
	touched map[string]bool   // paths that may be otherwise than before; nil: nobody knows
	had     map[state.AppName]state.Revision
	rewound map[state.Revision]bool // whether the snapshot doesn't follow from it, or nobody knows
}

// sweep wakes the subscribers that a snapshot may touch, and says of all others
// that it doesn't.
func (f *Feeds) sweep(ctx context.Context, before, snap *sources.Snapshot, subs []*subscriber) {
	w := &sweep{feeds: f, snap: snap, before: before, had: map[state.AppName]state.Revision{}, rewound: map[state.Revision]bool{}}
	if before != nil {
		if tree, ok := snap.FS.(sources.Comparer); ok {
			w.touched, _ = tree.Changed(before.FS)
		}
	}
	f.c.View(func(st *state.State) {
		for _, s := range subs {
			if a := st.Apps[s.app.Name]; a != nil {
				w.had[s.app.Name] = a.Revision
			}
		}
	})
	var same []*subscriber
	for _, s := range subs {
		if w.passes(ctx, s) {
			same = append(same, s)
		} else {
			s.wake()
		}
	}
	if len(same) == 0 {
		return
	}
	f.remember(snap)
	e := &state.UnchangedAll{Revision: snap.Revision, Commit: f.commit(snap)}
	root := false
	for _, s := range same {
		e.Apps = append(e.Apps, s.app.Name)
		root = root || s.app.Name == state.RootApp
	}
	slices.Sort(e.Apps)
	mark := f.c.mark(e)
	f.mu.Lock()
	for _, s := range same {
		s.looked = mark
	}
	f.mu.Unlock()
	if root {
		f.trust(snap)
	}
}

// passes says whether the snapshot is known to touch nothing of a subscriber's,
// and then counts as what it rendered last. Whoever is at work, has signatures to
// verify or may be rewound decides that in its own time.
func (w *sweep) passes(ctx context.Context, s *subscriber) bool {
	if !s.busy.TryLock() {
		return false
	}
	defer s.busy.Unlock()
	w.feeds.mu.Lock()
	own := s.anew || s.ill // there is more to say
	w.feeds.mu.Unlock()
	if !s.rendered || own || s.moved || s.again != nil || s.last == w.snap.Revision || s.app.Source.Verify.Mode != 0 || w.isRewound(ctx, s) || !w.unchanged(s) {
		return false
	}
	s.last = w.snap.Revision
	return true
}

// isRewound asks once a revision, not once a subscriber.
func (w *sweep) isRewound(ctx context.Context, s *subscriber) bool {
	had := w.had[s.app.Name]
	if w.snap.Commit.Hash == "" || refOf(had) != refOf(w.snap.Revision) {
		return false // there is nothing to follow from
	}
	is, asked := w.rewound[had]
	if !asked {
		var err error
		is, err = w.feeds.rewound(ctx, s, w.snap, had)
		is = is || err != nil
		w.rewound[had] = is
	}
	return is
}

// unchanged says whether a render would read what it read. Where it is known what
// the snapshot touches, only who read of that is looked at.
func (w *sweep) unchanged(s *subscriber) bool {
	if w.touched != nil && s.last == w.before.Revision && !slices.ContainsFunc(s.reads, func(r state.Read) bool {
		return w.touched[strings.TrimSuffix(r.Path, "/")]
	}) {
		return true
	}
	return render.Unchanged(w.snap.FS, s.reads)
}
