package hcs_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
)

const (
	image  = "shop.example/prog:1"
	absent = "shop.example/none:1"
)

// TestMain is also the keeper.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keep" {
		if err := hcs.Keep(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func options(t *testing.T, dir string) hcs.Options {
	t.Helper()
	from := os.Getenv("HCSTEST_IMAGES")
	if from == "" {
		t.Skip("this is no machine of hcstest: HCSTEST_IMAGES isn't set")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return hcs.Options{
		Node: "test", Dir: dir, Keeper: []string{exe, "keep"}, Images: images.New(images.Options{Dirs: []string{from}, Offline: true}),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func open(t *testing.T, dir string) *hcs.Runtime {
	t.Helper()
	r, err := hcs.Open(t.Context(), options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func found(t *testing.T) runtimes.Image {
	t.Helper()
	img, err := options(t, t.TempDir()).Images.Look(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return runtimes.Image{Name: image, Digest: img.Platforms[0].Digest}
}

func TestConformance(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r, err := hcs.Open(ctx, options(t, dir))
		if err == nil {
			err = r.Shutdown(ctx)
		}
		if err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	runtimetest.Run(t, runtimetest.Case{
		OS: state.Windows, Image: found(t), Absent: runtimes.Image{Name: absent, Digest: state.DigestOf([]byte("none"))},
		Open: func(t *testing.T) runtimes.Runtime { t.Helper(); return open(t, dir) },
		Close: func(t *testing.T, r runtimes.Runtime) {
			t.Helper()
			if err := r.(*hcs.Runtime).Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		},
	})
}
