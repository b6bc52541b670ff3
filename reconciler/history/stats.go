package history

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Stats are how large a log is, of what, and how fast it grows.
type Stats struct {
	Head     Head
	First    time.Time // of the first record
	Last     time.Time
	Log      int64 // bytes on the disk: of the records in their batches
	Index    int64
	Blobs    int64 // manifests and templates
	Texts    int64
	Snaps    int64
	Segments int
	Kinds    map[state.Kind]Share
	Apps     map[state.AppName]Share
	Windows  []Window // the newest day, week and month of the log
}

// A Share is some of the records, and their bytes.
type Share struct {
	Records int   `json:"records"`
	Bytes   int64 `json:"bytes"`
}

func (s *Share) add(n int) {
	s.Records++
	s.Bytes += int64(n)
}

// A Window is what was recorded in the last while of the log.
type Window struct {
	Span time.Duration // at most as long as the log
	Share
}

// Stats reads the whole log.
func (s *Store) Stats(ctx context.Context) (*Stats, error) {
	out := &Stats{Head: s.Head(), Kinds: map[state.Kind]Share{}, Apps: map[state.AppName]Share{}}
	if err := s.sizes(out); err != nil || out.Head.Seq == 0 {
		return out, err
	}
	last, err := s.ReadAt(out.Head.Seq)
	if err != nil {
		return nil, err
	}
	for _, span := range []time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour} {
		out.Windows = append(out.Windows, Window{Span: span})
	}
	var raw []byte
	for r, err := range s.Read(ctx, 1) {
		if err != nil {
			return nil, err
		}
		if r.Seq > out.Head.Seq {
			break
		}
		if raw, err = recordpb.AppendRecord(raw[:0], r); err != nil {
			return nil, err
		}
		if r.Seq == 1 {
			out.First = r.At.Time()
		}
		kind, app := out.Kinds[r.Fact.Kind()], out.Apps[r.App]
		kind.add(len(raw))
		app.add(len(raw))
		out.Kinds[r.Fact.Kind()], out.Apps[r.App] = kind, app
		for i := range out.Windows {
			if w := &out.Windows[i]; time.Duration(last.At.Wall-r.At.Wall) < w.Span {
				w.add(len(raw))
			}
		}
	}
	out.Last = last.At.Time()
	for i := range out.Windows {
		out.Windows[i].Span = min(out.Windows[i].Span, max(out.Last.Sub(out.First), time.Second))
	}
	return out, nil
}

// sizes are what the files take.
func (s *Store) sizes(out *Stats) error {
	sum := func(dir string, into func(e Entry) *int64) error {
		entries, err := s.disk.List(dir)
		for _, e := range entries {
			if n := into(e); n != nil && !e.Dir {
				*n += e.Size
			}
		}
		return err
	}
	err := sum(logDir, func(e Entry) *int64 {
		if strings.HasSuffix(e.Name, ".idx") {
			return &out.Index
		}
		out.Segments++
		return &out.Log
	})
	if err != nil {
		return err
	}
	if err := sum(snapDir, func(Entry) *int64 { return &out.Snaps }); err != nil {
		return err
	}
	if f, err := s.disk.Open(textsFile); err == nil {
		out.Texts, err = f.Size()
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dirs, err := s.disk.List(blobDir)
	for _, d := range dirs {
		if err := sum(blobDir+"/"+d.Name, func(Entry) *int64 { return &out.Blobs }); err != nil {
			return err
		}
	}
	return err
}
