package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// What lies beside the log is a file each, sealed so that every bit of it is
// covered:
//
//	magic (8), name (32), number (8), SHA-256 over these and the body (32),
//	body: zstd
//
// The name is the digest that records use. For a manifest that is a digest over
// its meaning, not over its stored bytes: only the seal covers those.
const (
	blobMagic  = "TNDMBLB1"
	snapMagic  = "TNDMSNP1"
	sealedHead = 8 + 32 + 8 + 32
	maxUnpack  = 256 << 20
)

// ErrNoBlob means that nothing lies beside the log under that digest.
var ErrNoBlob = errors.New("no such blob")

// packer compresses and seals. Its encoder and decoder are safe for concurrent use.
type packer struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newPacker() (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpack))
	if err != nil {
		return nil, err
	}
	return &packer{enc, dec}, nil
}

func (p *packer) seal(magic string, name state.Digest, number uint64, raw []byte) []byte {
	b := make([]byte, sealedHead, sealedHead+len(raw)/3)
	copy(b, magic)
	copy(b[8:], name[:])
	binary.LittleEndian.PutUint64(b[40:], number)
	b = p.enc.EncodeAll(raw, b)
	sum := sealOf(b)
	copy(b[48:], sum[:])
	return b
}

func sealOf(b []byte) [32]byte {
	h := sha256.New()
	h.Write(b[:48])
	h.Write(b[sealedHead:])
	return [32]byte(h.Sum(nil))
}

// open checks a sealed file and unpacks it.
func (p *packer) open(file, magic string, b []byte) (name state.Digest, number uint64, raw []byte, err error) {
	if len(b) < sealedHead || string(b[:8]) != magic || sealOf(b) != [32]byte(b[48:sealedHead]) {
		return state.Digest{}, 0, nil, damaged(file, 0, "it is not as it was written: its checksum is wrong")
	}
	raw, err = p.dec.DecodeAll(b[sealedHead:], nil)
	if err != nil {
		return state.Digest{}, 0, nil, damaged(file, sealedHead, "it can't be unpacked: %v", err)
	}
	return state.Digest(b[8:40]), binary.LittleEndian.Uint64(b[40:]), raw, nil
}

const blobDir = "blobs"

func blobName(d state.Digest) string {
	h := hex.EncodeToString(d[:])
	return blobDir + "/" + h[:2] + "/" + h[2:]
}

// Blobs keeps manifests and templates beside the log, by the digests that
// records name them by. It is safe for concurrent use.
type Blobs struct {
	disk     Disk
	readOnly bool
	pack     *packer

	mu      sync.Mutex
	have    map[state.Digest]bool
	writing map[state.Digest]chan struct{} // closed when the write has ended
}

// OpenBlobs opens the blobs of a store's data directory.
func (s *Store) OpenBlobs() (*Blobs, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	return &Blobs{disk: s.disk, readOnly: s.opts.ReadOnly, pack: p, have: map[state.Digest]bool{}, writing: map[state.Digest]chan struct{}{}}, nil
}

// Put stores bytes under a digest, durably. A digest stands for one content:
// what is there already is left as it is. Put before the record that names it.
func (b *Blobs) Put(d state.Digest, raw []byte) error {
	if b.readOnly {
		return ErrReadOnly
	}
	for {
		b.mu.Lock()
		if b.have[d] {
			b.mu.Unlock()
			return nil
		}
		other := b.writing[d]
		if other == nil {
			break
		}
		b.mu.Unlock()
		<-other // the same content, by another goroutine; it may have failed
	}
	done := make(chan struct{})
	b.writing[d] = done
	b.mu.Unlock()
	err := b.put(d, raw)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.writing, d)
	close(done)
	if err != nil {
		return fmt.Errorf("store blob %s: %w", d.Short(), err)
	}
	b.have[d] = true
	return nil
}

// put writes bytes that aren't there yet. Others may be written meanwhile.
func (b *Blobs) put(d state.Digest, raw []byte) error {
	if old, err := b.read(d); err == nil && len(old) > 0 {
		return nil
	}
	return writeFile(b.disk, blobName(d), 0o600, b.pack.seal(blobMagic, d, uint64(len(raw)), raw))
}

// Blob is what was stored under a digest.
func (b *Blobs) Blob(d state.Digest) ([]byte, error) {
	raw, err := b.read(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d, ErrNoBlob)
	}
	return raw, err
}

// Has says whether something is stored under a digest.
func (b *Blobs) Has(d state.Digest) bool {
	_, err := b.read(d)
	return err == nil
}

func (b *Blobs) read(d state.Digest) ([]byte, error) {
	file := blobName(d)
	content, err := readFile(b.disk, file)
	if err != nil {
		return nil, err
	}
	name, size, raw, err := b.pack.open(file, blobMagic, content)
	if err != nil {
		return nil, err
	}
	if name != d || size != uint64(len(raw)) {
		return nil, damaged(file, 0, "it holds blob %s", name.Short())
	}
	return raw, nil
}

const snapDir = "snapshots"

func snapName(seq state.Seq) string { return fmt.Sprintf("%s/%020d.snap", snapDir, uint64(seq)) }

// A Snapshot is a state as of a record, encoded. It is a cache: without any,
// replay begins at the first record.
type Snapshot struct {
	Seq    state.Seq
	Digest state.Digest // of the state, as the writer computes it
	State  []byte
}

// SaveSnapshot keeps a snapshot. It is signed, so that a snapshot that this
// log's controller didn't write is not taken for one. It may run beside Append.
func (s *Store) SaveSnapshot(snap Snapshot) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if h := s.Head(); snap.Seq == 0 || snap.Seq > h.Seq {
		return fmt.Errorf("a snapshot at record %d of a log that ends with %d", snap.Seq, h.Seq)
	}
	p, err := newPacker()
	if err != nil {
		return err
	}
	body := p.seal(snapMagic, snap.Digest, uint64(snap.Seq), snap.State)
	k := s.keys.Load()
	sig, err := k.signer.Sign(snapSigned(k, body))
	if err != nil {
		return fmt.Errorf("sign snapshot: %w", err)
	}
	if err := writeFile(s.disk, snapName(snap.Seq), 0o600, append(sig, body...)); err != nil {
		return fmt.Errorf("save the snapshot at record %d: %w", snap.Seq, err)
	}
	return nil
}

// snapSigned is what a snapshot's signature is over. It can't be mistaken for a
// checkpoint's.
func snapSigned(k *keys, body []byte) []byte {
	return append([]byte("tandem snapshot of "+k.verifier.Name()+"\n"), body[:sealedHead]...)
}

// Snapshots are the sequence numbers of the snapshots, ascending.
func (s *Store) Snapshots() ([]state.Seq, error) {
	entries, err := s.disk.List(snapDir)
	if err != nil {
		return nil, err
	}
	var out []state.Seq
	for _, e := range entries {
		var n uint64
		if _, err := fmt.Sscanf(e.Name, "%020d.snap", &n); err == nil && snapDir+"/"+e.Name == snapName(state.Seq(n)) {
			out = append(out, state.Seq(n))
		}
	}
	return out, nil
}

// LatestSnapshot is the newest snapshot at or before a record that is as it was
// written; its Seq is 0 where there is none. The error joins what is wrong with
// those that were passed over, and doesn't keep the answer from being good.
func (s *Store) LatestSnapshot(until state.Seq) (Snapshot, error) {
	seqs, err := s.Snapshots()
	if err != nil {
		return Snapshot{}, err
	}
	head := s.Head()
	var passed error
	for _, seq := range slices.Backward(seqs) {
		if seq > until {
			continue
		}
		if seq > head.Seq {
			passed = errors.Join(passed, damaged(snapName(seq), 0, "it is of a record after the log's end, %d", head.Seq))
			continue
		}
		snap, err := readSnapshot(s.disk, s.keys.Load(), seq)
		if err == nil {
			return snap, passed
		}
		passed = errors.Join(passed, err)
	}
	return Snapshot{}, passed
}

func readSnapshot(d Disk, k *keys, seq state.Seq) (Snapshot, error) {
	file := snapName(seq)
	b, err := readFile(d, file)
	if err != nil {
		return Snapshot{}, err
	}
	if len(b) < 64+sealedHead || !slices.ContainsFunc(k.from(seq), func(v note.Verifier) bool { return v.Verify(snapSigned(k, b[64:]), b[:64]) }) {
		return Snapshot{}, damaged(file, 0, "its signature is wrong; the file is a cache: delete it")
	}
	p, err := newPacker()
	if err != nil {
		return Snapshot{}, err
	}
	digest, number, raw, err := p.open(file, snapMagic, b[64:])
	if err != nil {
		return Snapshot{}, err
	}
	if state.Seq(number) != seq {
		return Snapshot{}, damaged(file, 64, "it is the snapshot of record %d; the file is a cache: delete it", number)
	}
	return Snapshot{Seq: seq, Digest: digest, State: raw}, nil
}

// blobDigests lists what is stored.
func blobDigests(d Disk) ([]state.Digest, error) {
	dirs, err := d.List(blobDir)
	if err != nil {
		return nil, err
	}
	var out []state.Digest
	for _, dir := range dirs {
		files, err := d.List(blobDir + "/" + dir.Name)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name, ".tmp") {
				continue // a crash left it; nothing names it
			}
			raw, err := hex.DecodeString(dir.Name + f.Name)
			if err != nil || len(raw) != 32 || !bytes.Equal([]byte(blobName(state.Digest(raw))), []byte(blobDir+"/"+dir.Name+"/"+f.Name)) {
				return nil, damaged(blobDir+"/"+dir.Name+"/"+f.Name, 0, "this is not the name of a blob")
			}
			out = append(out, state.Digest(raw))
		}
	}
	return out, nil
}
