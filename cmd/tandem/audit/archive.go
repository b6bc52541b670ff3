package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// An Archive is a log that is read: a data directory, stopped or live, a
// bundle, or the log of the controller in this process.
type Archive struct {
	Store *history.Store
	Blobs state.Blobs
	Look  int       // replaces firstLook, for tests
	file  io.Closer // of a bundle
}

// Open opens a data directory or a bundle for reading.
func Open(path string) (*Archive, error) {
	disk, file, err := diskOf(path)
	if err != nil {
		return nil, err
	}
	a, err := open(path, disk)
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return nil, err
	}
	a.file = file
	return a, nil
}

func open(path string, disk history.Disk) (*Archive, error) {
	store, err := history.Open(path, history.Options{ReadOnly: true, Disk: disk})
	if err != nil {
		return nil, err
	}
	s, err := openShelf(disk)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &Archive{Store: store, Blobs: act.NewLibrary(s, s)}, nil
}

// diskOf is the Disk of a directory, or of a bundle with its open file.
func diskOf(path string) (history.Disk, io.Closer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open data directory or bundle: %w", err)
	}
	if info.IsDir() {
		return history.Dir(path), nil, nil
	}
	b, err := openBundle(path)
	if err != nil {
		return nil, nil, err
	}
	return b, b, nil
}

// Close lets go of the files.
func (a *Archive) Close() error {
	err := a.Store.Close()
	if a.file != nil {
		err = errors.Join(err, a.file.Close())
	}
	return err
}

// Words are the words behind a token.
func (a *Archive) Words(t state.Text) string {
	if t.IsZero() {
		return ""
	}
	if clear, ok := a.Store.Texts().Clear(t); ok {
		return clear
	}
	return "(erased)"
}

// Fold is the state as of a record; 0 means the end.
func (a *Archive) Fold(ctx context.Context, until state.Seq) (*state.State, error) {
	if head := a.Store.Head().Seq; until == 0 || until > head {
		until = head
	}
	s, err := a.nearest(until)
	if err != nil {
		return nil, err
	}
	for r, err := range a.Store.Read(ctx, s.Seq+1) {
		if err != nil {
			return nil, err
		}
		if r.Seq > until {
			break
		}
		if err := s.Apply(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// nearest is the state of the newest snapshot at or before a record. A snapshot
// is a cache: one that is damaged costs time; verify says what is wrong with it.
func (a *Archive) nearest(until state.Seq) (*state.State, error) {
	kept, _ := a.Store.LatestSnapshot(until)
	if kept.Seq == 0 {
		return state.New(a.Blobs), nil
	}
	snap := new(state.Snapshot)
	if err := recordpb.Unmarshal(kept.State, snap); err != nil {
		return state.New(a.Blobs), nil //nolint:nilerr // see above
	}
	return state.Restore(snap, a.Blobs)
}

// ErrBefore means that the log begins later than the moment that was asked for.
var ErrBefore = errors.New("the log begins later")

// Find reads a moment as people write it, a record's number or a time, and
// gives the last record at or before it.
func (a *Archive) Find(when string, now time.Time) (state.Seq, error) {
	if n, err := strconv.ParseUint(when, 10, 63); err == nil {
		if seq := state.Seq(n); seq == 0 || seq > a.Store.Head().Seq {
			return 0, fmt.Errorf("record %d: the log has records 1 to %d", n, a.Store.Head().Seq)
		}
		return state.Seq(n), nil
	}
	t, err := report.ParseTime(when, now)
	if err != nil {
		return 0, err
	}
	if t.IsZero() {
		return 0, errors.New("want a time or the number of a record")
	}
	seq, err := a.Store.Time(t.UnixNano())
	if err != nil {
		return 0, err
	}
	if seq == 0 {
		first := "it is empty"
		if r, err := a.Store.ReadAt(1); err == nil {
			first = "its first record is of " + r.At.Time().In(now.Location()).Format("2006-01-02 15:04:05")
		}
		return 0, fmt.Errorf("%s: %w: %s", t.Format("2006-01-02 15:04:05"), ErrBefore, first)
	}
	return seq, nil
}

// At says what ran as of a record.
func (a *Archive) At(ctx context.Context, seq state.Seq) (*report.Moment, error) {
	s, err := a.Fold(ctx, seq)
	if err != nil {
		return nil, err
	}
	past, err := a.past(ctx, s)
	if err != nil {
		return nil, err
	}
	m := report.NewMoment(s, past, a.Words)
	return &m, nil
}

// past is what the log says of the applications before a state and the state
// no longer does: which commits came before, and what people approved.
func (a *Archive) past(ctx context.Context, s *state.State) ([]*state.Record, error) {
	var out []*state.Record
	f := history.Filter{Kinds: []state.Kind{state.KindRevisionApplied, state.KindReleased}, To: s.Seq}
	for r, err := range a.Store.Select(ctx, f) {
		if err != nil {
			return nil, err
		}
		if f, ok := r.Fact.(*state.Released); ok && !f.Approved {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// Diff says what changed between two records.
func (a *Archive) Diff(ctx context.Context, from, to state.Seq) (*report.Difference, error) {
	before, err := a.Fold(ctx, from)
	if err != nil {
		return nil, err
	}
	after, err := a.Fold(ctx, to)
	if err != nil {
		return nil, err
	}
	d := report.NewDifference(before, after, a.Words)
	return &d, nil
}

// Between is Diff of two moments as people write them.
func (a *Archive) Between(ctx context.Context, from, to string, now time.Time) (*report.Difference, error) {
	first, err := a.Find(from, now)
	if err != nil {
		return nil, err
	}
	last, err := a.Find(to, now)
	if err != nil {
		return nil, err
	}
	return a.Diff(ctx, first, last)
}

// shelf finds blobs on a disk; secret values stay sealed where the keys aren't
// there, as in a copy for an auditor.
type shelf struct {
	blobs   *history.Blobs
	secrets *history.Secrets // nil: no keys
}

func openShelf(disk history.Disk) (*shelf, error) {
	blobs, err := history.ReadBlobs(disk)
	if err != nil {
		return nil, err
	}
	secrets, err := history.ReadSecrets(disk)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &shelf{blobs, secrets}, nil
}

// Put implements act.Shelf: an archive is read only.
func (*shelf) Put(state.Digest, []byte) error { return history.ErrReadOnly }

// Open implements act.Shelf.
func (s *shelf) Open(name state.Digest) ([]byte, error) { return s.blobs.Blob(name) }

// Encode implements act.ManifestCodec: an archive is read only.
func (*shelf) Encode(*state.Manifest) ([]byte, error) { return nil, history.ErrReadOnly }

// Decode implements act.ManifestCodec.
func (s *shelf) Decode(raw []byte) (*state.Manifest, error) {
	if s.secrets == nil {
		return manifest.DecodeManifest(raw, sealed{})
	}
	return manifest.DecodeManifest(raw, s.secrets)
}

// sealed leaves secret values as they are stored.
type sealed struct{}

// Seal implements manifest.Secrets.
func (sealed) Seal([]byte) ([]byte, error) { return nil, history.ErrReadOnly }

// Open implements manifest.Secrets.
func (sealed) Open(kept []byte) ([]byte, error) { return kept, nil }
