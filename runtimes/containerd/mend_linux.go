package containerd

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tandem-gitops/tandem/runtimes"
)

// throwDamaged looks through an image's content in containerd's store and throws
// away what isn't what its digest says: a disk that lost blocks, a power cut. It
// returns the digests.
func (r *Runtime) throwDamaged(ctx context.Context, image runtimes.Image) ([]string, error) {
	found, err := r.o.Images.Fetch(ctx, image.Name, image.Digest)
	if err != nil {
		return nil, nil //nolint:nilerr // nothing to replace it with: the first failure tells
	}
	c, err := r.get(ctx)
	if err != nil {
		return nil, err
	}
	store := c.ContentStore()
	blobs := []ocispec.Descriptor{
		{Digest: digest.Digest(image.Digest.String()), Size: int64(len(found.Manifest))},
		{Digest: digest.Digest(found.Config.Digest), Size: found.Config.Size},
	}
	for _, l := range found.Layers {
		blobs = append(blobs, ocispec.Descriptor{Digest: digest.Digest(l.Digest), Size: l.Size})
	}
	var thrown []string
	for _, blob := range blobs {
		if whole(ctx, store, blob) {
			continue
		}
		if err := store.Delete(ctx, blob.Digest); err != nil && !errdefs.IsNotFound(err) {
			return thrown, fmt.Errorf("throw away the damaged %s: %w", blob.Digest, err)
		}
		thrown = append(thrown, blob.Digest.String())
	}
	if len(thrown) == 0 {
		return nil, nil
	}
	// Only containerd's collector takes the file away, and a file that is there
	// isn't written again.
	service := c.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID())
	if err == nil {
		err = service.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return thrown, fmt.Errorf("collect the damaged content: %w", err)
	}
	return thrown, nil
}

// whole says whether content is here and what its digest says; what isn't here
// needs no throwing away.
func whole(ctx context.Context, store content.Store, blob ocispec.Descriptor) bool {
	if _, err := store.Info(ctx, blob.Digest); errdefs.IsNotFound(err) {
		return true
	}
	from, err := store.ReaderAt(ctx, blob)
	if err != nil {
		return false
	}
	defer from.Close()
	verifier := blob.Digest.Verifier()
	if _, err := io.Copy(verifier, content.NewReader(from)); err != nil {
		return false
	}
	return from.Size() == blob.Size && verifier.Verified()
}
