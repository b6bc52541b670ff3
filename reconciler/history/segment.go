package history

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

const logDir = "log"

func logName(first state.Seq) string   { return fmt.Sprintf("%s/%020d.log", logDir, uint64(first)) }
func indexName(first state.Seq) string { return fmt.Sprintf("%s/%020d.idx", logDir, uint64(first)) }

// A segment is one file of the log: a run of batches. The last one grows; the
// others never change.
type segment struct {
	first state.Seq
	count int
	size  int64 // bytes of the file that hold acknowledged batches
	index *index
	disk  *diskIndex // of a sealed segment; then index is nil
}

func (s *segment) end() state.Seq { return s.first + state.Seq(s.count) - 1 }

// An index says where things are in a segment, and what the tree stores for
// its records.
type index struct {
	frames  []frameAt
	offsets []int64 // of each record's length in the file
	hashes  []tlog.Hash
}

type frameAt struct {
	first  state.Seq
	offset int64
}

func (x *index) add(b *batch, at int64, first state.Seq) {
	x.frames = append(x.frames, frameAt{first, at})
	for _, o := range b.offsets {
		x.offsets = append(x.offsets, at+o)
	}
	x.hashes = append(x.hashes, b.hashes...)
}

// frameOf is the place of the batch that holds seq.
func frameOf(frames []frameAt, seq state.Seq) frameAt {
	i, found := slices.BinarySearchFunc(frames, seq, func(f frameAt, s state.Seq) int { return cmp.Compare(f.first, s) })
	if !found {
		i--
	}
	return frames[i]
}

// firstHash is the number of the first hash that tlog stores for a record.
func firstHash(seq state.Seq) int64 { return tlog.StoredHashCount(int64(seq) - 1) }

// A scan is what reading a log file from its beginning found.
type scan struct {
	index *index
	count int
	size  int64 // of the whole batches from the beginning
	tree  tree
	torn  error  // why it ended before the file did; nil where it didn't
	sig   []byte // of the last batch
}

// scanner checks a log file against its own checksums and the tree before it.
type scanner struct {
	disk Disk
	keys *keys
	each func(f *frame, h Head) error // called for each batch; may be nil
	// fresh gives the frame for the next batch and what it is read into, where each
	// keeps what it is given; nil: one for all.
	fresh func() *readBatch
}

// A readBatch is a frame and the memory that it lies in.
type readBatch struct {
	frame
	buf []byte
}

// file reads all of a segment's file. Whether an early end is damage or a batch
// that was never acknowledged is for the caller to say.
func (sc *scanner) file(first state.Seq, before tree) (*scan, error) {
	name := logName(first)
	f, err := sc.disk.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	length, err := f.Size()
	if err != nil {
		return nil, err
	}
	guess := min(int(length/180), 2*SegmentRecords)
	out := &scan{index: &index{offsets: make([]int64, 0, guess), hashes: make([]tlog.Hash, 0, 2*guess)}, tree: before}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, length), 1<<18)
	raw := make([]byte, fileHeader)
	if n, err := io.ReadFull(r, raw); err != nil {
		if n == 0 && !errors.Is(err, io.EOF) {
			return nil, err
		}
		out.torn = errors.New("the header is cut off")
		return out, nil
	}
	h, err := parseHeader(raw)
	if err != nil {
		out.torn = err
		return out, nil
	}
	if h != (Head{Seq: first - 1, Root: state.Digest(before.root())}) {
		return nil, damaged(name, 0, "it does not continue the file before it")
	}
	out.size = fileHeader
	rb := new(readBatch)
	for {
		if sc.fresh != nil {
			rb = sc.fresh()
		}
		rb.buf, err = readFrame(r, rb.buf, &rb.frame)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			out.torn = err
			return out, nil
		}
		if err := sc.frame(out, &rb.frame, name, first); err != nil {
			return nil, err
		}
	}
}

// frame folds one batch into the scan. Its checksum was right, so what is wrong
// here was made wrong on purpose.
func (sc *scanner) frame(out *scan, f *frame, name string, first state.Seq) error {
	if want := first + state.Seq(out.count); f.first != want {
		return damaged(name, out.size, "the batch begins with record %d, want %d", f.first, want)
	}
	out.index.frames = append(out.index.frames, frameAt{f.first, out.size})
	for i, rec := range f.records {
		out.index.offsets = append(out.index.offsets, out.size+f.starts[i])
		out.index.hashes = out.tree.add(out.index.hashes, tlog.RecordHash(rec))
	}
	h := Head{Seq: f.end(), Root: state.Digest(out.tree.root())}
	if h.Root != f.root {
		return damaged(name, out.size, "records %d to %d do not hash to the root that was recorded with them", f.first, f.end())
	}
	if sc.each != nil {
		if err := sc.each(f, h); err != nil {
			return err
		}
	}
	out.sig = append(out.sig[:0], f.sig...)
	out.count += len(f.records)
	out.size += f.size
	return nil
}
