package images

import (
	"context"
	"errors"
	"io"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Content is one platform of an image, ready to be copied into a runtime's own
// store. The layers are opened one by one, in any order, at once if wanted.
type Content struct {
	Digest    state.Digest // of the manifest
	MediaType string
	Manifest  []byte
	Config    Blob
	Layers    []Blob // the lowest first

	key key // what its registry let us in for
}

// A Blob is a piece of content by digest.
type Blob struct {
	Digest    string // "sha256:…"
	MediaType string
	Size      int64 // bytes
	open      func(context.Context) (io.ReadCloser, error)
}

// Open reads the blob. The reader fails at its end, instead of ending, when the
// bytes aren't the ones that the digest names.
func (b Blob) Open(ctx context.Context) (io.ReadCloser, error) { return b.open(ctx) }

// A grantor knows which key opened the repository of an image.
type grantor interface{ opener(n imageName) key }

// Fetch finds the content of one platform: the manifest with this digest, in a
// layout directory or else in the registry of name. Errors are *LookupError.
func (s *Store) Fetch(ctx context.Context, name string, digest state.Digest) (*Content, error) {
	c, err := s.fetch(ctx, name, digest)
	if err != nil {
		return nil, lookupError(name, err)
	}
	return c, nil
}

func (s *Store) fetch(ctx context.Context, name string, digest state.Digest) (*Content, error) {
	n, err := parseName(name)
	if err != nil {
		return nil, err
	}
	if digest.IsZero() {
		return nil, malformed("the digest of its manifest is not given")
	}
	places, err := s.places(n)
	if err != nil {
		return nil, err
	}
	var absent error
	for _, p := range places {
		doc, err := p.document(ctx, n, digest)
		if errors.Is(err, errAbsent) {
			absent = err
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := decodeManifest(doc)
		if err != nil {
			return nil, err
		}
		var k key
		if g, ok := p.(grantor); ok {
			k = g.opener(n)
		}
		mediaType, err := typed(doc)
		if err != nil {
			return nil, err
		}
		c := &Content{key: k, Digest: digest, MediaType: mediaType, Manifest: doc.raw, Config: s.newBlob(p, n, m.Config)}
		for _, l := range m.Layers {
			c.Layers = append(c.Layers, s.newBlob(p, n, l))
		}
		return c, nil
	}
	return nil, s.nowhere("no manifest "+digest.String(), absent)
}

func (s *Store) newBlob(p place, n imageName, d descriptor) Blob {
	return Blob{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, open: func(ctx context.Context) (io.ReadCloser, error) {
		r, err := p.blob(ctx, n, d)
		if err != nil {
			return nil, lookupError(n.written, err)
		}
		return named{r, n.written}, nil
	}}
}

// named gives errors of a blob's content the name of the image, and their code.
type named struct {
	io.ReadCloser

	image string
}

// Read implements io.Reader.
func (r named) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a reader's end is the value itself
		err = lookupError(r.image, classify(err))
	}
	return n, err
}
