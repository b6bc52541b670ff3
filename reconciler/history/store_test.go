package history_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// recordAt is a record that differs from every other.
func recordAt(seq state.Seq) *state.Record {
	r := &state.Record{Seq: seq, At: state.Instant{Mono: time.Duration(seq) * time.Millisecond, Wall: 1_795_000_000_000_000_000 + int64(seq)*1e6}, App: "shop"}
	switch {
	case seq == 1:
		r.Fact = &state.LogStarted{ID: state.DigestOf([]byte("log")), Format: 1}
	case seq%3 == 0:
		r.Fact = &state.PodObserved{UID: state.NewUID(state.DigestOf([]byte("log")), seq-1, "prod", fmt.Sprintf("web-%d", seq-1)), Phase: state.Running, Ready: true, IP: "10.0.0.1"}
	default:
		r.Fact = &state.PodPlaced{
			Pod:      state.PodKey{Namespace: "prod", Name: fmt.Sprintf("web-%d", seq)},
			Workload: state.Ref{Kind: "Deployment", Namespace: "prod", Name: fmt.Sprintf("web-%d", seq%20)},
			OS:       state.Linux, Ordinal: -1, Template: state.DigestOf([]byte("t")), Node: state.NodeName(fmt.Sprintf("node-%d", seq%7)),
		}
	}
	return r
}

func batchAfter(h history.Head, n int) []*state.Record {
	out := make([]*state.Record, n)
	for i := range out {
		out[i] = recordAt(h.Seq + state.Seq(i) + 1)
	}
	return out
}

func open(t testing.TB, dir string, o history.Options) *history.Store {
	t.Helper()
	s, err := history.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, historytest.ErrCrashed) {
			t.Error(err)
		}
	})
	return s
}

func add(t testing.TB, s *history.Store, batches ...int) {
	t.Helper()
	for _, n := range batches {
		if _, err := s.Append(context.Background(), s.Head(), batchAfter(s.Head(), n)); err != nil {
			t.Fatal(err)
		}
	}
}

// holds checks that a store has exactly the records 1 to n.
func holds(t testing.TB, s *history.Store, n state.Seq) {
	t.Helper()
	if got := s.Head().Seq; got != n {
		t.Fatalf("the log ends with record %d, want %d", got, n)
	}
	seq := state.Seq(0)
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(is []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range is {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	for r, err := range s.Read(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		seq++
		if diff := cmp.Diff(recordAt(seq), r); diff != "" {
			t.Fatalf("record %d:\n%s", seq, diff)
		}
		raw, err := recordpb.MarshalRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		hs, err := tlog.StoredHashes(int64(seq)-1, raw, reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hs...)
	}
	if seq != n {
		t.Fatalf("read %d records, want %d", seq, n)
	}
	root, err := tlog.TreeHash(int64(n), reader)
	if err != nil {
		t.Fatal(err)
	}
	if state.Digest(root) != s.Head().Root {
		t.Fatalf("root is %s, want %s", s.Head().Root, state.Digest(root))
	}
}

func TestRecordsComeBackAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	o := history.Options{SegmentRecords: 50}
	total := state.Seq(0)
	for round, batches := range [][]int{{1, 1, 7}, {30, 30, 1}, {200}, {}, {5, 49, 1, 1}} {
		s := open(t, dir, o)
		add(t, s, batches...)
		for _, n := range batches {
			total += state.Seq(n)
		}
		holds(t, s, total)
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	s := open(t, dir, o)
	holds(t, s, total)
	for seq := state.Seq(1); seq <= total; seq++ {
		r, err := s.ReadAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(recordAt(seq), r); diff != "" {
			t.Fatal(diff)
		}
	}
	for _, seq := range []state.Seq{0, total + 1} {
		if _, err := s.ReadAt(seq); !errors.Is(err, history.ErrNoRecord) {
			t.Errorf("record %d: %v", seq, err)
		}
	}
	for from := state.Seq(1); from <= total+1; from += 13 {
		want := from
		for r, err := range s.Read(context.Background(), from) {
			if err != nil || r.Seq != want {
				t.Fatalf("from %d: got %v (%v), want %d", from, r, err, want)
			}
			want++
		}
		if want != total+1 {
			t.Fatalf("from %d: ended before %d", from, want)
		}
	}
}

func TestAnotherHeadIsAConflict(t *testing.T) {
	s := open(t, t.TempDir(), history.Options{})
	before := s.Head()
	add(t, s, 3)
	if _, err := s.Append(context.Background(), before, batchAfter(before, 1)); !errors.Is(err, history.ErrConflict) {
		t.Errorf("got %v", err)
	}
	other := s.Head()
	other.Root[0] ^= 1
	if _, err := s.Append(context.Background(), other, batchAfter(other, 1)); !errors.Is(err, history.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Append(context.Background(), s.Head(), []*state.Record{recordAt(9)}); err == nil {
		t.Error("record 9 was appended after record 3")
	}
	add(t, s, 1) // none of these ended the store
	holds(t, s, 4)
}

func TestOneWriterManyReaders(t *testing.T) {
	dir := t.TempDir()
	if _, err := history.Open(dir, history.Options{ReadOnly: true}); !errors.Is(err, history.ErrNoLog) {
		t.Errorf("empty directory: %v", err)
	}
	s := open(t, dir, history.Options{SegmentRecords: 20})
	if _, err := history.Open(dir, history.Options{}); !errors.Is(err, history.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second writer: %v", err)
	}
	for range 10 {
		add(t, s, 7)
		r, err := history.Open(dir, history.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		holds(t, r, s.Head().Seq)
		if _, err := r.Append(context.Background(), r.Head(), batchAfter(r.Head(), 1)); !errors.Is(err, history.ErrReadOnly) {
			t.Errorf("append to a reader: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A reader sees no half batch and no error, whatever the writer is doing.
func TestReadersBesideALiveWriter(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, history.Options{SegmentRecords: 64})
	add(t, s, 1)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for range 600 {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := s.Append(context.Background(), s.Head(), batchAfter(s.Head(), 9)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 30 {
		r, err := history.Open(dir, history.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		holds(t, r, r.Head().Seq)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// An iteration that is left early, or cancelled, ends its goroutine and says so.
func TestReadingCanBeLeft(t *testing.T) {
	s := open(t, t.TempDir(), history.Options{})
	add(t, s, 5000)
	for range s.Read(context.Background(), 1) {
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for _, err := range s.Read(ctx, 1) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v", last)
	}
}

// workload appends until something fails and says what was acknowledged.
func workload(d *historytest.Disk) (acked history.Head, err error) {
	s, err := history.Open("mem", history.Options{Disk: d, SegmentRecords: 12})
	if err != nil {
		return history.Head{}, err
	}
	acked = s.Head()
	for i := range 9 {
		if _, err := s.Texts().Put(fmt.Sprintf("text %d after %d", i, acked.Seq)); err != nil {
			return acked, errors.Join(err, s.Close())
		}
		h, err := s.Append(context.Background(), acked, batchAfter(acked, 1+i%4))
		if err != nil {
			if _, again := s.Append(context.Background(), acked, batchAfter(acked, 1)); !errors.Is(again, history.ErrFailed) {
				return acked, fmt.Errorf("after %w the store went on: %w", err, again)
			}
			return acked, errors.Join(err, s.Close())
		}
		acked = h
	}
	return acked, s.Close()
}

// At every operation that touches the disk: a crash of the machine, with and
// without unsynced bytes, a kill, ENOSPC, EIO, a short write. What was
// acknowledged is there afterwards, and at most one batch more.
func TestEveryFaultAtEveryWrite(t *testing.T) {
	probe := historytest.NewDisk()
	if _, err := workload(probe); err != nil {
		t.Fatal(err)
	}
	total := probe.Ops()
	if total < 40 {
		t.Fatalf("only %d operations", total)
	}
	errDisk := errors.New("no space left on device")
	for name, f := range map[string]historytest.Fault{"crash": {}, "torn": {Short: true}, "error": {Err: errDisk}, "short": {Err: errDisk, Short: true}} {
		for at := 1; at <= total; at++ {
			f.At = at
			d := historytest.NewDisk()
			d.Inject(f)
			acked, err := workload(d)
			if f.Err != nil && err != nil && !errors.Is(err, errDisk) {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			half := func(_ string, n int) int { return n / 2 }
			all := func(_ string, n int) int { return n }
			for after, disk := range map[string]*historytest.Disk{"lost": d.Crash(nil), "half": d.Crash(half), "all": d.Crash(all), "killed": d.Kill()} {
				s, err := history.Open("mem", history.Options{Disk: disk, SegmentRecords: 12})
				if err != nil {
					t.Fatalf("%s at %d, %s: %v", name, at, after, err)
				}
				if got := s.Head().Seq; got < acked.Seq || got > acked.Seq+4 {
					t.Fatalf("%s at %d, %s: %d records were acknowledged, %d are there", name, at, after, acked.Seq, got)
				}
				add(t, s, 2)
				holds(t, s, s.Head().Seq)
				if err := s.Close(); err != nil {
					t.Fatalf("%s at %d, %s: %v", name, at, after, err)
				}
			}
		}
	}
}

func TestTextsAreErasable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, history.Options{})
	a, err := s.Texts().Put("Ada Lovelace <ada@shop.example>")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := s.Texts().Put("fix the till")
	again, _ := s.Texts().Put("fix the till")
	none, _ := s.Texts().Put("")
	if again != b || a == b || !none.IsZero() {
		t.Errorf("tokens %s %s %s %s", a, b, again, none)
	}
	add(t, s, 1)
	if err := s.Texts().Erase(a); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, history.Options{})
	if got, ok := s.Texts().Clear(a); ok || got != "" && strings.Trim(got, "\x00") != "" {
		t.Errorf("erased, and still %q", got)
	}
	if got, ok := s.Texts().Clear(b); !ok || got != "fix the till" {
		t.Errorf("got %q, %v", got, ok)
	}
	if err := s.Texts().Erase(state.Text{9}); !errors.Is(err, history.ErrNoText) {
		t.Errorf("got %v", err)
	}
	for _, f := range glob(t, filepath.Join(dir, "texts")) {
		if strings.Contains(string(f), "Ada") {
			t.Error("the erased words are still on disk")
		}
	}
}

func TestBlobsAndSnapshots(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, history.Options{})
	add(t, s, 10)
	blobs, err := s.OpenBlobs()
	if err != nil {
		t.Fatal(err)
	}
	d := state.DigestOf([]byte("a name that is not the content's hash"))
	if _, err := blobs.Blob(d); !errors.Is(err, history.ErrNoBlob) {
		t.Errorf("got %v", err)
	}
	if err := blobs.Put(d, []byte("manifest")); err != nil {
		t.Fatal(err)
	}
	if got, err := blobs.Blob(d); err != nil || string(got) != "manifest" {
		t.Errorf("got %q, %v", got, err)
	}
	if snap, err := s.LatestSnapshot(10); err != nil || snap.Seq != 0 {
		t.Errorf("got %v, %v", snap, err)
	}
	for _, seq := range []state.Seq{3, 7} {
		if err := s.SaveSnapshot(history.Snapshot{Seq: seq, Digest: d, State: fmt.Appendf(nil, "state %d", seq)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SaveSnapshot(history.Snapshot{Seq: 11}); err == nil {
		t.Error("a snapshot of the future was saved")
	}
	for until, want := range map[state.Seq]state.Seq{2: 0, 3: 3, 6: 3, 10: 7} {
		if snap, err := s.LatestSnapshot(until); err != nil || snap.Seq != want {
			t.Errorf("until %d: got %d, %v", until, snap.Seq, err)
		}
	}
}
