package git

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/tandem-gitops/tandem/sources/tree"
)

// Limits of what a pack becomes when it is unpacked.
const (
	MaxObject   = 256 << 20 // bytes of one object
	MaxUnpacked = 4 << 30   // bytes of all objects
	minPacked   = 9         // bytes of the smallest object in a pack: a head and an empty zlib stream
)

// checkPack looks through a pack for what it claims and becomes, before memory
// is taken for any of that. size is the pack's own.
func checkPack(pack io.ReadSeeker, size int64) error {
	s := packfile.NewScanner(pack)
	_, count, err := s.Header()
	if err != nil {
		return err
	}
	if int64(count) > size/minPacked {
		return fmt.Errorf("it claims to hold %d objects in %d bytes", count, size)
	}
	var total int64
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return err
		}
		switch h.Type {
		case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject, plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
		default:
			return fmt.Errorf("it has an object of kind %d, which there is not", h.Type)
		}
		becomes := h.Length
		if becomes > MaxObject {
			return tooLarge(becomes)
		}
		var head deltaHead
		to := io.Discard
		if h.Type == plumbing.OFSDeltaObject || h.Type == plumbing.REFDeltaObject {
			to = &head
		}
		if _, _, err := s.NextObject(to); err != nil {
			return err
		}
		if to == &head {
			if becomes, err = head.result(); err != nil {
				return err
			}
		}
		if becomes > MaxObject {
			return tooLarge(becomes)
		}
		if total += becomes + h.Length; total > MaxUnpacked {
			return &tree.LimitError{Name: "git.MaxUnpacked", Limit: MaxUnpacked, What: "one commit unpacks to more bytes", Remedy: "keep manifests in a repository of their own"}
		}
	}
	return nil
}

func tooLarge(size int64) error {
	return &tree.LimitError{Name: "git.MaxObject", Limit: MaxObject, What: fmt.Sprintf("an object unpacks to %d bytes", size), Remedy: "keep big files out of the repository"}
}

// deltaHead keeps the first bytes of a delta: two sizes, of what it starts from
// and of what it makes.
type deltaHead struct {
	bytes [2 * binary.MaxVarintLen64]byte
	n     int
}

func (d *deltaHead) Write(p []byte) (int, error) {
	d.n += copy(d.bytes[d.n:], p)
	return len(p), nil
}

func (d *deltaHead) result() (int64, error) {
	_, first := binary.Uvarint(d.bytes[:d.n])
	if first <= 0 {
		return 0, errors.New("a delta has no sizes")
	}
	size, second := binary.Uvarint(d.bytes[first:d.n])
	if second <= 0 || size > 1<<62 {
		return 0, errors.New("a delta has no sizes")
	}
	return int64(size), nil
}
