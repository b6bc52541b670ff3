package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/sources"
)

// floors measures what this machine can do at best: one write and one sync.
func floors(_ context.Context, b *board) error {
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := newFloor(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var samples []time.Duration
	for range 300 {
		took, err := f.sample()
		if err != nil {
			return err
		}
		samples = append(samples, took)
	}
	b.floors["fsync"] = ms(mean(samples))
	b.atMost("floor: write and fsync 512 B, mean of 300", b.floors["fsync"], "ms", 0)
	return nil
}

// diskFloor is a file on the disk that the log is on too.
type diskFloor struct{ *os.File }

func newFloor(dir string) (*diskFloor, error) {
	f, err := os.Create(filepath.Join(dir, "floor"))
	return &diskFloor{f}, err
}

// sample is how long one write and its sync take.
func (f *diskFloor) sample() (time.Duration, error) {
	start := time.Now()
	if _, err := f.Write(make([]byte, 512)); err != nil {
		return 0, err
	}
	err := f.Sync()
	return time.Since(start), err
}

const (
	manyNodes       = 1000
	manyDeployments = 20
	podsEach        = 500
)

func many(version int) []*state.Object {
	var objects []*state.Object
	for i := range manyDeployments {
		os := state.Linux
		if i%2 == 1 {
			os = state.Windows
		}
		objects = append(objects, deployment(fmt.Sprintf("web-%02d", i), fmt.Sprintf("bench.example/web:%d", version), os, podsEach))
	}
	return objects
}

// converge is from a commit seen to 10,000 pods on 1,000 nodes, every record durable.
func converge(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, manyNodes)
	if err != nil {
		return err
	}
	start := time.Now()
	w.commit(1, many(1)...)
	total := manyDeployments * podsEach
	if err := w.until(ctx, func(s *state.State) bool { return len(s.Pods) == total }); err != nil {
		return err
	}
	placed := time.Since(start)
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == total }); err != nil {
		return err
	}
	all := time.Since(start)
	rss, anon := resident()
	b.atMost("10,000 pods on 1,000 nodes: all placed", ms(placed), "ms", 1000)
	b.atMost("10,000 pods on 1,000 nodes: all Ready", ms(all), "ms", 2500)
	b.atMost("10,000 pods on 1,000 nodes: resident", rss, "MB", 200)
	b.atMost("10,000 pods on 1,000 nodes: anonymous", anon, "MB", 0)
	return w.stop()
}

// unchanged is a commit that touches nothing that an application reads: from
// the snapshot to the durable record.
func unchanged(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, 10)
	if err != nil {
		return err
	}
	follow, stop := context.WithCancel(ctx)
	defer stop()
	pushed := make(push, 1)
	feeds := act.NewFeeds(w.ctl, pushed, overlay.New(overlay.Options{Tokens: w.data.Secrets}), ".", slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	all.Go(func() { feeds.Run(follow) })
	var samples []time.Duration
	for i := range 201 {
		rev := state.Revision(fmt.Sprintf("main@sha1:%040x", i+1))
		tree := rendertest.FromFiles(map[string]string{
			"kustomization.yaml": "resources: [web.yaml]\n", "web.yaml": webYAML, "README.md": string(rev),
		})
		start := time.Now()
		pushed <- sources.Snapshot{Revision: rev, FS: tree}
		if err := w.until(ctx, func(s *state.State) bool { return s.Apps[state.RootApp].Revision == rev }); err != nil {
			return err
		}
		if i > 0 {
			samples = append(samples, time.Since(start))
		}
	}
	b.atMost("a commit that changes nothing, p99 of 200", ms(p99(samples)), "ms", 5)
	stop()
	all.Wait()
	return w.stop()
}

const webYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      os: {name: linux}
      containers: [{name: web, image: bench.example/web:1}]
`

// push is a source whose commits are pushed into it.
type push chan sources.Snapshot

// Open implements act.Origins.
func (p push) Open(state.AppSource) (string, func() (sources.Source, error), error) {
	return "push", func() (sources.Source, error) { return p, nil }, nil
}

// Next implements sources.Source.
func (p push) Next(ctx context.Context, _ state.Revision) (sources.Snapshot, error) {
	select {
	case snap := <-p:
		return snap, nil
	case <-ctx.Done():
		return sources.Snapshot{}, ctx.Err()
	}
}

// statefulSet is how long each ordered step takes when a pod is ready at once:
// from one placement to the next, everything between durable.
func statefulSet(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, 20)
	if err != nil {
		return err
	}
	const replicas = 100
	start := time.Now()
	w.commit(1, statefulset("db", "bench.example/db:1", replicas))
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == replicas }); err != nil {
		return err
	}
	took := time.Since(start)
	w.commit(2, statefulset("db", "bench.example/db:1", 3*replicas))
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == 3*replicas }); err != nil {
		return err
	}
	var last int64
	var steps []time.Duration
	for r, err := range w.ctl.Records(ctx, 1) {
		if err != nil {
			return err
		}
		if _, ok := r.Fact.(*state.PodPlaced); ok {
			if last > 0 {
				steps = append(steps, time.Duration(r.At.Wall-last))
			}
			last = r.At.Wall
		}
	}
	goal := 0.0
	if floor := b.floors["fsync"]; floor > 0 {
		goal = 4*floor + 2
	}
	b.atMost("StatefulSet: 100 ordered replicas created", ms(took), "ms", 1000)
	b.atMost("StatefulSet: one ordered step, p99 of 299", ms(p99(steps)), "ms", goal)
	return w.stop()
}

// rollout replaces 1,000 pods of one Deployment.
func rollout(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, 100)
	if err != nil {
		return err
	}
	const replicas = 1000
	w.commit(1, deployment("web", "bench.example/web:1", state.Linux, replicas))
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == replicas }); err != nil {
		return err
	}
	start := time.Now()
	w.commit(2, deployment("web", "bench.example/web:2", state.Linux, replicas))
	ref := state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}
	var first atomic.Int64
	if err := w.until(ctx, func(s *state.State) bool {
		wl := s.Workloads[ref]
		if first.Load() == 0 && !wl.Complete {
			first.Store(1)
		}
		return first.Load() == 1 && wl.Complete
	}); err != nil {
		return err
	}
	b.atMost("Deployment of 1,000 rolled", ms(time.Since(start)), "ms", 1000)
	return w.stop()
}

// idle is what nothing costs, with 10,000 pods.
func idle(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, manyNodes)
	if err != nil {
		return err
	}
	w.commit(1, many(1)...)
	total := manyDeployments * podsEach
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == total }); err != nil {
		return err
	}
	runtime.GC()
	before, start := cpuTime(), time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(60 * time.Second):
	}
	share := 100 * float64(cpuTime()-before) / float64(time.Since(start))
	b.atMost("idle with 10,000 pods, mean over 60 s", share, "% core", 1)
	return w.stop()
}
