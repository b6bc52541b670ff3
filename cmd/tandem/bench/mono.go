package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/worker"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
)

// renderWorker is the argument with which this program is a worker.
const renderWorker = "render-worker"

// followed is one repository for every application; it notes when a commit was
// seen, and counts renders.
type followed struct {
	sources.Source
	render.Renderer
	seen    atomic.Int64 // of the newest snapshot, nanoseconds since 1970
	renders atomic.Int64
}

// Open implements act.Origins.
func (f *followed) Open(state.AppSource) (string, func() (sources.Source, error), error) {
	return "mono", func() (sources.Source, error) { return f, nil }, nil
}

// Next implements sources.Source.
func (f *followed) Next(ctx context.Context, last state.Revision) (sources.Snapshot, error) {
	snap, err := f.Source.Next(ctx, last)
	if err == nil {
		f.seen.Store(time.Now().UnixNano())
	}
	return snap, err
}

// Render implements render.Renderer.
func (f *followed) Render(ctx context.Context, snap sources.Snapshot, app state.Application) (render.Result, error) {
	f.renders.Add(1)
	return f.Renderer.Render(ctx, snap, app)
}

// mono is a repository of 60,000 files with 10,000 applications: what a commit
// costs that touches one of them, and what all of them take.
func mono(ctx context.Context, b *board) error {
	repo, err := newMonoRepo(ctx, b.apps)
	if err != nil {
		return errors.Join(err, repo.remove())
	}
	w, err := newWorld(ctx, monoNodes)
	if err != nil {
		return errors.Join(err, repo.remove())
	}
	source, err := git.New(git.Options{URL: repo.dir, Ref: "main"})
	if err != nil {
		return errors.Join(err, repo.remove())
	}
	pool := worker.New(worker.Options{Command: []string{"", renderWorker}, Tokens: w.data.Secrets})
	f := &followed{Source: source, Renderer: pool}
	follow, stop := context.WithCancel(ctx)
	defer stop()
	feeds := act.NewFeeds(w.ctl, f, f, "tandem", slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	all.Go(func() { feeds.Run(follow) })
	start, spent := time.Now(), cpuTime()
	if err := w.untilIn(ctx, 30*time.Minute, func(s *state.State) bool { return ready(s) == b.apps }); err != nil {
		return err
	}
	b.atMost(fmt.Sprintf("mono: %d applications rendered and Ready", b.apps), time.Since(start).Seconds(), "s", 0)
	b.atMost("mono: of that, this process's processor time", (cpuTime() - spent).Seconds(), "s", 0)
	var samples []time.Duration
	extra := int64(0)
	for i := range 20 {
		before := f.renders.Load()
		n := i * 499 % b.apps
		if err := repo.commit(ctx, map[string]string{"apps/" + monoApp(n) + "/base/web.yaml": strings.ReplaceAll(webYAML, "web:1", fmt.Sprintf("web:%d", i+2))}); err != nil {
			return err
		}
		image := fmt.Sprintf("bench.example/web:%d", i+2)
		if err := w.untilIn(ctx, 5*time.Minute, func(s *state.State) bool { return runs(s, monoApp(n), image) }); err != nil {
			return err
		}
		samples = append(samples, time.Since(time.Unix(0, f.seen.Load())))
		if err := w.untilIn(ctx, 5*time.Minute, func(s *state.State) bool { return ready(s) == b.apps && len(s.Pods) == b.apps }); err != nil {
			return err
		}
		extra += f.renders.Load() - before - 1
	}
	if err := b.keepHeap(); err != nil {
		return err
	}
	rss, anon := resident()
	b.atMost("mono: commit seen to pod assigned, p99 of 20", ms(p99(samples)), "ms", 1000)
	b.none("mono: renders beside the one touched, of 20", extra)
	b.atMost("mono: resident", rss, "MB", 400)
	b.atMost("mono: anonymous", anon, "MB", 0)
	stop()
	all.Wait()
	return errors.Join(pool.Close(), w.stop(), repo.remove())
}

// runs says whether a pod of an image is assigned to a node in a namespace.
func runs(s *state.State, namespace, image string) bool {
	for _, p := range s.Pods {
		if p.Key.Namespace == namespace && p.Template.Spec.Spec.Containers[0].Image == image {
			return true
		}
	}
	return false
}

// firstLook is a repository fetched for the first time and so many applications
// rendered, against git clone and kustomize.
func firstLook(ctx context.Context, b *board) error {
	const apps, rendered = 2_000, 200
	repo, err := newMonoRepo(ctx, apps)
	if err != nil {
		return errors.Join(err, repo.remove())
	}
	url, stop, err := repo.serve(ctx)
	if err != nil {
		return errors.Join(err, repo.remove())
	}
	defer stop()
	start := time.Now()
	tree := filepath.Join(repo.root, "clone")
	if err := repo.git(ctx, nil, "clone", "-q", "--depth", "1", url, tree); err != nil {
		return err
	}
	for n := range rendered {
		if _, err := rendertest.Kustomize(filepath.Join(tree, "apps", monoApp(n), "prod")); err != nil {
			return err
		}
	}
	floor := time.Since(start)
	pool := worker.New(worker.Options{Command: []string{"", renderWorker}, Tokens: rendertest.Tokens{}})
	start = time.Now()
	source, err := git.New(git.Options{URL: url, Ref: "main", Cache: filepath.Join(repo.root, "cache")})
	if err != nil {
		return err
	}
	snap, err := source.Next(ctx, "")
	if err != nil {
		return err
	}
	fetched := time.Since(start)
	for n := range rendered {
		result, err := pool.Render(ctx, snap, state.Application{Name: "app", Path: "apps/" + monoApp(n) + "/prod"})
		if err != nil || result.Manifest == nil {
			return errors.Join(err, fmt.Errorf("render: %v", result.Problems))
		}
	}
	took := time.Since(start)
	b.atMost("first look: clone --depth 1, kustomize build", ms(floor), "ms", 0)
	b.atMost("first look: of that in Tandem, the fetch", ms(fetched), "ms", 0)
	b.atMost("first look: fetch and render, of the floor", float64(took)/float64(floor), "×", 3)
	return errors.Join(pool.Close(), repo.remove())
}

// oneOfThousand is an application of 1,000 objects of which a commit changes one.
func oneOfThousand(ctx context.Context, b *board) error {
	const objects, rounds = 1_000, 7
	files := map[string]string{"kustomization.yaml": "namespace: shop\nlabels:\n- {pairs: {env: prod}, includeSelectors: false}\nresources:\n"}
	for n := range objects {
		name := fmt.Sprintf("web-%04d", n)
		files["kustomization.yaml"] += "- " + name + ".yaml\n"
		files[name+".yaml"] = strings.ReplaceAll(webYAML, "name: web", "name: "+name)
	}
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	pool := worker.New(worker.Options{Command: []string{"", renderWorker}, Tokens: rendertest.Tokens{}})
	var floor, ours []time.Duration
	var held *state.Manifest // as the controller holds it
	for i := range rounds {
		start := time.Now()
		if _, err := rendertest.Kustomize(dir); err != nil {
			return err
		}
		floor = append(floor, time.Since(start))
		files["web-0007.yaml"] = strings.ReplaceAll(strings.ReplaceAll(webYAML, "name: web", "name: web-0007"), "web:1", fmt.Sprintf("web:%d", i+2))
		snap := sources.Snapshot{Revision: "main@sha1:0", FS: rendertest.FromFiles(files)}
		start = time.Now()
		result, err := pool.Render(ctx, snap, state.Application{Name: "app"})
		if err != nil || result.Manifest == nil || len(result.Manifest.Objects) != objects {
			return errors.Join(err, fmt.Errorf("render: %v", result.Problems))
		}
		held = result.Manifest
		ours = append(ours, time.Since(start))
		start = time.Now()
		if !render.Unchanged(snap.FS, held.Reads) {
			return errors.New("the same tree is taken for another")
		}
		if took := time.Since(start); i == rounds-1 {
			b.atMost("1,000 objects, none touched", ms(took), "ms", 5)
		}
	}
	b.atMost("1,000 objects: kustomize build, median of 7", ms(median(floor)), "ms", 0)
	b.atMost("1,000 objects, one changed, median of 7", ms(median(ours)), "ms", ms(median(floor))+50)
	return pool.Close()
}
