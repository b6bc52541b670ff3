package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

var _ runtimes.ImageKeeper = (*Runtime)(nil)

// collectEvery is how often the disk is looked at, as the kubelet does; a pull
// has it looked at as well.
const collectEvery = 5 * time.Minute

// Collected is what came of a collection of images.
type Collected struct {
	Before, After int      // percent of the disk in use
	Removed       []string // digests, in the order in which they went
}

// collector is what Runtime knows for collecting images; Runtime.mu guards it.
type collector struct {
	kept    map[state.Digest]bool
	used    map[state.Digest]time.Time     // when it was last needed, or first seen
	leaving map[state.Digest]chan struct{} // closed when it has gone, or stays
	removed int                            // counts removals
	hint    chan struct{}
}

func newCollector() collector {
	return collector{used: map[state.Digest]time.Time{}, leaving: map[state.Digest]chan struct{}{}, hint: make(chan struct{}, 1)}
}

// Keep implements runtimes.ImageKeeper.
func (r *Runtime) Keep(images []state.Digest) {
	kept := make(map[state.Digest]bool, len(images))
	for _, d := range images {
		kept[d] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collector.kept = kept
}

// stays waits until nobody is removing an image: from then on whoever needs it
// finds it, or finds it gone.
func (r *Runtime) stays(ctx context.Context, d state.Digest) error {
	r.mu.Lock()
	leaving := r.collector.leaving[d]
	r.mu.Unlock()
	if leaving == nil {
		return nil
	}
	select {
	case <-leaving:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: it is being removed: %w", runtimes.ErrUnavailable, context.Cause(ctx))
	}
}

// collecting looks at the disk now and then, and after each pull.
func (r *Runtime) collecting() {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.life.Done():
			return
		case <-tick.C:
		case <-r.collector.hint:
		}
		c, err := r.CollectImages(r.life)
		if r.life.Err() != nil {
			return
		}
		if len(c.Removed) > 0 {
			r.logger.LogAttrs(r.life, slog.LevelInfo, "removed images that no pod needs", slog.Int("images", len(c.Removed)), slog.Int("percent_before", c.Before), slog.Int("percent_after", c.After))
		}
		if err != nil {
			r.logger.LogAttrs(r.life, slog.LevelWarn, "did not free the disk of images", slog.Any("err", err))
		}
	}
}

// CollectImages removes images that no pod needs when the disk is fuller than
// the higher limit, the least recently used first, until it is no fuller than the
// lower one. Images of containers, of pods that are to run here, and those needed
// a moment ago stay. An error says that it is still too full.
func (r *Runtime) CollectImages(ctx context.Context) (Collected, error) {
	r.collectMu.Lock()
	defer r.collectMu.Unlock()
	c, err := r.collectImages(ctx)
	return c, errors.Join(err, r.saveUsed()) // after it: on a full disk there was no room before
}

func (r *Runtime) collectImages(ctx context.Context) (Collected, error) {
	var c Collected
	dir, err := r.imagesDir(ctx)
	if err == nil {
		c.Before, err = percentUsed(dir)
	}
	if err != nil {
		return c, fmt.Errorf("collect images: %w", err)
	}
	c.After = c.Before
	limits := r.o.Limits
	candidates, spared, err := r.unneeded(ctx, limits.MinAge)
	if err != nil {
		return c, fmt.Errorf("collect images: %w", err)
	}
	if limits.High == 100 || c.Before <= limits.High {
		return c, nil
	}
	for _, d := range candidates {
		if c.After <= limits.Low {
			return c, nil
		}
		gone, err := r.removeImage(ctx, d)
		if err != nil {
			return c, fmt.Errorf("collect images: %w", err)
		}
		if gone {
			c.Removed = append(c.Removed, d.String())
		}
		if c.After, err = percentUsed(dir); err != nil {
			return c, fmt.Errorf("collect images: %w", err)
		}
	}
	if c.After <= limits.Low {
		return c, nil
	}
	return c, fmt.Errorf("%w: the disk of images (%s) is %d %% full, more than %d %%, and no more images can go: %d are of pods here or were needed within the last %s; free room beside them, or give the node a larger disk",
		runtimes.ErrUnavailable, dir, c.After, limits.Low, spared, limits.MinAge)
}

// imagesDir is below where containerd keeps content and snapshots.
func (r *Runtime) imagesDir(ctx context.Context) (string, error) {
	if r.o.Socket == "" {
		return r.o.Dir, nil
	}
	c, err := r.get(ctx)
	if err != nil {
		return "", err
	}
	answer, err := c.IntrospectionService().Plugins(r.inNamespace(ctx), "type==io.containerd.snapshotter.v1,id=="+r.snapshotter)
	if err != nil {
		return "", classify(err)
	}
	for _, p := range answer.Plugins {
		if root := p.Exports["root"]; root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("%w: containerd at %s doesn't say where its snapshots are", runtimes.ErrUnsupported, r.o.Socket)
}

// percentUsed is how full a disk is for those who aren't root, as df and the
// kubelet count.
func percentUsed(dir string) (int, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if s.Blocks == 0 {
		return 0, fmt.Errorf("the file system of %s doesn't say how large it is", dir)
	}
	return 100 - int(s.Bavail*100/s.Blocks), nil //nolint:gosec // at most 100
}

// unneeded are the images that may go, the least recently used first, and how
// many may not. What is needed now counts as used now.
func (r *Runtime) unneeded(ctx context.Context, age time.Duration) (may []state.Digest, spared int, err error) {
	present, needed := map[state.Digest]bool{}, map[string]bool{}
	err = r.call(ctx, func(ctx context.Context, cl *client.Client) error {
		all, err := cl.ImageService().List(ctx)
		if err != nil {
			return err
		}
		for _, i := range all {
			if text, ours := strings.CutPrefix(i.Name, imagePrefix); ours {
				var d state.Digest
				if d.UnmarshalText([]byte(text)) == nil && !d.IsZero() {
					present[d] = true
				}
			}
		}
		containers, err := cl.ContainerService().List(ctx)
		for i := range containers {
			needed[containers[i].Image] = true // of any node that shares this containerd
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	used := r.collector.used
	for d := range present {
		if r.collector.kept[d] || needed[imageRecord(d)] || r.pulling(d) {
			used[d] = now.UTC()
			spared++
			continue
		}
		if used[d].IsZero() {
			used[d] = now.UTC()
		}
		if now.Sub(used[d]) < age {
			spared++
			continue
		}
		may = append(may, d)
	}
	for d := range used {
		if !present[d] && !r.pulling(d) {
			delete(used, d)
		}
	}
	slices.SortFunc(may, func(a, b state.Digest) int {
		return cmp.Or(used[a].Compare(used[b]), slices.Compare(a[:], b[:]))
	})
	return may, spared, nil
}

// pulling says whether an image is on its way; mu is held.
func (r *Runtime) pulling(d state.Digest) bool {
	p := r.pulls[d]
	return p != nil && p.image == nil
}

// removeImage removes an image with its content and layers, where they are no
// other's, unless somebody needs it after all.
func (r *Runtime) removeImage(ctx context.Context, d state.Digest) (gone bool, err error) {
	done := make(chan struct{})
	r.mu.Lock()
	if r.collector.kept[d] || r.pulling(d) {
		r.mu.Unlock()
		return false, nil
	}
	r.collector.leaving[d] = done
	r.collector.removed++
	delete(r.pulls, d)
	for key := range r.users {
		if key.image == d {
			delete(r.users, key)
		}
	}
	r.mu.Unlock()
	err = r.call(ctx, func(ctx context.Context, cl *client.Client) error {
		err := cl.ImageService().Delete(ctx, imageRecord(d), ctdimages.SynchronousDelete())
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
	r.mu.Lock()
	delete(r.collector.leaving, d)
	if err == nil {
		delete(r.collector.used, d)
	}
	r.mu.Unlock()
	close(done)
	if err == nil {
		err = r.ledger.Forget(d)
	}
	if err != nil {
		return false, fmt.Errorf("remove image %s: %w", d, err)
	}
	return true, nil
}

func (r *Runtime) usedFile() string { return filepath.Join(r.o.Dir, "images.json") }

// loadUsed reads when images were last needed. A file that can't be read costs
// an order, no image.
func (r *Runtime) loadUsed() {
	if err := readJSON(r.usedFile(), &r.collector.used); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.collector.used = map[state.Digest]time.Time{}
		r.logger.LogAttrs(r.life, slog.LevelWarn, "forgot when images were last used", slog.Any("err", err))
	}
}

// saveUsed writes the same.
func (r *Runtime) saveUsed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := writeJSON(r.usedFile(), r.collector.used); err != nil {
		return fmt.Errorf("note when images were last used: %w", err)
	}
	return nil
}

// pulled notes that an image has just come, and has the disk looked at.
func (r *Runtime) pulled(d state.Digest) {
	r.mu.Lock()
	r.collector.used[d] = time.Now().UTC()
	r.mu.Unlock()
	select {
	case r.collector.hint <- struct{}{}:
	default:
	}
}
