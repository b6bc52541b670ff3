package containerd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// crowded is a node on a disk of its own with five large images, which it doesn't
// collect by itself.
func crowded(t *testing.T, disk string) (*node, []runtimes.Image) {
	t.Helper()
	need(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, disk); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	n := openIn(t, dir, nil)
	// Images that are large and can't be compressed lie elsewhere: what is
	// measured is the node's disk alone. Each takes twice 16 MB of it.
	elsewhere := t.TempDir()
	noise := rand.NewChaCha8([32]byte{1})
	named := func(i int) string { return fmt.Sprintf("shop.example/large:%d", i) }
	for i := range 5 {
		data := make([]byte, 16<<20)
		_, _ = noise.Read(data) // it never fails
		_, err := images.Write(elsewhere, images.Spec{Name: named(i), Variants: []images.Variant{{
			OS: state.Linux, Arch: "amd64", Files: []images.File{{Path: "data", Mode: 0o644, Data: data}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	n.close(t)
	store := images.New(images.Options{Dirs: []string{filepath.Join(dir, "images"), elsewhere}, Offline: true})
	n.o.Images, n.o.Limits = store, containerd.ImageLimits{High: 100, Low: 30} // never by itself
	n.open(t)
	var large []runtimes.Image
	for i := range 5 {
		found, err := store.Look(t.Context(), named(i))
		if err != nil {
			t.Fatal(err)
		}
		large = append(large, runtimes.Image{Name: named(i), Digest: found.Platforms[0].Digest})
		if err := n.Pull(t.Context(), large[i]); err != nil {
			t.Fatal(err)
		}
	}
	return n, large
}

// Where no byte can be written any more, images go all the same, and the order is
// written down once there is room for it.
func TestCollectImagesOfAFullDisk(t *testing.T) {
	t.Parallel()
	n, large := crowded(t, "size=224m,nr_inodes=4096")
	n.close(t)
	n.o.Limits = containerd.ImageLimits{High: 90, Low: 80}
	n.open(t)
	n.Keep([]state.Digest{large[0].Digest})
	filler := filepath.Join(n.o.Dir, "filler")
	hosttest.Fill(t, filler)
	c, err := n.CollectImages(t.Context())
	if err != nil || len(c.Removed) == 0 || c.After > 80 {
		t.Errorf("removed %v, left %d %%: %v", c.Removed, c.After, err)
	}
	if slices.Contains(c.Removed, large[0].Digest.String()) {
		t.Error("an image went that a pod needs")
	}
	if raw, err := os.ReadFile(filepath.Join(n.o.Dir, "images.json")); err != nil || len(c.Removed) > 0 && strings.Contains(string(raw), c.Removed[0]) {
		t.Errorf("noted is %s: %v", raw, err)
	}
}

// A node whose disk fills up removes images that no pod needs, the least
// recently used first, and says so when that doesn't help.
func TestCollectImages(t *testing.T) {
	t.Parallel()
	n, large := crowded(t, "size=256m")
	n.run(t, n.container(n.pod(t, 1), "main", forever)) // of the small image
	collect := func(keep ...state.Digest) (containerd.Collected, error) {
		t.Helper()
		n.Keep(keep)
		return n.CollectImages(t.Context())
	}
	if c, err := collect(); err != nil || len(c.Removed) > 0 || c.Before < 60 {
		t.Fatalf("with a limit of 100 %%: removed %v, %d %% full, %v", c.Removed, c.Before, err)
	}

	// One that is needed again is the last to go; the order outlives the process.
	n.close(t)
	n.open(t)
	if _, err := collect(large[0].Digest); err != nil {
		t.Fatal(err)
	}
	n.close(t)
	n.o.Limits = containerd.ImageLimits{High: 60, Low: 45}
	n.open(t)
	c, err := collect(large[1].Digest) // a pod that is to run here has it
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{large[2].Digest.String(), large[3].Digest.String()}; !slices.Equal(c.Removed, want) || c.After > 45 {
		t.Fatalf("removed %v and left %d %%, want %v and at most 45", c.Removed, c.After, want)
	}
	if err := n.Pull(t.Context(), large[2]); err != nil { // what went comes again
		t.Fatal(err)
	}

	// Nothing may go: it says so, and nothing does.
	n.close(t)
	n.o.Limits = containerd.ImageLimits{High: 20, Low: 10, MinAge: time.Hour}
	n.open(t)
	c, err = collect(large[1].Digest)
	if !errors.Is(err, runtimes.ErrUnavailable) || !strings.Contains(err.Error(), "no more images can go") || len(c.Removed) > 0 {
		t.Fatalf("removed %v, says: %v", c.Removed, err)
	}
	// And the container of an image that everything else made room for runs on.
	n.close(t)
	n.o.Limits = containerd.ImageLimits{High: 2, Low: 1}
	n.open(t)
	if c, err = collect(); err == nil || slices.Contains(c.Removed, n.image.Digest.String()) || len(c.Removed) != 4 {
		t.Fatalf("removed %v, says: %v", c.Removed, err)
	}
	if out := n.sh(t, uid(1), "main", "echo here"); out != "here" {
		t.Errorf("the container says %q", out)
	}
	again := n.container(uid(1), "main", forever)
	again.Attempt = 1
	n.run(t, again)
}

func TestImageLimits(t *testing.T) {
	t.Parallel()
	for _, l := range []containerd.ImageLimits{
		{High: 0, Low: 0}, {High: 101, Low: 80}, {High: 80, Low: -1}, {High: 80, Low: 85}, {High: 80, Low: 80}, {High: 85, Low: 80, MinAge: -time.Second},
	} {
		if err := l.Check(); !errors.Is(err, runtimes.ErrRejected) {
			t.Errorf("%+v: %v, want it to be rejected", l, err)
		}
	}
	for _, l := range []containerd.ImageLimits{containerd.DefaultImageLimits(), {High: 100, Low: 0}, {High: 2, Low: 1}} {
		if err := l.Check(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
