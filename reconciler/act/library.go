package act

import (
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Shelf keeps bytes by name on disk.
type Shelf interface {
	// Put makes the bytes durable under a digest; the same again is no error.
	Put(name state.Digest, raw []byte) error
	// Open gives them back, or an error that names what is missing or damaged.
	Open(name state.Digest) ([]byte, error)
}

// ManifestCodec is the stored form of manifests: secret values encrypted.
type ManifestCodec interface {
	Encode(m *state.Manifest) ([]byte, error)
	Decode(raw []byte) (*state.Manifest, error)
}

// A Library finds manifests and templates by digest: in memory while they are
// in use, else on the shelf. It is safe for concurrent use.
type Library struct {
	shelf Shelf
	codec ManifestCodec

	mu        sync.Mutex
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
	stored    map[state.Digest]bool
	order     []state.Digest // of what is in memory, oldest first
}

// Named limits. What the state uses it holds itself; the library only saves
// reading the same thing twice.
const (
	maxInMemory = 4096
	maxStored   = 100_000
)

// keep notes that something is in memory, and lets go of the oldest that can be
// read again.
func (l *Library) keep(d state.Digest) {
	l.order = append(l.order, d)
	for n := len(l.order) - maxInMemory; n > 0; n-- {
		oldest := l.order[0]
		l.order = l.order[1:]
		if !l.stored[oldest] {
			l.order = append(l.order, oldest)
			continue
		}
		delete(l.manifests, oldest)
		delete(l.templates, oldest)
	}
}

// NewLibrary is a library over a shelf.
func NewLibrary(shelf Shelf, codec ManifestCodec) *Library {
	return &Library{
		shelf: shelf, codec: codec,
		manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{}, stored: map[state.Digest]bool{},
	}
}

// Manifest implements state.Blobs.
func (l *Library) Manifest(d state.Digest) (*state.Manifest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.manifests[d]; m != nil {
		return m, nil
	}
	raw, err := l.shelf.Open(d)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Short(), err)
	}
	m, err := l.codec.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Short(), err)
	}
	if m.Digest != d {
		return nil, fmt.Errorf("manifest %s: its content is manifest %s", d.Short(), m.Digest.Short())
	}
	l.manifests[d], l.stored[d] = m, true
	l.keep(d)
	return m, nil
}

// Template implements state.Blobs.
func (l *Library) Template(d state.Digest) (*state.Template, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.templates[d]; t != nil {
		return t, nil
	}
	raw, err := l.shelf.Open(d)
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", d.Short(), err)
	}
	t, err := state.ParseTemplate(raw)
	if err != nil {
		return nil, err
	}
	if t.Digest != d {
		return nil, fmt.Errorf("template %s: its content is template %s", d.Short(), t.Digest.Short())
	}
	l.templates[d], l.stored[d] = t, true
	l.keep(d)
	return t, nil
}

// remember makes a new blob findable before it is stored.
func (l *Library) remember(b reconciler.Blob) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Manifest != nil {
		if l.manifests[b.Digest] == nil {
			l.keep(b.Digest)
		}
		l.manifests[b.Digest] = b.Manifest
		return
	}
	if l.templates[b.Digest] == nil {
		l.templates[b.Digest] = b.Compiled // it never changes: whoever folds may share it
		l.keep(b.Digest)
	}
}

// maxStores is how many blobs are written at a time: a file system makes many
// files durable with one write of its journal.
const maxStores = 32

// storeAll makes blobs durable, each digest once.
func (l *Library) storeAll(blobs []reconciler.Blob) error {
	if len(blobs) == 1 {
		return l.store(blobs[0])
	}
	var all errgroup.Group
	all.SetLimit(maxStores)
	seen := map[state.Digest]bool{}
	for _, b := range blobs {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			all.Go(func() error { return l.store(b) })
		}
	}
	return all.Wait()
}

// store makes a blob durable.
func (l *Library) store(b reconciler.Blob) error {
	l.mu.Lock()
	done := l.stored[b.Digest]
	l.mu.Unlock()
	if done {
		return nil
	}
	raw := b.Template
	if b.Manifest != nil {
		var err error
		if raw, err = l.codec.Encode(b.Manifest); err != nil {
			return err
		}
	}
	if err := l.shelf.Put(b.Digest, raw); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stored) > maxStored {
		clear(l.stored) // it is only asked again whether it is there
	}
	l.stored[b.Digest] = true
	return nil
}
