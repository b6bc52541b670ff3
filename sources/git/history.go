package git

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/tandem-gitops/tandem/sources"
)

// MaxHistory is how many commits of a branch are looked at.
const MaxHistory = 2_000_000

var _ sources.Historian = (*Source)(nil)

// history knows how commits follow one another. What it fetches is commits
// alone, where the server can leave files out, into a store beside the one that
// snapshots are read from.
type history struct {
	mu      sync.Mutex
	source  *Source
	objects *objects      // of a repository on this machine
	remote  *remoteOrigin // otherwise
}

// Descends implements sources.Historian.
func (s *Source) Descends(ctx context.Context, commit, from string) (bool, error) {
	if commit == from {
		return true, nil
	}
	found := false
	stop := errors.New("found")
	err := s.walk(ctx, commit, nil, func(hash plumbing.Hash, _ []byte, parents []plumbing.Hash) error {
		found = found || hash.String() == from || slices.Contains(parents, plumbing.NewHash(from))
		if found {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return found, err
}

// Since implements sources.Historian.
func (s *Source) Since(ctx context.Context, commit, known string, visit func(hash string, raw []byte) error) error {
	without := map[plumbing.Hash]bool{}
	if known != "" {
		err := s.walk(ctx, commit, map[plumbing.Hash]bool{}, func(plumbing.Hash, []byte, []plumbing.Hash) error { return errStop })
		if err != nil && !errors.Is(err, errStop) { // commit's history is at hand now, and so is known's if it is part of it
			return err
		}
		if err := s.walk(ctx, known, nil, func(hash plumbing.Hash, _ []byte, _ []plumbing.Hash) error {
			without[hash] = true
			return nil
		}); err != nil {
			return err
		}
	}
	return s.walk(ctx, commit, without, func(hash plumbing.Hash, raw []byte, _ []plumbing.Hash) error { return visit(hash.String(), raw) })
}

var errStop = errors.New("stop")

// walk visits a commit and its ancestors, each once, nearest first, without
// those in without and what only they lead to.
func (s *Source) walk(ctx context.Context, commit string, without map[plumbing.Hash]bool, visit func(plumbing.Hash, []byte, []plumbing.Hash) error) error {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	head := plumbing.NewHash(commit)
	objects, err := s.history.at(ctx, head)
	if err != nil {
		return classed(fmt.Errorf("git %s: read the history of %s: %w", s.address.text, commit, err))
	}
	queue := []plumbing.Hash{head}
	seen := map[plumbing.Hash]bool{head: true}
	for len(queue) > 0 {
		hash := queue[0]
		queue = queue[1:]
		if without[hash] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		kind, raw, err := objects.bytes(hash, maxCommit)
		if err != nil || kind != plumbing.CommitObject {
			return classed(fmt.Errorf("git %s: the history of %s ends at %s, which isn't there (a shallow clone has no more): %w", s.address.text, commit, hash, errors.Join(err, sources.ErrNotFound)))
		}
		c, err := objects.commit(hash)
		if err != nil {
			return classed(err)
		}
		if err := visit(hash, raw, c.ParentHashes); err != nil {
			return err
		}
		for _, p := range c.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
		if len(seen) > MaxHistory {
			return fmt.Errorf("git %s: the history of %s has more than %d commits (git.MaxHistory): %w", s.address.text, commit, MaxHistory, sources.ErrUnavailable)
		}
	}
	return nil
}

// at gives the objects that have a commit with its whole history.
func (h *history) at(ctx context.Context, head plumbing.Hash) (*objects, error) {
	s := h.source
	if s.address.scheme == local {
		if h.objects == nil {
			l, err := Locate(s.address.path)
			if err != nil {
				return nil, err
			}
			h.objects, err = openObjects(l.open, l.CommonDir)
			if err != nil {
				return nil, err
			}
		}
		return h.objects, nil
	}
	if h.remote == nil {
		opened, err := openStore(filepath.Join(s.options.Cache, "history"))
		if err != nil {
			return nil, fmt.Errorf("open the store: %w", err)
		}
		h.remote = &remoteOrigin{address: s.address, options: &s.options, logger: s.logger, store: opened}
	}
	if len(h.remote.store.whole) > 0 {
		if _, err := h.remote.store.objects.commit(head); err == nil {
			return h.remote.store.objects, nil // the store has whole histories only
		}
	}
	return h.remote.store.objects, h.fetch(ctx, head)
}

// fetch gets a commit's history, as far as the store lacks it.
func (h *history) fetch(ctx context.Context, head plumbing.Hash) error {
	o := h.remote
	if o.store.full() {
		if err := o.store.renew(); err != nil {
			return err
		}
	}
	s, err := dial(ctx, o.address, o.options.Auth)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	advertised, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		return explain(err)
	}
	request := packp.NewUploadPackRequest()
	request.Wants = []plumbing.Hash{head}
	request.Haves = o.store.tips()
	for name, peeled := range advertised.Peeled {
		if peeled == head {
			request.Wants = []plumbing.Hash{advertised.References[name]} // servers take what they name: the tag, not its commit
		}
	}
	if isTip(advertised, head) {
		request.Wants = []plumbing.Hash{head}
	}
	offered := advertised.Capabilities
	for _, c := range []capability.Capability{capability.OFSDelta, capability.Sideband64k, capability.NoProgress} {
		if offered.Supports(c) {
			err = errors.Join(err, request.Capabilities.Set(c))
		}
	}
	if offered.Supports(capability.Filter) {
		err = errors.Join(err, request.Capabilities.Set(capability.Filter))
		request.Filter = packp.FilterTreeDepth(0)
	}
	if err != nil {
		return err
	}
	return explain(o.receive(ctx, s, request, request.Wants))
}
