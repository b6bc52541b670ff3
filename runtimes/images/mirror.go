package images

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A mirror is a registry that has copies of another's images, under the same
// paths. Whatever goes wrong with it, the next place is asked.
type mirror struct {
	registry

	host   string
	logger *slog.Logger
}

// at is an image as the mirror names it.
func (m mirror) at(n imageName) (imageName, error) {
	repository, err := name.NewRepository(m.host + "/" + n.ref.Context().RepositoryStr())
	if err != nil {
		return imageName{}, fmt.Errorf("mirror %s: %w", m.host, err)
	}
	there := n
	if _, ok := n.ref.(name.Digest); ok {
		there.ref = repository.Digest(n.ref.Identifier())
	} else {
		there.ref = repository.Tag(n.ref.Identifier())
	}
	return there, nil
}

// absent makes every failure one that asks the next place.
func (m mirror) absent(ctx context.Context, n imageName, err error) error {
	m.logger.LogAttrs(ctx, slog.LevelDebug, "asked past a mirror", slog.String("mirror", m.host), slog.String("image", n.written), slog.Any("err", err))
	return fmt.Errorf("%w: mirror %s: %w", errAbsent, m.host, err)
}

// find implements place.
func (m mirror) find(ctx context.Context, n imageName) (document, error) {
	there, err := m.at(n)
	if err != nil {
		return document{}, m.absent(ctx, n, err)
	}
	d, err := m.registry.find(ctx, there)
	if err != nil {
		return document{}, m.absent(ctx, n, err)
	}
	return d, nil
}

// document implements place.
func (m mirror) document(ctx context.Context, n imageName, d state.Digest) (document, error) {
	there, err := m.at(n)
	if err != nil {
		return document{}, m.absent(ctx, n, err)
	}
	doc, err := m.registry.document(ctx, there, d)
	if err != nil {
		return document{}, m.absent(ctx, n, err)
	}
	return doc, nil
}

// blob implements place. One that the mirror doesn't give is the registry's to
// give: its digest says that it is the same.
func (m mirror) blob(ctx context.Context, n imageName, d descriptor) (io.ReadCloser, error) {
	there, err := m.at(n)
	if err == nil {
		var r io.ReadCloser
		if r, err = m.registry.blob(ctx, there, d); err == nil {
			return r, nil
		}
	}
	if ctx.Err() != nil {
		return nil, err
	}
	_ = m.absent(ctx, n, err) // it is logged
	return m.registry.blob(ctx, n, d)
}

// opener implements grantor.
func (m mirror) opener(n imageName) key {
	there, err := m.at(n)
	if err != nil {
		return key{}
	}
	return m.registry.opener(there)
}
