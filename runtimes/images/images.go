package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Limits of what is read into memory.
const (
	manifestLimit  = 4 << 20 // what registries allow
	platformLimit  = 64      // entries of one index
	documentLimit  = 160     // indexes and manifests of one image
	indexDepth     = 2       // an index within an index
	layoutLimit    = 1000    // layouts below the given directories
	configLimit    = 8 << 20
	lookupParallel = 4
)

// Options say where images come from.
type Options struct {
	// Dirs hold OCI layouts: each is one, or has them in subdirectories. They
	// are read again at every look-up, so an image may be added meanwhile.
	Dirs []string
	// Offline: no registry is ever asked.
	Offline bool
	// Keychain has the credentials; nil: docker's configuration and helpers.
	Keychain authn.Keychain
	// Mirrors are asked before the registry that a name names: hosts by host,
	// docker.io being Docker Hub's. What a mirror doesn't have, or doesn't
	// answer, comes from the next and at last from the registry itself.
	Mirrors map[string][]string
	// Transport carries requests to registries; nil: the default one.
	Transport http.RoundTripper
	// Stall ends a request from which nothing comes for so long; zero:
	// DefaultStall.
	Stall time.Duration
	// Logger receives what an operator would look for; nil: nothing is logged.
	Logger *slog.Logger
}

// A Store finds images and reads their content. It is safe for concurrent use
// and holds nothing open.
type Store struct {
	layouts  layouts
	registry registry
	mirrors  map[string][]string
	offline  bool
	logger   *slog.Logger
}

// New returns a Store. It reads nothing yet.
func New(o Options) *Store {
	s := &Store{layouts: layouts{dirs: o.Dirs}, registry: newRegistry(o), mirrors: o.Mirrors, offline: o.Offline, logger: o.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	return s
}

// With is the Store as pods with these credentials see it. They are tried before
// the machine's own, for the registry that a name names and for its mirrors, each
// by its host.
func (s *Store) With(keys Credentials) *Store {
	out := *s
	out.registry.keys = keys
	return &out
}

// A LookupError says why an image could not be looked up or read.
type LookupError struct {
	Name string // the image, as written
	Code state.LookupCode
	Err  error
}

// Error is "image shop.example/web:1: not found: …".
func (e *LookupError) Error() string { return fmt.Sprintf("image %s: %s: %v", e.Name, e.Code, e.Err) }

// Unwrap returns the cause.
func (e *LookupError) Unwrap() error { return e.Err }

// errAbsent: this place has no such thing; the next one may.
var errAbsent = errors.New("absent")

// A coded error already knows its LookupCode.
type coded struct {
	code state.LookupCode
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

func malformed(format string, args ...any) error {
	return refused(state.LookupMalformed, format, args...)
}

func refused(code state.LookupCode, format string, args ...any) error {
	return &coded{code, fmt.Errorf(format, args...)}
}

// is says whether an error has a code.
func is(err error, code state.LookupCode) bool {
	c, ok := errors.AsType[*coded](err)
	return ok && c.code == code
}

// lookupError gives err the name of the image and its code.
func lookupError(written string, err error) error {
	var c *coded
	switch {
	case errors.As(err, &c):
		return &LookupError{Name: written, Code: c.code, Err: c.err}
	case errors.Is(err, errAbsent):
		return &LookupError{Name: written, Code: state.LookupNotFound, Err: err}
	default:
		return &LookupError{Name: written, Code: state.LookupUnavailable, Err: err}
	}
}

// A place is where an image may be: a layout directory or a registry.
type place interface {
	// find resolves a name to its index or manifest.
	find(ctx context.Context, n imageName) (document, error)
	// document reads an index or manifest by digest.
	document(ctx context.Context, n imageName, d state.Digest) (document, error)
	// blob opens a config or layer; the reader verifies size and digest.
	blob(ctx context.Context, n imageName, d descriptor) (io.ReadCloser, error)
}

// counted is a place that an image may ask so often and no more: indexes within
// an index multiply.
type counted struct {
	place
	asked atomic.Int32
}

// document implements place.
func (c *counted) document(ctx context.Context, n imageName, d state.Digest) (document, error) {
	if c.asked.Add(1) > documentLimit {
		return document{}, refused(state.LookupTooLarge, "more than %d indexes and manifests belong to it", documentLimit)
	}
	return c.place.document(ctx, n, d)
}

// A document is an index or a manifest as it was published.
type document struct {
	raw       []byte
	mediaType string
	digest    state.Digest
}

// places are asked for a name in this order. Registries are there unless we are
// offline.
func (s *Store) places(n imageName) ([]place, error) {
	found, err := s.layouts.open()
	if err != nil {
		return nil, err
	}
	if !s.offline {
		r := s.registry
		r.opened = &opened{by: map[string]key{}}
		for _, at := range s.mirrors[mirrored(n)] {
			found = append(found, mirror{r, at, s.logger})
		}
		found = append(found, r)
	}
	return found, nil
}

// mirrored is the host by which an image's mirrors are named.
func mirrored(n imageName) string {
	if host := n.ref.Context().RegistryStr(); host != name.DefaultRegistry {
		return host
	}
	return "docker.io"
}

// Look resolves a name ("web", "shop.example/web:1.4.0", "…@sha256:…") to the
// digest that it means now and the platforms behind it. When it can't, the
// error is a *LookupError, and the returned Image carries the code as well.
func (s *Store) Look(ctx context.Context, written string) (state.Image, error) {
	img, err := s.look(ctx, written)
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err() // no matter how a transport words it
	}
	wrapped := lookupError(written, err)
	failed := state.Image{Name: written}
	if le, ok := errors.AsType[*LookupError](wrapped); ok {
		failed.Failure = le.Code
	}
	return failed, wrapped
}

func (s *Store) look(ctx context.Context, written string) (state.Image, error) {
	n, err := parseName(written)
	if err != nil {
		return state.Image{}, err
	}
	places, err := s.places(n)
	if err != nil {
		return state.Image{}, err
	}
	var absent error
	for _, p := range places {
		doc, err := p.find(ctx, n)
		if errors.Is(err, errAbsent) {
			absent = err
			continue
		}
		if err != nil {
			return state.Image{}, err
		}
		img := state.Image{Name: written, Index: doc.digest}
		img.Platforms, err = platforms(ctx, &counted{place: p}, n, doc)
		return img, err
	}
	return state.Image{}, s.nowhere("no such image", absent)
}

// nowhere says where was looked, and what was said there last, so that the remedy
// is plain.
func (s *Store) nowhere(what string, absent error) error {
	where := "the registry"
	switch {
	case len(s.layouts.dirs) > 0 && s.offline:
		where = fmt.Sprintf("%v, and registries are not asked", s.layouts.dirs)
	case len(s.layouts.dirs) > 0:
		where = fmt.Sprintf("%v and the registry", s.layouts.dirs)
	case s.offline:
		where = "any place: no directory of images is given and registries are not asked"
	}
	if said, ok := errors.AsType[*hidden](absent); ok {
		return &coded{state.LookupNotFound, fmt.Errorf("%s in %s: %w; push it, or check name and tag", what, where, said)}
	}
	return &coded{state.LookupNotFound, fmt.Errorf("%s in %s", what, where)}
}
