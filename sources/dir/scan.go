package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/sources/tree"
)

// known is what the last scan read of one file.
type known struct {
	size int64
	mod  time.Time
	read time.Time // when it was read
	hash string
	data []byte
}

// racy is how long after a file's time another write may leave that time as it
// is (file systems' clocks tick slowly): such a file is read again.
const racy = 2 * time.Second

// errCopy is told where the copy in memory would grow too big.
func errCopy(size int64) error {
	return &tree.LimitError{Name: "tree.MaxTreeBytes", Limit: tree.MaxTreeBytes, What: fmt.Sprintf("with this file there are %d bytes", size), Remedy: "keep manifests in a directory of their own"}
}

// memory is the copied contents by hash, a tree.Store.
type memory map[string][]byte

// Size is tree.Store's.
func (m memory) Size(e *tree.Entry) (int64, error) { return int64(len(m[e.Hash])), nil }

// Read is tree.Store's.
func (m memory) Read(e *tree.Entry) ([]byte, error) {
	data, ok := m[e.Hash]
	if !ok {
		return nil, fmt.Errorf("its content %s was not kept", e.Hash)
	}
	return data, nil
}

// A scanner reads a directory into memory once.
type scanner struct {
	source   *Source
	base     string
	root     *os.Root
	old      map[string]known
	files    map[string]known
	contents map[string][]byte
	total    int64
	count    int
}

func (s *scanner) scan(ctx context.Context) (*tree.Dir, error) {
	root, err := os.OpenRoot(s.base)
	if err != nil {
		return nil, err
	}
	s.root = root
	dir, err := s.dir(ctx, ".", 1)
	if limit, ok := errors.AsType[*tree.LimitError](err); ok { // a fault of the tree, for whoever reads it
		dir, err = tree.Broken(limit), nil
	}
	return dir, errors.Join(err, root.Close())
}

func (s *scanner) dir(ctx context.Context, name string, depth int) (*tree.Dir, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if depth > tree.MaxDepth {
		return nil, &tree.LimitError{Name: "tree.MaxDepth", Limit: tree.MaxDepth, What: name + " is deeper", Remedy: "make the tree flatter"}
	}
	list, err := fs.ReadDir(s.root.FS(), name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && name != ".":
		return tree.NewDir(nil), nil // removed while we read: an event is on its way
	case errors.Is(err, fs.ErrPermission) && name != ".":
		return tree.Broken(fs.ErrPermission), nil
	case err != nil:
		return nil, err
	}
	var entries []tree.Entry
	for _, d := range list {
		below := path.Join(name, d.Name())
		if s.source.skip(s.base, filepath.Join(s.base, filepath.FromSlash(below))) {
			continue
		}
		if s.count++; s.count > tree.MaxFiles {
			return nil, &tree.LimitError{Name: "tree.MaxFiles", Limit: tree.MaxFiles, What: "the directory holds more files", Remedy: "keep manifests in a directory of their own"}
		}
		e, err := s.entry(ctx, below, d, depth)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return tree.NewDir(entries), nil
}

func (s *scanner) entry(ctx context.Context, name string, d fs.DirEntry, depth int) (tree.Entry, error) {
	e := tree.Entry{Name: d.Name(), Size: -1}
	switch d.Type().Type() {
	case fs.ModeDir:
		e.Kind = tree.Directory
		var err error
		if e.Dir, err = s.dir(ctx, name, depth+1); err != nil {
			return e, err
		}
		e.Hash = hashOf(e.Dir)
		return e, nil
	case fs.ModeSymlink:
		e.Kind = tree.Link
		target, err := s.root.Readlink(name)
		if err != nil {
			return e, err
		}
		data := []byte(filepath.ToSlash(target))
		e.Hash, e.Size = s.keep(data), int64(len(data))
		return e, nil
	case 0:
		e.Kind = tree.File
		return s.file(name, d, e)
	default:
		e.Kind, e.Hash = tree.Other, "sha256:"+sum([]byte(d.Type().String()))
		return e, nil
	}
}

// file copies a file, or takes over the copy of the last scan.
func (s *scanner) file(name string, d fs.DirEntry, e tree.Entry) (tree.Entry, error) {
	info, err := d.Info()
	if err != nil {
		return e, err
	}
	old, ok := s.old[name]
	if !ok || old.size != info.Size() || !old.mod.Equal(info.ModTime()) || old.read.Sub(old.mod) < racy {
		if old, err = s.read(name, info, &e); err != nil || e.Err != nil || e.Kind != tree.File {
			return e, err
		}
	}
	s.files[name] = old
	e.Hash, e.Size = old.hash, old.size
	if old.data == nil && old.size > tree.MaxFileSize {
		return e, nil
	}
	if _, ok := s.contents[old.hash]; !ok {
		if s.total += old.size; s.total > tree.MaxTreeBytes {
			return e, errCopy(s.total)
		}
		s.contents[old.hash] = old.data
	}
	return e, nil
}

func (s *scanner) read(name string, info fs.FileInfo, e *tree.Entry) (known, error) {
	now := time.Now()
	if info.Size() > tree.MaxFileSize {
		return tooBig(info, now), nil
	}
	f, err := s.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if errors.Is(err, fs.ErrPermission) {
		e.Err, e.Hash = fs.ErrPermission, "sha256:"+sum([]byte("permission denied"))
		return known{}, nil
	}
	if err != nil {
		return known{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err = f.Stat()
	if err != nil {
		return known{}, err
	}
	if !info.Mode().IsRegular() {
		e.Kind, e.Hash = tree.Other, "sha256:"+sum([]byte(info.Mode().Type().String()))
		return known{}, nil
	}
	data, err := io.ReadAll(io.LimitReader(f, tree.MaxFileSize+1))
	if err != nil {
		return known{}, err
	}
	if len(data) > tree.MaxFileSize {
		return tooBig(info, now), nil
	}
	return known{size: int64(len(data)), mod: info.ModTime(), read: now, hash: "sha256:" + sum(data), data: data}, nil
}

// tooBig stands for a file that nobody can read through the tree: all that can
// be told apart is its size.
func tooBig(info fs.FileInfo, now time.Time) known {
	return known{size: info.Size(), mod: info.ModTime(), read: now, hash: "sha256:" + sum(fmt.Appendf(nil, "too big: %d bytes", info.Size()))}
}

func (s *scanner) keep(data []byte) string {
	hash := "sha256:" + sum(data)
	s.contents[hash] = data
	return hash
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// hashOf is over paths and contents: kinds, names and hashes, level by level.
func hashOf(d *tree.Dir) string {
	var b strings.Builder
	for i := range d.Entries() {
		e := &d.Entries()[i]
		fmt.Fprintf(&b, "%d %s\x00%s\n", e.Kind, e.Name, e.Hash)
	}
	if err := d.Err(); err != nil {
		fmt.Fprintf(&b, "%s\n", err)
	}
	return sum([]byte(b.String()))
}
