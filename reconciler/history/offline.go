package history

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Dir is the Disk of a directory of this machine.
func Dir(dir string) Disk { return osDisk{dir} }

// ReadBlobs reads the blobs of a data directory without opening its log: also
// where the log is damaged.
func ReadBlobs(d Disk) (*Blobs, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	return &Blobs{disk: d, readOnly: true, pack: p, have: map[state.Digest]bool{}}, nil
}

// ReadSecrets reads the keys of a data directory without opening its log;
// fs.ErrNotExist where it has none, as in a copy for an auditor.
func ReadSecrets(d Disk) (*Secrets, error) {
	s := &Store{disk: d, opts: Options{ReadOnly: true}}
	for _, name := range []string{identityFile, tokenFile} {
		if _, err := readFile(d, name); err != nil {
			return nil, fmt.Errorf("read the key: %w", err)
		}
	}
	return s.OpenSecrets()
}

// SnapshotsOn are the sequence numbers of the snapshots of a data directory,
// ascending.
func SnapshotsOn(d Disk) ([]state.Seq, error) { return (&Store{disk: d}).Snapshots() }

// BlobFile is the name and content of a blob's file.
func BlobFile(d state.Digest, raw []byte) (name string, content []byte, err error) {
	p, err := newPacker()
	if err != nil {
		return "", nil, err
	}
	return blobName(d), p.seal(blobMagic, d, uint64(len(raw)), raw), nil
}

// Digests are the names of all blobs.
func (b *Blobs) Digests() ([]state.Digest, error) { return blobDigests(b.disk) }

// An Extent is a file of a data directory and how much of it counts.
type Extent struct {
	Name string
	Size int64
}

// Extents are the append-only files as of the head: the log's, and the words.
func (s *Store) Extents() ([]Extent, error) {
	view := s.view()
	var out []Extent
	for i := range view.list {
		seg := &view.list[i]
		frames, err := seg.frames(view.disk)
		if err != nil {
			return nil, err
		}
		size := seg.size
		for _, f := range frames {
			if f.first > seg.end() {
				size = f.offset // a live writer has gone on
				break
			}
		}
		out = append(out, Extent{logName(seg.first), size})
	}
	s.texts.mu.Lock()
	defer s.texts.mu.Unlock()
	if s.texts.file != nil {
		out = append(out, Extent{textsFile, s.texts.size})
	}
	return out, nil
}

// ReadExtent reads one of them.
func (s *Store) ReadExtent(e Extent) (io.ReadCloser, error) {
	f, err := s.disk.Open(e.Name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Name, err)
	}
	return extentReader{io.NewSectionReader(f, 0, e.Size), f}, nil
}

type extentReader struct {
	io.Reader
	io.Closer
}

// CheckpointFile is a checkpoint's text as its file holds it, with the names of
// that file and of the public key's.
func CheckpointFile(text []byte) (content []byte, name, keyName string, err error) {
	content, err = padCheckpoint(bytes.Clone(text))
	return content, checkpointFile, pubFile, err
}

// Time is the sequence number of the last record at or before a wall time in
// nanoseconds; 0 where there is none.
func (s *Store) Time(wall int64) (state.Seq, error) {
	low, high := state.Seq(0), s.Head().Seq // low is at or before; what is after high isn't
	for low < high {
		mid := low + (high-low+1)/2
		r, err := s.ReadAt(mid)
		if err != nil {
			return 0, err
		}
		if r.At.Wall <= wall {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low, nil
}

// ParseNote reads a checkpoint with a public key in note's encoding.
func ParseNote(text []byte, publicKey string) (Checkpoint, error) {
	key, err := parsePublic(strings.TrimSpace(publicKey))
	if err != nil {
		return Checkpoint{}, err
	}
	return ParseCheckpoint(text, key)
}

// Signer names a public key as people compare it: the log's name and the key's
// hash.
func Signer(publicKey string) string {
	key, err := note.NewVerifier(strings.TrimSpace(publicKey))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s+%08x", key.Name(), key.KeyHash())
}

// signerOf is the same of whoever signed a checkpoint's text; empty where that
// can't be read.
func signerOf(text []byte) string {
	line := string(text[max(0, bytes.LastIndex(text, []byte("\n— "))):])
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil || len(raw) < 4 {
		return ""
	}
	return fmt.Sprintf("%s+%08x", fields[1], binary.BigEndian.Uint32(raw))
}

// isCache says whether a file can be made again from the log.
func isCache(file string) bool {
	return strings.HasPrefix(file, snapDir+"/") || strings.HasSuffix(file, ".idx")
}

// All yields the texts that are not erased, in the order in which they were kept.
func (t *Texts) All() iter.Seq2[state.Text, string] {
	return func(yield func(state.Text, string) bool) {
		t.mu.Lock()
		tokens := slices.SortedFunc(maps.Keys(t.at), func(a, b state.Text) int { return cmp.Compare(t.at[a], t.at[b]) })
		t.mu.Unlock()
		for _, token := range tokens {
			if clear, live := t.Clear(token); live && !yield(token, clear) {
				return
			}
		}
	}
}
