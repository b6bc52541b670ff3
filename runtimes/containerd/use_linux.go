package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// ImageBytes is what images take on the disk: their blobs, and their layers
// unpacked. What containers write isn't in it.
func (r *Runtime) ImageBytes(ctx context.Context) (int64, error) {
	c, err := r.get(ctx)
	if err != nil {
		return 0, err
	}
	ctx = r.inNamespace(ctx)
	var sum int64
	err = c.ContentStore().Walk(ctx, func(i content.Info) error {
		sum += i.Size
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("add up the blobs of images: %w", classify(err))
	}
	s := c.SnapshotService(r.snapshotter)
	err = s.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if i.Kind != snapshots.KindCommitted {
			return nil // a container's own
		}
		u, err := s.Usage(ctx, i.Name)
		sum += u.Size
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("add up the layers of images: %w", classify(err))
	}
	return sum, nil
}
