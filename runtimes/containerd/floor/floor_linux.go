package floor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Floor starts containers of one image.
type Floor struct {
	client *client.Client
	image  client.Image
	dir    string
	group  string
}

// Options say where the image is: in the containerd of a runtime that is open.
type Options struct {
	RunDir string // the runtime's
	Group  string // the runtime's; containers are below it
	Image  state.Digest
}

const space = "tandem" // the runtime's word in containerd

// Open finds the image.
func Open(ctx context.Context, o Options) (*Floor, error) {
	c, err := client.New(filepath.Join(o.RunDir, "containerd.sock"), client.WithDefaultNamespace(space))
	if err != nil {
		return nil, fmt.Errorf("dial containerd: %w", err)
	}
	img, err := c.GetImage(namespaces.WithNamespace(ctx, space), "tandem/"+o.Image.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the image: %w", err), c.Close())
	}
	return &Floor{c, img, filepath.Join(o.RunDir, "runc"), o.Group}, nil
}

// Close lets go of containerd.
func (f *Floor) Close() error { return f.client.Close() }

// Start starts n containers, so many at once, says how long that took, and
// removes them.
func (f *Floor) Start(ctx context.Context, n, parallel int) (took time.Duration, err error) {
	ctx = namespaces.WithNamespace(ctx, space)
	defer func() {
		for i := range n {
			err = errors.Join(err, f.remove(context.WithoutCancel(ctx), name(i)))
		}
	}()
	start := time.Now()
	all, each := errgroup.WithContext(ctx)
	all.SetLimit(parallel)
	for i := range n {
		all.Go(func() error { return f.start(each, name(i)) })
	}
	if err := all.Wait(); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func name(i int) string { return fmt.Sprintf("floor-%d", i) }

func (f *Floor) start(ctx context.Context, id string) error {
	made, err := f.client.NewContainer(ctx, id, client.WithImage(f.image), client.WithNewSnapshot(id, f.image),
		client.WithRuntime("io.containerd.runc.v2", &options.Options{Root: f.dir}),
		client.WithNewSpec(oci.WithImageConfig(f.image), oci.WithCgroup(f.group+"/"+id), seccomp.WithDefaultProfile()))
	if err != nil {
		return fmt.Errorf("make container %s: %w", id, err)
	}
	task, err := made.NewTask(ctx, cio.NullIO)
	if err != nil {
		return fmt.Errorf("make the process of %s: %w", id, err)
	}
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("start the process of %s: %w", id, err)
	}
	return nil
}

func (f *Floor) remove(ctx context.Context, id string) error {
	made, err := f.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	if task, err := made.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the process of %s: %w", id, err)
		}
	}
	if err := made.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}
