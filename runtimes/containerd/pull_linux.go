package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const (
	pullTimeout   = 6 * time.Hour // one that stalls ends long before: images.DefaultStall
	layerParallel = 3
	nameLabel     = "tandem.dev/name"
)

func (r *Runtime) inNamespace(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}

// A pull is under way or done; one for each digest, shared by all who ask.
type pull struct {
	done   chan struct{}
	damage error     // why what was here won't do
	keyed  bool      // with credentials of the pod that asked first
	image  *unpacked // written under Runtime.mu; read under it, or after done
	err    error
}

// An unpacked image is what Run needs of it.
type unpacked struct {
	digest state.Digest
	config ocispec.Image
	chain  string // the snapshot of all its layers
}

// imagePrefix begins the names of our images in containerd.
const imagePrefix = "tandem/"

func imageRecord(d state.Digest) string { return imagePrefix + d.String() }

// Pull makes an image present and unpacked. The digest is fixed, so Always asks
// no registry for what is here already, unless it came with the credentials of
// another pod: then this one's must suffice.
func (r *Runtime) Pull(ctx context.Context, image runtimes.Image) error {
	joined, err := r.pullOnce(ctx, image)
	if joined && err != nil && ctx.Err() == nil {
		_, err = r.pullOnce(ctx, image) // with its own credentials
	}
	if err != nil || image.Policy != "Always" {
		return err
	}
	if err := r.ledger.May(ctx, r.o.Images.With(image.Credentials), image.Name, image.Digest); err != nil {
		return fmt.Errorf("pull %s: %w", image.Name, classifyImage(err))
	}
	return nil
}

// pullOnce is Pull but for the question who may have it. Joined: it waited for a
// pull whose credentials may be others than these.
func (r *Runtime) pullOnce(ctx context.Context, image runtimes.Image) (joined bool, err error) {
	if image.Digest.IsZero() {
		return false, fmt.Errorf("pull %s: %w: no digest is known, so it can't be told what to run", image.Name, runtimes.ErrRejected)
	}
	if err := r.stays(ctx, image.Digest); err != nil {
		return false, fmt.Errorf("pull %s: %w", image.Name, err)
	}
	_, damage := r.image(ctx, image.Digest)
	if damage == nil || !errors.Is(damage, runtimes.ErrNotFound) {
		return false, damage
	}
	if !errors.Is(damage, errDamaged) {
		damage = nil // it isn't here, that is all
	}
	if image.Policy == "Never" {
		if damage != nil {
			return false, fmt.Errorf("pull %s: %w; imagePullPolicy is Never, so it is not fetched again", image.Name, damage)
		}
		return false, fmt.Errorf("pull %s: %w: it is not on this node and imagePullPolicy is Never", image.Name, runtimes.ErrNotFound)
	}
	r.mu.Lock()
	p := r.pulls[image.Digest]
	if p != nil {
		joined = p.keyed || !image.Credentials.Empty()
	} else {
		p = &pull{done: make(chan struct{}), damage: damage, keyed: !image.Credentials.Empty()}
		r.pulls[image.Digest] = p
		r.work.Go(func() { r.pull(image, p) })
	}
	r.mu.Unlock()
	select {
	case <-p.done:
		return joined, p.err
	case <-ctx.Done():
		return joined, fmt.Errorf("pull %s: %w: %w", image.Name, runtimes.ErrUnavailable, context.Cause(ctx))
	}
}

// pull goes on when the one who asked first has left: others may wait.
func (r *Runtime) pull(image runtimes.Image, p *pull) {
	ctx, cancel := context.WithTimeout(r.inNamespace(r.life), pullTimeout)
	defer cancel()
	begin := time.Now()
	p.err = r.importMended(ctx, image)
	if p.err == nil {
		r.logger.LogAttrs(ctx, slog.LevelInfo, "pulled image", slog.String("image", image.Name), slog.Duration("took", time.Since(begin)))
		var here *unpacked
		here, p.err = r.image(ctx, image.Digest)
		r.mu.Lock()
		p.image = here // the collector looks at it before done is closed
		r.mu.Unlock()
	}
	if p.err != nil {
		p.err = fmt.Errorf("pull %s: %w", image.Name, classifyImage(p.err))
		if p.damage != nil {
			p.err = fmt.Errorf("%w (it is needed again: %v)", p.err, p.damage) //nolint:errorlint // the class is that of the fetch
		}
		r.mu.Lock()
		delete(r.pulls, image.Digest)
		r.mu.Unlock()
	}
	r.pulled(image.Digest) // also one that failed may have filled the disk
	close(p.done)
}

// classifyImage: a name that isn't there or isn't an image stays so until
// someone acts; a registry that doesn't answer may later.
func classifyImage(err error) error {
	var lookup *images.LookupError
	if !errors.As(err, &lookup) {
		return classify(err)
	}
	switch {
	case lookup.Code == state.LookupNotFound:
		return fmt.Errorf("%w: %w", runtimes.ErrNotFound, err)
	case lookup.Code.Lasting():
		return fmt.Errorf("%w: %w", runtimes.ErrRejected, err)
	case lookup.Code == state.LookupUnavailable, lookup.Code == state.LookupDenied:
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	return classify(err)
}

// importMended imports an image; where that fails because content which is here
// already is damaged, that content is thrown away and fetched once more.
func (r *Runtime) importMended(ctx context.Context, image runtimes.Image) error {
	err := r.importImage(ctx, image)
	if err == nil || ctx.Err() != nil {
		return err
	}
	thrown, broken := r.throwDamaged(ctx, image)
	if broken != nil {
		return errors.Join(err, broken)
	}
	if len(thrown) == 0 {
		return err // it has another cause
	}
	r.logger.LogAttrs(ctx, slog.LevelWarn, "fetched an image again, its content was damaged", slog.String("image", image.Name), slog.Any("blobs", thrown), slog.Any("err", err))
	if err := r.importImage(ctx, image); err != nil {
		return fmt.Errorf("content of the image in containerd's store was damaged (%s) and could not be replaced; check the disk, then: ctr --address %s --namespace %s content rm %s: %w",
			strings.Join(thrown, ", "), r.socket(), namespace, strings.Join(thrown, " "), err)
	}
	return nil
}

// importImage copies an image into containerd's store and unpacks it. A lease
// keeps containerd's garbage collector away meanwhile.
func (r *Runtime) importImage(ctx context.Context, image runtimes.Image) error {
	found, err := r.o.Images.With(image.Credentials).Fetch(ctx, image.Name, image.Digest)
	if err != nil {
		return err
	}
	if err := r.ledger.Came(found); err != nil { // before it is anybody's
		return err
	}
	c, err := r.get(ctx)
	if err != nil {
		return err
	}
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // an expired lease ends by itself

	labels := map[string]string{"containerd.io/gc.ref.content.config": found.Config.Digest}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(layerParallel)
	for i, layer := range found.Layers {
		labels["containerd.io/gc.ref.content.l."+strconv.Itoa(i)] = layer.Digest
		group.Go(func() error { return copyBlob(groupCtx, c.ContentStore(), layer) })
	}
	group.Go(func() error { return copyBlob(groupCtx, c.ContentStore(), found.Config) })
	if err := group.Wait(); err != nil {
		return err
	}
	target := ocispec.Descriptor{MediaType: found.MediaType, Digest: digest.Digest(image.Digest.String()), Size: int64(len(found.Manifest))}
	err = content.WriteBlob(ctx, c.ContentStore(), "manifest-"+target.Digest.String(), bytes.NewReader(found.Manifest), target, content.WithLabels(labels))
	if err != nil {
		return err
	}
	config, err := readConfig(ctx, c.ContentStore(), target)
	if err != nil {
		return err
	}
	if err := images.CheckPlatform(config.OS, config.Architecture, state.Linux, runtime.GOARCH); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnsupported, err)
	}
	record := ctdimages.Image{Name: imageRecord(image.Digest), Target: target, Labels: map[string]string{nameLabel: labelValue(image.Name)}}
	if _, err := c.ImageService().Create(ctx, record); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return client.NewImage(c, record).Unpack(ctx, r.snapshotter)
}

// labelValue fits containerd's limit of 4096 bytes for a label.
func labelValue(s string) string { return s[:min(len(s), 4000)] }

// copyBlob copies one blob. What is damaged or false fails with its place; a
// connection that broke begins again where it stood next time.
func copyBlob(ctx context.Context, store content.Store, blob images.Blob) error {
	desc := ocispec.Descriptor{MediaType: blob.MediaType, Digest: digest.Digest(blob.Digest), Size: blob.Size}
	if _, err := store.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	from, err := blob.Open(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	// containerd reads exactly Size bytes; one more read makes the check of
	// size and digest speak first, with the place of the damage.
	err = content.WriteBlob(ctx, store, "blob-"+blob.Digest, from, desc)
	if _, damage := io.Copy(io.Discard, from); damage != nil {
		return damage
	}
	return err
}

// errDamaged says that content isn't what its digest says, or is gone from the
// disk: it is as good as not here.
var errDamaged = fmt.Errorf("%w: damaged in containerd's store", runtimes.ErrNotFound)

// readConfig reads the configuration behind a manifest. containerd doesn't look
// whether content is still what it was, and a damaged configuration could run a
// container as another user.
func readConfig(ctx context.Context, store content.Store, target ocispec.Descriptor) (ocispec.Image, error) {
	var manifest ocispec.Manifest
	var config ocispec.Image
	if err := readVerified(ctx, store, target, &manifest); err != nil {
		return config, fmt.Errorf("read the manifest: %w", err)
	}
	if err := readVerified(ctx, store, manifest.Config, &config); err != nil {
		return config, fmt.Errorf("read the config: %w", err)
	}
	return config, nil
}

func readVerified(ctx context.Context, store content.Store, desc ocispec.Descriptor, into any) error {
	raw, err := content.ReadBlob(ctx, store, desc)
	if errdefs.IsNotFound(err) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s: %w", errDamaged, desc.Digest, err)
	}
	if err != nil {
		return err
	}
	if desc.Digest.Algorithm().FromBytes(raw) != desc.Digest {
		return fmt.Errorf("%w: %s", errDamaged, desc.Digest)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrRejected, err)
	}
	return nil
}

// image finds an image that is present and unpacked.
func (r *Runtime) image(ctx context.Context, d state.Digest) (*unpacked, error) {
	r.mu.Lock()
	p, removed := r.pulls[d], r.collector.removed
	var known *unpacked
	if p != nil {
		known = p.image
	}
	r.mu.Unlock()
	c, err := r.get(ctx)
	if err != nil {
		return nil, err
	}
	ctx = r.inNamespace(ctx)
	if known != nil {
		_, err := c.SnapshotService(r.snapshotter).Stat(ctx, known.chain)
		if err == nil {
			return known, nil
		}
		if !errdefs.IsNotFound(err) {
			return nil, classify(err)
		}
		r.mu.Lock()
		if r.pulls[d] == p { // somebody else removed it
			delete(r.pulls, d)
		}
		r.mu.Unlock()
	}
	record, err := c.ImageService().Get(ctx, imageRecord(d))
	if err != nil {
		return nil, classify(err)
	}
	config, err := readConfig(ctx, c.ContentStore(), record.Target)
	if err != nil {
		return nil, classify(err)
	}
	img := &unpacked{digest: d, config: config, chain: identity.ChainID(config.RootFS.DiffIDs).String()}
	if _, err := c.SnapshotService(r.snapshotter).Stat(ctx, img.chain); err != nil {
		return nil, classify(err)
	}
	done := &pull{done: make(chan struct{}), image: img}
	close(done.done)
	r.mu.Lock()
	if r.pulls[d] == nil && r.collector.removed == removed { // else it may be gone by now
		r.pulls[d] = done
	}
	r.mu.Unlock()
	return img, nil
}
