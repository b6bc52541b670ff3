package history

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Read implements Log. Batches are read and decoded one ahead of the caller, in
// a goroutine that ends with the iteration.
func (s *Store) Read(ctx context.Context, from state.Seq) iter.Seq2[*state.Record, error] {
	return s.read(ctx, s.view(), max(from, 1))
}

func (*Store) read(ctx context.Context, view *segments, from state.Seq) iter.Seq2[*state.Record, error] {
	return func(yield func(*state.Record, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ahead := make(chan decoded, 4)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer close(ahead)
			err := view.decode(ctx, from, ahead)
			if err != nil {
				select {
				case ahead <- decoded{err: err}:
				case <-ctx.Done():
				}
			}
		}()
		defer func() {
			cancel()
			<-done
		}()
		for d := range ahead {
			for _, r := range d.records {
				if !yield(r, nil) {
					return
				}
			}
			if d.err != nil {
				yield(nil, d.err)
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// decoded is some records, in order, or the error that ends them.
type decoded struct {
	records []*state.Record
	err     error
}

// handOver is how many records go over at once: enough that the channel costs nothing.
const handOver = 512

func (ss *segments) decode(ctx context.Context, from state.Seq, to chan<- decoded) error {
	var d decoded
	flush := func() error {
		if len(d.records) == 0 {
			return nil
		}
		select {
		case to <- d:
			d = decoded{records: make([]*state.Record, 0, handOver)}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i := range ss.list {
		s := &ss.list[i]
		if s.end() < from {
			continue
		}
		err := ss.batches(s, from, func(f *frame) error {
			for j, raw := range f.records {
				seq := f.first + state.Seq(j)
				if seq < from || seq > s.end() {
					continue
				}
				r, err := recordpb.UnmarshalRecord(raw)
				if err != nil {
					return fmt.Errorf("%s: %w", logName(s.first), err)
				}
				if r.Seq != seq {
					return damaged(logName(s.first), 0, "record %d says that it is record %d", seq, r.Seq)
				}
				if d.records = append(d.records, r); len(d.records) == handOver {
					if err := flush(); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return errors.Join(flush(), err)
		}
	}
	return flush()
}

// batches calls do for each batch of a segment from the one that holds a record on.
func (ss *segments) batches(s *segment, from state.Seq, do func(*frame) error) error {
	at := frameAt{s.first, fileHeader}
	if from > s.first {
		fs, err := s.frames(ss.disk)
		if err != nil {
			return err
		}
		at = frameOf(fs, from)
	}
	f, err := ss.disk.Open(logName(s.first))
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.NewSectionReader(f, at.offset, s.size-at.offset), 1<<17)
	next, offset := at.first, at.offset
	var fr frame
	var buf []byte
	for next <= s.end() {
		buf, err = readFrame(r, buf, &fr)
		if err != nil {
			return damaged(logName(s.first), offset, "%v", err)
		}
		if fr.first != next {
			return damaged(logName(s.first), offset, "the batch begins with record %d, want %d", fr.first, next)
		}
		if err := do(&fr); err != nil {
			return err
		}
		next, offset = fr.end()+1, offset+fr.size
	}
	return nil
}

// ReadAt is the record of a sequence number.
func (s *Store) ReadAt(seq state.Seq) (*state.Record, error) {
	raw, err := s.view().raw(seq)
	if err != nil {
		return nil, err
	}
	return recordpb.UnmarshalRecord(raw)
}

// ErrNoRecord means that the log has no such record.
var ErrNoRecord = errors.New("no such record")

// raw is a record's bytes, held against its leaf in the tree.
func (ss *segments) raw(seq state.Seq) ([]byte, error) {
	s := ss.find(seq)
	if seq == 0 || s == nil {
		return nil, fmt.Errorf("record %d: %w", seq, ErrNoRecord)
	}
	at, err := s.offset(ss.disk, seq)
	if err != nil {
		return nil, err
	}
	f, err := ss.disk.Open(logName(s.first))
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	defer f.Close()
	raw, err := recordAt(f, at, s.size)
	if err != nil {
		return nil, damaged(logName(s.first), at, "record %d: %v", seq, err)
	}
	leaf, err := ss.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(seq)-1)})
	if err != nil {
		return nil, err
	}
	if tlog.RecordHash(raw) != leaf[0] {
		return nil, damaged(logName(s.first), at, "record %d does not hash to its leaf in the tree", seq)
	}
	return raw, nil
}

// recordAt reads the record whose length stands at an offset.
func recordAt(f File, at, size int64) ([]byte, error) {
	const guess = 512 // nearly all are shorter
	if at < fileHeader || at >= size {
		return nil, errors.New("its place is outside the file")
	}
	buf := make([]byte, min(guess, size-at))
	if _, err := f.ReadAt(buf, at); err != nil {
		return nil, err
	}
	n, w := binary.Uvarint(buf)
	if w <= 0 || n > recordpb.MaxRecord || at+int64(w)+int64(n) > size {
		return nil, errors.New("its length is wrong")
	}
	if w+int(n) <= len(buf) {
		return buf[w : w+int(n)], nil
	}
	raw := make([]byte, n)
	_, err := f.ReadAt(raw, at+int64(w))
	return raw, err
}
