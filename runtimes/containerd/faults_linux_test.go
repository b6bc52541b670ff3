package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// ask talks to the node's own containerd, beside the runtime.
func (n *node) ask(t testing.TB, f func(ctx context.Context, c *client.Client) error) {
	t.Helper()
	c, err := client.New(n.host().Daemon, client.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), "tandem"), time.Minute)
	defer cancel()
	if err := f(ctx, c); err != nil {
		t.Fatal(err)
	}
}

// store is what containerd keeps: containers, tasks, snapshots, leases, content.
func (n *node) store(t testing.TB) []string {
	t.Helper()
	var found []string
	n.ask(t, func(ctx context.Context, c *client.Client) error {
		containers, err := c.Containers(ctx)
		if err != nil {
			return err
		}
		for _, one := range containers {
			found = append(found, "container "+one.ID())
			if task, err := one.Task(ctx, nil); err == nil { // else it has none
				found = append(found, fmt.Sprintf("task %d of %s", task.Pid(), one.ID()))
			}
		}
		leases, err := c.LeasesService().List(ctx)
		if err != nil {
			return err
		}
		for _, l := range leases {
			found = append(found, "lease "+l.ID)
		}
		err = c.ContentStore().Walk(ctx, func(i content.Info) error {
			found = append(found, "content "+i.Digest.String())
			return nil
		})
		if err != nil {
			return err
		}
		return c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
			found = append(found, "snapshot "+i.Name)
			return nil
		})
	})
	slices.Sort(found)
	return found
}

// all is everything of the node: on the machine, in containerd, in its
// directories.
func (n *node) all(t testing.TB) []string {
	t.Helper()
	return slices.Concat(n.things(t), n.store(t), hosttest.Files(n.runDir(), filepath.Join(n.dir, "node", "pods"), filepath.Join(n.runDir(), "runc")))
}

// same waits until everything of the node is as it was.
func (n *node) same(t testing.TB, before []string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		after := n.all(t)
		more, less := hosttest.More(before, after), hosttest.More(after, before)
		if len(more)+len(less) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind:\n%s\ngone:\n%s", strings.Join(more, "\n"), strings.Join(less, "\n"))
			return
		}
	}
}

// blobs are the files of the node's only image in containerd's store, by what
// they are.
func (n *node) blobs(t testing.TB) map[string]string {
	t.Helper()
	found, err := n.o.Images.Fetch(t.Context(), n.image.Name, n.image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	file := func(digest string) string {
		return filepath.Join(n.o.Dir, "containerd", "io.containerd.content.v1.content", "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
	}
	return map[string]string{"manifest": file(n.image.Digest.String()), "config": file(found.Config.Digest), "layer": file(found.Layers[0].Digest)}
}

// forgetUnpacked removes the snapshots of images, so that layers are needed
// again.
func (n *node) forgetUnpacked(t testing.TB) {
	t.Helper()
	n.ask(t, func(ctx context.Context, c *client.Client) error {
		service := c.SnapshotService("overlayfs")
		var names []string
		err := service.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
			if i.Kind == snapshots.KindCommitted {
				names = append(names, i.Name)
			}
			return nil
		})
		for len(names) > 0 && err == nil {
			var left []string
			for _, name := range names {
				if e := service.Remove(ctx, name); e != nil { // another is on top of it
					left, err = append(left, name), e
				}
			}
			if len(left) < len(names) {
				err = nil
			}
			names = left
		}
		return err
	})
}

// An image that somebody else removed, by hand or another node of the same
// containerd, is missed by Run and fetched again by the next Pull.
func TestImageTakenAway(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	n.ask(t, func(ctx context.Context, c *client.Client) error {
		return c.ImageService().Delete(ctx, "tandem/"+n.image.Digest.String(), ctdimages.SynchronousDelete())
	})
	if err := n.Run(t.Context(), n.container(u, "main", forever)); !errors.Is(err, runtimes.ErrNotFound) {
		t.Fatalf("without its image: %v", err)
	}
	if err := n.Pull(t.Context(), n.image); err != nil {
		t.Fatal(err)
	}
	n.run(t, n.container(u, "main", forever))
}

// What a disk lost of an image, or changed, is noticed and fetched again: no
// container runs from it.
func TestDamagedImage(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	whole := n.store(t)
	for i, c := range []struct{ what, how string }{
		{"manifest", "changed"}, {"manifest", "gone"}, {"config", "changed"}, {"config", "cut"}, {"config", "gone"}, {"layer", "changed"}, {"layer", "gone"},
	} {
		t.Run(c.what+" "+c.how, func(t *testing.T) {
			if c.what == "layer" {
				n.forgetUnpacked(t)
			}
			n.close(t)
			file := n.blobs(t)[c.what]
			sound, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			harm(t, file, c.how, sound)
			n.open(t)
			if err := n.Pull(t.Context(), n.image); err != nil {
				t.Fatal(err)
			}
			if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, sound) {
				t.Errorf("the blob was not replaced: %d bytes, %v", len(again), err)
			}
			u := n.pod(t, i)
			n.run(t, n.container(u, "main", forever))
			if got := n.sh(t, u, "main", "echo $FROM"); got != "image" {
				t.Errorf("it runs with FROM=%q", got)
			}
			if err := n.Remove(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			if now := n.store(t); !slices.Equal(now, whole) {
				t.Errorf("containerd has\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(whole, "\n"))
			}
		})
	}
}

func harm(t *testing.T, file, how string, sound []byte) {
	t.Helper()
	var err error
	switch how {
	case "changed": // a blob's file can't be written, only replaced; still JSON where it was
		other := bytes.Replace(sound, []byte("image"), []byte("imagf"), 1)
		if bytes.Equal(other, sound) {
			other[len(other)/2] ^= 1
		}
		err = errors.Join(os.Remove(file), os.WriteFile(file, other, 0o444))
	case "cut":
		err = errors.Join(os.Remove(file), os.WriteFile(file, sound[:len(sound)/2], 0o444))
	case "gone":
		err = os.Remove(file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Where there is nothing to replace it with, the failure says which content is
// damaged.
func TestDamagedImageWithoutSource(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	n.close(t)
	file := n.blobs(t)["config"]
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	harm(t, file, "changed", sound)
	if err := os.Rename(filepath.Join(n.dir, "images"), filepath.Join(n.dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	for policy, want := range map[string]string{"": "needed again", "Never": "imagePullPolicy is Never"} {
		image := n.image
		image.Policy = policy
		err := n.Pull(t.Context(), image)
		if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), filepath.Base(file)) || !strings.Contains(err.Error(), want) {
			t.Errorf("policy %q: got %v, want that sha256:%s is damaged, and %q", policy, err, filepath.Base(file), want)
		}
	}
}

// A shim that dies takes its container with it: that is told, and the next
// attempt runs alone.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	c := n.container(u, "main", forever)
	for c.Attempt = range 3 {
		n.run(t, c)
		n.untilCount(t, 1)
		if err := syscall.Kill(n.shim(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := n.ended(t, u, "main"); got.Attempt != c.Attempt || got.ExitCode == 0 {
			t.Fatalf("attempt %d ended as %+v", c.Attempt, got)
		}
		n.untilCount(t, 0)
	}
}

// After a power cut nothing of what was in memory is there; the images are, and
// pods start again as if for the first time.
func TestRebooted(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	whole := n.store(t)
	for i := range 3 {
		u := n.pod(t, i)
		n.run(t, n.container(u, "main", forever))
		n.run(t, n.container(u, "side", forever))
	}
	n.untilCount(t, 6)
	n.close(t)
	n.host().Wipe(t.Context()) // processes, namespaces, mounts, control groups, links, what lies in memory
	if left := n.things(t); len(left) > 0 {
		t.Fatalf("the power cut left:\n%s", strings.Join(left, "\n"))
	}
	// No image may be fetched.
	if err := os.Rename(filepath.Join(n.dir, "images"), filepath.Join(n.dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	if o := n.until(t, "anything", func(runtimes.Observation) bool { return true }); len(o.Sandboxes)+len(o.Containers) > 0 {
		t.Errorf("pods of the time before: %+v", o)
	}
	if now := n.store(t); !slices.Equal(now, whole) {
		t.Errorf("containerd has\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(whole, "\n"))
	}
	if err := n.Pull(t.Context(), n.image); err != nil {
		t.Fatal(err)
	}
	if err := n.cycle(t.Context(), uid(9)); err != nil { // what a node makes with its first pod is there
		t.Fatal(err)
	}
	before := n.all(t)
	for i := range 3 {
		u := n.pod(t, i)
		n.run(t, n.container(u, "main", forever))
	}
	n.untilCount(t, 3)
	for i := range 3 {
		if err := n.Remove(t.Context(), uid(i)); err != nil {
			t.Fatal(err)
		}
	}
	n.same(t, before)
}

// A full disk stops no container; what can't start says why, and does once there
// is room. The daemon and the agent may even start again meanwhile.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	hosttest.Need(t, hosttest.Root)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,nr_inodes=4096"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	n := openIn(t, dir, nil)
	u := n.pod(t, 1)
	n.run(t, n.container(u, "main", forever))
	hosttest.Fill(t, filepath.Join(dir, "filler"))
	second := n.container(u, "second", forever)
	err := n.Run(t.Context(), second)
	if !errors.Is(err, runtimes.ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("on a full disk: %v", err)
	}
	if err := syscall.Kill(n.daemonPid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.close(t)
	// The node may not be taken over while its daemon can't write, but it is once it can.
	full, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if r, err := n.tryOpen(full); err == nil {
		n.Runtime = r
	} else if !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("opened on a full disk: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	if n.Runtime == nil {
		n.open(t)
	}
	if c, ok := find(n.until(t, "anything", func(runtimes.Observation) bool { return true }), u, "main"); !ok || !c.Running || c.Attempt != 0 {
		t.Errorf("the full disk reached a container: %+v", c)
	}
	n.runAnyway(t, second)
	n.untilCount(t, 2)
	if err := n.Stop(t.Context(), u, "second", time.Second); err != nil {
		t.Fatal(err)
	}
	n.ended(t, u, "second")
}

// Pods come and go: nothing of them stays, neither on the machine, nor in
// containerd, nor in the node's directories.
func TestCycles(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	stays := n.pod(t, 0)
	n.run(t, n.container(stays, "main", forever))
	n.untilCount(t, 1)
	before := n.all(t)
	const beside = 4
	cycles := hosttest.Soak(40, 2000)
	var all sync.WaitGroup
	for lane := range beside {
		all.Go(func() {
			for i := lane; i < cycles; i += beside {
				if err := n.cycle(t.Context(), uid(1+i%32)); err != nil {
					t.Errorf("cycle %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	n.same(t, before)
	if c, _ := find(n.until(t, "anything", func(runtimes.Observation) bool { return true }), stays, "main"); !c.Running || c.Attempt != 0 {
		t.Errorf("the one that stays: %+v", c)
	}
}

func (n *node) cycle(ctx context.Context, u state.UID) error {
	_, err := n.Sandbox(ctx, runtimes.Sandbox{UID: u, Key: state.PodKey{Namespace: "prod", Name: "x"}, Hostname: "x"})
	if err == nil {
		err = n.Run(ctx, n.container(u, "main", forever))
	}
	if err == nil {
		err = n.Stop(ctx, u, "main", 0)
	}
	return errors.Join(err, n.Remove(ctx, u))
}
