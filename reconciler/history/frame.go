package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The log's files. Each begins with a header and goes on with frames, one a
// batch; all numbers are little-endian.
//
//	header: "TNDMLOG1", first seq (8), root before it (32), CRC-32C of these (4)
//	frame:  "TFR1", length of body (4), first seq (8), count (4),
//	        body: count × (length as varint, record), root (32), signature (64),
//	        CRC-32C of all that (4)
//
// The root and the signature are those of the checkpoint after the batch, so a
// frame proves itself and all before it.
const (
	fileMagic  = "TNDMLOG1"
	fileHeader = 8 + 8 + 32 + 4
	frameMagic = "TFR1"
	frameFixed = 4 + 4 + 8 + 4
	frameSeal  = 32 + 64
	frameTail  = 4
	maxBody    = 1 << 30
)

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func appendHeader(b []byte, h Head) []byte {
	start := len(b)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Seq+1))
	b = append(b, h.Root[:]...)
	return binary.LittleEndian.AppendUint32(b, castagnoli(b[start:]))
}

func parseHeader(b []byte) (Head, error) {
	if len(b) < fileHeader {
		return Head{}, errors.New("the header is cut off")
	}
	if string(b[:8]) != fileMagic || castagnoli(b[:48]) != binary.LittleEndian.Uint32(b[48:]) {
		return Head{}, errors.New("the header's checksum is wrong")
	}
	return Head{Seq: state.Seq(binary.LittleEndian.Uint64(b[8:])) - 1, Root: state.Digest(b[16:48])}, nil
}

// A batch is an encoded frame and what it does to the tree.
type batch struct {
	frame   []byte
	offsets []int64     // of each record's length in frame
	hashes  []tlog.Hash // what tlog stores for these records
	tree    tree        // after them
	head    Head
	note    []byte // the signed checkpoint
}

// encodeBatch makes the frame of records that follow head.
func encodeBatch(k *keys, t tree, head Head, records []*state.Record) (*batch, error) {
	b := &batch{tree: t, offsets: make([]int64, 0, len(records)), hashes: make([]tlog.Hash, 0, 2*len(records)+8)}
	f := make([]byte, frameFixed, frameFixed+len(records)*224+frameSeal+frameTail)
	var one []byte
	for i, r := range records {
		if want := head.Seq + state.Seq(i) + 1; r.Seq != want {
			return nil, fmt.Errorf("append: record %d of the batch has sequence number %d, want %d", i, r.Seq, want)
		}
		var err error
		if one, err = recordpb.AppendRecord(one[:0], r); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		b.offsets = append(b.offsets, int64(len(f)))
		f = binary.AppendUvarint(f, uint64(len(one)))
		f = append(f, one...)
		b.hashes = b.tree.add(b.hashes, tlog.RecordHash(one))
	}
	b.head = Head{Seq: head.Seq + state.Seq(len(records)), Root: state.Digest(b.tree.root())}
	text, sig, err := k.sign(b.head)
	if err != nil {
		return nil, err
	}
	b.note = text
	f = append(append(f, b.head.Root[:]...), sig...)
	if len(f)-frameFixed > maxBody {
		return nil, fmt.Errorf("append: a batch of %d bytes; append fewer records at once", len(f))
	}
	copy(f, frameMagic)
	binary.LittleEndian.PutUint32(f[4:], uint32(len(f)-frameFixed))
	binary.LittleEndian.PutUint64(f[8:], uint64(head.Seq+1))
	binary.LittleEndian.PutUint32(f[16:], uint32(len(records)))
	b.frame = binary.LittleEndian.AppendUint32(f, castagnoli(f))
	return b, nil
}

// A frame is a decoded batch. Its slices are good until the next one is read.
type frame struct {
	first   state.Seq
	size    int64    // in the file
	records [][]byte // encoded
	starts  []int64  // of each record's length, from the frame's start
	root    state.Digest
	sig     []byte
}

func (f *frame) end() state.Seq { return f.first + state.Seq(len(f.records)) - 1 }

// errTorn means that a frame does not end before the file does.
var errTorn = errors.New("a batch is cut off")

// readFrame reads the next frame into f. At the end of the file it is io.EOF.
func readFrame(r io.Reader, buf []byte, f *frame) ([]byte, error) {
	buf = append(buf[:0], make([]byte, frameFixed)...)
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errTorn
		}
		return buf, err
	}
	body := int(binary.LittleEndian.Uint32(buf[4:]))
	if string(buf[:4]) != frameMagic || body > maxBody || body < frameSeal {
		return buf, errors.New("no batch begins here")
	}
	total := frameFixed + body + frameTail
	// Memory follows what is there, not what a damaged length says.
	for len(buf) < total {
		n := min(total-len(buf), max(1<<20, len(buf)))
		have := len(buf)
		if cap(buf) < have+n {
			buf = append(buf, make([]byte, n)...)
		}
		buf = buf[:have+n]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				err = errTorn
			}
			return buf, err
		}
	}
	return buf, f.parse(buf)
}

func (f *frame) parse(buf []byte) error {
	end := len(buf) - frameTail
	if castagnoli(buf[:end]) != binary.LittleEndian.Uint32(buf[end:]) {
		return errors.New("a batch's checksum is wrong")
	}
	f.size = int64(len(buf))
	f.first = state.Seq(binary.LittleEndian.Uint64(buf[8:]))
	count := int(binary.LittleEndian.Uint32(buf[16:]))
	f.sig = buf[end-64 : end]
	f.root = state.Digest(buf[end-frameSeal : end-64])
	f.records, f.starts = f.records[:0], f.starts[:0]
	body := buf[frameFixed : end-frameSeal]
	at := int64(frameFixed)
	for range count {
		n, w := binary.Uvarint(body)
		if w <= 0 || n > uint64(len(body)-w) || n > recordpb.MaxRecord {
			return errors.New("a batch's records do not add up")
		}
		f.records = append(f.records, body[w:w+int(n)])
		f.starts = append(f.starts, at)
		body = body[w+int(n):]
		at += int64(w) + int64(n)
	}
	if len(body) > 0 || count == 0 {
		return errors.New("a batch's records do not add up")
	}
	return nil
}
