package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	pastRecords = 1_000_000
	pastBatch   = 500
	pastNodes   = 200
	pastPods    = 100 // of each Deployment
)

// past measures a log of 1,000,000 records: of 2,000 pods on 200 nodes that
// change, end and are placed again.
func past(ctx context.Context, b *board) error {
	w, err := newWorld(ctx, pastNodes)
	if err != nil {
		return err
	}
	w.keep = true
	defer os.RemoveAll(w.dir)
	w.commit(1, lots(pastPods)...)
	total := manyDeployments * pastPods
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == total }); err != nil {
		return errors.Join(err, w.stop())
	}
	if err := w.stop(); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *board, string) error{fill, single, restarts, looks, proofs, verifies} {
		if err := step(ctx, b, w.dir); err != nil {
			return err
		}
	}
	return nil
}

func lots(pods int32) []*state.Object {
	var objects []*state.Object
	for i := range manyDeployments {
		os := state.Linux
		if i%2 == 1 {
			os = state.Windows
		}
		objects = append(objects, deployment(fmt.Sprintf("web-%02d", i), "bench.example/web:1", os, pods))
	}
	return objects
}

// life makes up what happens to pods that are there.
type life struct {
	fold *state.State
	rand *rand.Rand
	pods []state.UID
	now  state.Instant
}

// next is a batch of records that fold.
func (l *life) next(n int) ([]*state.Record, error) {
	var out []*state.Record
	emit := func(app state.AppName, f state.Fact) error {
		l.now = l.now.Add(time.Millisecond)
		r := &state.Record{Seq: l.fold.Seq + 1, At: l.now, App: app, Fact: f}
		out = append(out, r)
		return l.fold.Apply(r)
	}
	for len(out) < n {
		i := l.rand.IntN(len(l.pods))
		p := l.fold.Pods[l.pods[i]]
		app := l.fold.Workloads[p.Workload].App
		var facts []state.Fact
		if len(out)+4 <= n && l.rand.IntN(40) == 0 {
			key, node := p.Key, p.Node
			facts = []state.Fact{
				&state.PodStopping{UID: p.UID, Why: state.StopRequested}, &state.PodGone{UID: p.UID},
				&state.PodPlaced{Pod: key, Workload: p.Workload, OS: p.OS, Ordinal: p.Ordinal, Template: p.Template.Digest, Node: node, Serial: 1},
			}
		} else {
			facts = []state.Fact{&state.PodObserved{UID: p.UID, Phase: state.Running, Ready: !p.Ready, IP: "10.0.0.1", Containers: p.Containers}}
		}
		for _, f := range facts {
			if err := emit(app, f); err != nil {
				return nil, err
			}
			if placed, ok := f.(*state.PodPlaced); ok {
				l.pods[i] = l.fold.ByName[placed.Pod].UID
			}
		}
	}
	return out, nil
}

// fill appends up to a million records, with the snapshots of a controller.
func fill(ctx context.Context, b *board, dir string) (err error) {
	data, err := serve.OpenData(dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	fold, err := data.Fold(ctx, 0)
	if err != nil {
		return err
	}
	l := newLife(fold)
	var spent time.Duration
	added := 0
	for fold.Seq < pastRecords {
		records, err := l.next(min(pastBatch, int(pastRecords-fold.Seq)))
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := data.Store.Append(ctx, data.Store.Head(), records); err != nil {
			return err
		}
		spent += time.Since(start)
		added += len(records)
		if uint64(fold.Seq)/act.SnapshotEvery > uint64(fold.Seq-state.Seq(len(records)))/act.SnapshotEvery {
			if err := keep(data.Store, fold); err != nil {
				return err
			}
		}
	}
	b.atLeast("append, batches of 500, durable", float64(added)/spent.Seconds(), "rec/s", 100_000)
	size, err := sizeOf(dir)
	b.atMost("size of 1,000,000 records with snapshots", size, "MB", 0)
	return err
}

func newLife(fold *state.State) *life {
	l := &life{fold: fold, rand: rand.New(rand.NewPCG(1, 2)), now: fold.At} //nolint:gosec // a bench wants the same numbers each time
	for _, p := range fold.SortedPods() {
		l.pods = append(l.pods, p.UID)
	}
	return l
}

func keep(store *history.Store, fold *state.State) error {
	raw, err := recordpb.Marshal(fold.Snapshot())
	if err != nil {
		return err
	}
	return store.SaveSnapshot(history.Snapshot{Seq: fold.Seq, Digest: state.DigestOf(raw), State: raw})
}

func sizeOf(dir string) (float64, error) {
	var bytes int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			bytes += info.Size()
		}
		return err
	})
	return float64(bytes) / (1 << 20), err
}

// single is one record at a time, alone and while a reader holds the log open.
func single(ctx context.Context, b *board, dir string) (err error) {
	data, err := serve.OpenData(dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	fold, err := data.Fold(ctx, 0)
	if err != nil {
		return err
	}
	l := newLife(fold)
	measure := func() ([]time.Duration, error) {
		var samples []time.Duration
		for range 300 {
			records, err := l.next(1)
			if err != nil {
				return nil, err
			}
			start := time.Now()
			if _, err := data.Store.Append(ctx, data.Store.Head(), records); err != nil {
				return nil, err
			}
			samples = append(samples, time.Since(start))
		}
		return samples, nil
	}
	alone, err := measure()
	if err != nil {
		return err
	}
	b.atMost("append one record, durable, mean of 300", ms(mean(alone)), "ms", 3*b.floors["fsync"])
	for _, err := range data.Store.Read(ctx, 1) {
		if err != nil {
			return err
		}
		// The reader stands still here, in the middle of the log.
		beside, err := measure()
		if err != nil {
			return err
		}
		b.atMost("append one record beside a reader, worst", ms(slices.Max(beside)), "ms", 2*ms(slices.Max(alone))+1)
		break
	}
	return nil
}

func mean(samples []time.Duration) time.Duration {
	var sum time.Duration
	for _, s := range samples {
		sum += s
	}
	return sum / time.Duration(len(samples))
}

// restarts is from nothing to a controller that could run.
func restarts(ctx context.Context, b *board, dir string) error {
	open := func(snapshots bool) (time.Duration, error) {
		start := time.Now()
		data, err := serve.OpenData(dir, false)
		if err != nil {
			return 0, err
		}
		cfg := act.Config{Log: data.Store, Library: data.Library, Texts: data.Store.Texts(), LogID: data.Store.ID(), Logger: slog.New(slog.DiscardHandler)}
		if snapshots {
			cfg.Snapshots = data.Snapshots()
		}
		_, err = act.New(ctx, cfg)
		took := time.Since(start)
		return took, errors.Join(err, data.Close())
	}
	with, err := open(true)
	if err != nil {
		return err
	}
	b.atMost("start over 1,000,000 records", ms(with), "ms", 300)
	without, err := open(false)
	if err != nil {
		return err
	}
	b.atMost("start over 1,000,000 records, no snapshots", ms(without), "ms", 1000)
	return nil
}

// looks are questions about the past.
func looks(ctx context.Context, b *board, dir string) (err error) {
	a, err := audit.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a bench wants the same numbers each time
	first, err := a.Store.ReadAt(1)
	if err != nil {
		return err
	}
	end, err := a.Store.ReadAt(a.Store.Head().Seq)
	if err != nil {
		return err
	}
	moment := func() string {
		return time.Unix(0, first.At.Wall+r.Int64N(end.At.Wall-first.At.Wall)).Format(time.RFC3339Nano)
	}
	var ats, diffs, selects []time.Duration
	for range 200 {
		when := moment()
		start := time.Now()
		seq, err := a.Find(when, start)
		if errors.Is(err, audit.ErrBefore) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := a.At(ctx, seq); err != nil {
			return err
		}
		ats = append(ats, time.Since(start))
	}
	b.atMost("what ran at a time, p99 of 200", ms(p99(ats)), "ms", 50)
	for range 20 {
		from, to := moment(), moment()
		start := time.Now()
		if _, err := a.Between(ctx, from, to, start); err != nil {
			return err
		}
		diffs = append(diffs, time.Since(start))
	}
	b.atMost("what changed between two times, worst of 20", ms(slices.Max(diffs)), "ms", 1000)
	for range 50 {
		from := state.Seq(1 + r.Int64N(pastRecords))
		f := history.Filter{Object: state.Ref{Kind: "Deployment", Namespace: "default", Name: fmt.Sprintf("web-%02d", r.IntN(manyDeployments))}, From: from, To: from + 20_000}
		start := time.Now()
		for _, err := range a.Store.Select(ctx, f) {
			if err != nil {
				return err
			}
		}
		selects = append(selects, time.Since(start))
	}
	b.atMost("one object's records of 20,000, p99 of 50", ms(p99(selects)), "ms", 50)
	return newest(ctx, b, a, r, moment)
}

// newest are questions for the last lines that pass a filter.
func newest(ctx context.Context, b *board, a *audit.Archive, r *rand.Rand, moment func() string) (err error) {
	var lists []time.Duration
	for range 50 {
		filters := []report.Filter{
			{App: state.RootApp}, {Object: fmt.Sprintf("deploy/web-%02d", r.IntN(manyDeployments))}, {Kind: "PodPlaced"}, {Node: "linux-0000"}, {Outcome: "gone"},
		}
		f := filters[r.IntN(len(filters))]
		f.Limit = 100
		if f.Until, err = report.ParseTime(moment(), time.Now()); err != nil {
			return err
		}
		start := time.Now()
		if _, _, err := a.Lines(ctx, f, func(report.Line) error { return nil }); err != nil {
			return err
		}
		lists = append(lists, time.Since(start))
	}
	b.atMost("the newest 100 lines of a filter, p99 of 50", ms(p99(lists)), "ms", 50)
	return nil
}

func proofs(_ context.Context, b *board, dir string) (err error) {
	a, err := audit.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	r := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // a bench wants the same numbers each time
	var samples []time.Duration
	for range 500 {
		seq := state.Seq(1 + r.Int64N(int64(a.Store.Head().Seq)))
		start := time.Now()
		if _, err := a.Store.Prove(seq); err != nil {
			return err
		}
		samples = append(samples, time.Since(start))
	}
	b.atMost("prove one record of 1,000,000, p99 of 500", ms(p99(samples)), "ms", 1)
	return nil
}

func verifies(ctx context.Context, b *board, dir string) error {
	start := time.Now()
	r, err := history.Verify(ctx, dir, history.VerifyOptions{})
	if err != nil {
		return err
	}
	b.atLeast("verify the tree of 1,000,000 records", float64(r.Records)/time.Since(start).Seconds(), "rec/s", 1_000_000)
	start = time.Now()
	if r, err = audit.Verify(ctx, dir, audit.Options{Every: true}); err != nil {
		return err
	}
	b.atLeast("verify, fold and every signature", float64(r.Records)/time.Since(start).Seconds(), "rec/s", 300_000)
	if !r.OK() {
		return fmt.Errorf("the log is damaged: %w", &r.Findings[0])
	}
	return nil
}
