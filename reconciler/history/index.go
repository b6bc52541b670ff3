package history

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The index of a sealed segment lies beside it in a file of its own. It is a
// cache: deleted, it is made again from the segment. Its sections have their
// own checksums, so that one can be read without the others.
//
//	"TNDMIDX1", first seq, records, size of the log file (8 each),
//	4 × (length of section (8), CRC-32C (4)), CRC-32C of all that (4)
//	frames:   (first seq, offset) each
//	offsets:  of each record
//	hashes:   what tlog stores for these records, in its order
//	postings: see postings.go
const (
	indexMagic  = "TNDMIDX1"
	indexHeader = 8 + 3*8 + 4*12 + 4
)

const (
	sectionFrames = iota
	sectionOffsets
	sectionHashes
	sectionPostings
	sections
)

type diskIndex struct {
	name  string
	first state.Seq
	count int
	size  int64 // of the log file
	at    [sections]int64
	len   [sections]int64
	crc   [sections]uint32
}

func encodeIndex(s *segment, postings []byte) []byte {
	x := s.index
	var body [sections][]byte
	for _, f := range x.frames {
		body[sectionFrames] = binary.LittleEndian.AppendUint64(body[sectionFrames], uint64(f.first))
		body[sectionFrames] = binary.LittleEndian.AppendUint64(body[sectionFrames], uint64(f.offset))
	}
	for _, o := range x.offsets {
		body[sectionOffsets] = binary.LittleEndian.AppendUint64(body[sectionOffsets], uint64(o))
	}
	body[sectionHashes] = make([]byte, 0, len(x.hashes)*tlog.HashSize)
	for i := range x.hashes {
		body[sectionHashes] = append(body[sectionHashes], x.hashes[i][:]...)
	}
	body[sectionPostings] = postings
	b := []byte(indexMagic)
	for _, n := range []uint64{uint64(s.first), uint64(s.count), uint64(s.size)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, sec := range body {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(sec)))
		b = binary.LittleEndian.AppendUint32(b, castagnoli(sec))
	}
	b = binary.LittleEndian.AppendUint32(b, castagnoli(b))
	return slices.Concat(b, body[0], body[1], body[2], body[3])
}

// openIndex reads an index's header.
func openIndex(d Disk, first state.Seq, logSize int64) (*diskIndex, error) {
	x := &diskIndex{name: indexName(first), first: first, size: logSize}
	f, err := d.Open(x.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	length, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, indexHeader)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, damaged(x.name, 0, "the header is cut off")
	}
	le := binary.LittleEndian
	if string(b[:8]) != indexMagic || castagnoli(b[:indexHeader-4]) != le.Uint32(b[indexHeader-4:]) {
		return nil, damaged(x.name, 0, "the header's checksum is wrong")
	}
	x.count = int(le.Uint64(b[16:]))
	if state.Seq(le.Uint64(b[8:])) != first || int64(le.Uint64(b[24:])) != logSize {
		return nil, damaged(x.name, 0, "it is the index of another file")
	}
	at := int64(indexHeader)
	for i := range sections {
		x.at[i], x.len[i] = at, int64(le.Uint64(b[32+12*i:]))
		x.crc[i] = le.Uint32(b[40+12*i:])
		at += x.len[i]
	}
	if at != length {
		return nil, damaged(x.name, 0, "want %d bytes, found %d", at, length)
	}
	return x, nil
}

func (x *diskIndex) section(d Disk, i int) ([]byte, error) {
	f, err := d.Open(x.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, x.len[i])
	if _, err := f.ReadAt(b, x.at[i]); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if castagnoli(b) != x.crc[i] {
		return nil, damaged(x.name, x.at[i], "a section's checksum is wrong; the file is a cache: delete it")
	}
	return b, nil
}

// part reads some bytes of a section, unchecked: for hashes and offsets, which
// prove themselves when they are used.
func (x *diskIndex) part(f File, i int, offset int64, b []byte) error {
	if offset < 0 || offset+int64(len(b)) > x.len[i] {
		return damaged(x.name, x.at[i], "a section is too short; the file is a cache: delete it")
	}
	_, err := f.ReadAt(b, x.at[i]+offset)
	return err
}

func (x *diskIndex) frames(d Disk) ([]frameAt, error) {
	b, err := x.section(d, sectionFrames)
	if err != nil {
		return nil, err
	}
	fs := make([]frameAt, len(b)/16)
	for i := range fs {
		fs[i] = frameAt{state.Seq(binary.LittleEndian.Uint64(b[16*i:])), int64(binary.LittleEndian.Uint64(b[16*i+8:]))}
	}
	if len(fs) == 0 {
		return nil, damaged(x.name, x.at[sectionFrames], "it names no batches; the file is a cache: delete it")
	}
	return fs, nil
}

func (x *diskIndex) offset(d Disk, seq state.Seq) (int64, error) {
	f, err := d.Open(x.name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [8]byte
	if err := x.part(f, sectionOffsets, 8*int64(seq-x.first), b[:]); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(b[:])), nil
}

// frames is where the segment's batches are.
func (s *segment) frames(d Disk) ([]frameAt, error) {
	if s.index != nil {
		return s.index.frames, nil
	}
	return s.disk.frames(d)
}

func (s *segment) offset(d Disk, seq state.Seq) (int64, error) {
	if s.index != nil {
		return s.index.offsets[seq-s.first], nil
	}
	return s.disk.offset(d, seq)
}

// segments are some of a log's files, in order: all that a reader needs. They
// are values taken under the store's lock; nothing that they refer to changes.
type segments struct {
	disk Disk
	list []segment
}

// find is the segment that holds seq.
func (ss *segments) find(seq state.Seq) *segment {
	i, found := slices.BinarySearchFunc(ss.list, seq, func(s segment, q state.Seq) int { return cmp.Compare(s.first, q) })
	if !found {
		i--
	}
	if i < 0 || seq > ss.list[i].end() {
		return nil
	}
	return &ss.list[i]
}

// ReadHashes implements tlog.HashReader.
func (ss *segments) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	files := map[*diskIndex]File{}
	defer func() {
		for _, f := range files {
			_ = f.Close() // it was only read
		}
	}()
	for i, n := range indexes {
		at, found := slices.BinarySearchFunc(ss.list, n, func(s segment, n int64) int { return cmp.Compare(firstHash(s.first), n) })
		if !found {
			at--
		}
		if at < 0 {
			return nil, fmt.Errorf("the log stores no hash %d", n)
		}
		s := &ss.list[at]
		k := n - firstHash(s.first)
		switch {
		case s.index == nil:
			if files[s.disk] == nil {
				f, err := ss.disk.Open(s.disk.name)
				if err != nil {
					return nil, err
				}
				files[s.disk] = f
			}
			if err := s.disk.part(files[s.disk], sectionHashes, k*tlog.HashSize, out[i][:]); err != nil {
				return nil, err
			}
		case k < int64(len(s.index.hashes)):
			out[i] = s.index.hashes[k]
		default:
			return nil, fmt.Errorf("the log stores no hash %d", n)
		}
	}
	return out, nil
}
