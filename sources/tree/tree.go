package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/sources"
)

// A Store has the contents of a tree's files. It is safe for concurrent use.
type Store interface {
	// Size is a file's or a link's length in bytes, without reading it.
	Size(e *Entry) (int64, error)
	// Read is a file's content or a link's target. The tree has asked for the
	// size before and found it within the limit.
	Read(e *Entry) ([]byte, error)
}

// Tree is a sources.Tree over a Dir and a Store, safe for concurrent use. Stat,
// Open, ReadFile and ReadDir follow links, Lstat and ReadLink don't.
type Tree struct {
	root  *Dir
	store Store
	when  time.Time

	mu   sync.Mutex
	read map[string]bool // hashes of what was read, counted once
	sum  int64
}

var (
	_ sources.Tree  = (*Tree)(nil)
	_ fs.ReadLinkFS = (*Tree)(nil)
)

// New is the tree below root. Every file carries the time when.
func New(root *Dir, store Store, when time.Time) *Tree {
	if err := root.check(); err != nil {
		root = Broken(err)
	}
	return &Tree{root: root, store: store, when: when, read: map[string]bool{}}
}

// Open opens a file or a directory.
func (t *Tree) Open(name string) (fs.File, error) {
	e, err := t.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind == Directory {
		if e.Dir.err != nil {
			return nil, fail("open", name, e.Dir.err)
		}
		return &openDir{info: t.info(e, name, 0), path: name, list: t.list(e.Dir, name)}, nil
	}
	data, err := t.content("open", name, e)
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(data), info: t.info(e, name, int64(len(data)))}, nil
}

// ReadFile is a file's content, for the caller to keep.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, err := t.resolve("readfile", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind == Directory {
		return nil, fail("readfile", name, errors.New("is a directory"))
	}
	data, err := t.content("readfile", name, e)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(data), nil
}

// ReadDir lists a directory by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.resolve("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind != Directory {
		return nil, fail("readdir", name, errors.New("not a directory"))
	}
	if e.Dir.err != nil {
		return nil, fail("readdir", name, e.Dir.err)
	}
	return t.list(e.Dir, name), nil
}

// Stat tells what is at name, behind links. A file that is too big to be read
// still has its size told.
func (t *Tree) Stat(name string) (fs.FileInfo, error) { return t.stat("stat", name, true) }

// Lstat is Stat that doesn't follow a link at the end of name.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) { return t.stat("lstat", name, false) }

func (t *Tree) stat(op, name string, follow bool) (fs.FileInfo, error) {
	e, err := t.resolve(op, name, follow)
	if err != nil {
		return nil, err
	}
	if follow && e.Kind == Submodule {
		return nil, fail(op, name, unreadable(e, nil))
	}
	size, err := t.size(e)
	if err != nil {
		return nil, fail(op, name, err)
	}
	return t.info(e, name, size), nil
}

// ReadLink is a link's target as written.
func (t *Tree) ReadLink(name string) (string, error) {
	e, err := t.resolve("readlink", name, false)
	if err != nil {
		return "", err
	}
	if e.Kind != Link {
		return "", fail("readlink", name, fs.ErrInvalid)
	}
	target, err := t.target(e)
	if err != nil {
		return "", fail("readlink", name, err)
	}
	return target, nil
}

// Blob is the hash of the file behind name, or "" where there is none.
func (t *Tree) Blob(name string) string {
	e, err := t.resolve("blob", name, true)
	if err != nil || e.Kind != File {
		return ""
	}
	return e.Hash
}

// resolve walks from the root. Links are followed inside the tree alone.
func (t *Tree) resolve(op, name string, follow bool) (*Entry, error) {
	if !fs.ValidPath(name) {
		return nil, fail(op, name, fs.ErrInvalid)
	}
	root := Entry{Name: ".", Kind: Directory, Dir: t.root}
	at := []*Entry{&root} // from the root down to where we are
	rest := split(name)
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." { // only links bring it
			if len(at) == 1 {
				return nil, fail(op, name, ErrEscape)
			}
			at = at[:len(at)-1]
			continue
		}
		here := at[len(at)-1]
		if here.Kind != Directory {
			return nil, fail(op, name, unreadable(here, fs.ErrNotExist))
		}
		if here.Dir.err != nil {
			return nil, fail(op, name, here.Dir.err)
		}
		e := here.Dir.find(part)
		if e == nil {
			return nil, fail(op, name, fs.ErrNotExist)
		}
		if e.Kind != Link || (len(rest) == 0 && !follow) {
			at = append(at, e)
			continue
		}
		if hops++; hops > MaxHops {
			return nil, fail(op, name, ErrLoop)
		}
		target, err := t.target(e)
		if err != nil {
			return nil, fail(op, name, err)
		}
		rest = append(split(target), rest...)
	}
	return at[len(at)-1], nil
}

// split cuts a path or a link's target into its parts.
func split(p string) []string {
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// target reads a link, and refuses one that no place inside the tree can satisfy.
func (t *Tree) target(e *Entry) (string, error) {
	if e.Err != nil {
		return "", e.Err
	}
	size, err := t.size(e)
	if err != nil {
		return "", err
	}
	if size > MaxLink {
		return "", &LimitError{Name: "tree.MaxLink", Limit: MaxLink, What: fmt.Sprintf("the link's target has %d bytes", size), Remedy: "shorten it"}
	}
	data, err := t.storeOf(e).Read(e)
	if err != nil {
		return "", err
	}
	target := string(data)
	switch {
	case target == "" || strings.Contains(target, "\x00"):
		return "", fmt.Errorf("the link's target %q is no path: write it anew", target)
	case strings.HasPrefix(target, "/"), strings.Contains(target, `\`), len(target) > 1 && target[1] == ':':
		return "", fmt.Errorf("link to %q: %w", target, ErrEscape)
	}
	return target, nil
}

func (t *Tree) storeOf(e *Entry) Store {
	if e.Store != nil {
		return e.Store
	}
	return t.store
}

func (t *Tree) size(e *Entry) (int64, error) {
	switch {
	case e.Kind != File && e.Kind != Link:
		return 0, nil
	case e.Size >= 0 || e.Err != nil:
		return max(e.Size, 0), nil //nolint:nilerr // what is wrong with it is said when it is read
	default:
		return t.storeOf(e).Size(e)
	}
}

func unreadable(e *Entry, otherwise error) error {
	switch {
	case e.Err != nil:
		return e.Err
	case e.Kind == Submodule:
		return ErrSubmodule
	case e.Kind == Other:
		return ErrIrregular
	default:
		return otherwise
	}
}

// content reads a file within the limits. The bytes belong to the store.
func (t *Tree) content(op, name string, e *Entry) ([]byte, error) {
	if err := unreadable(e, nil); err != nil {
		return nil, fail(op, name, err)
	}
	size, err := t.size(e)
	if err != nil {
		return nil, fail(op, name, err)
	}
	if size > MaxFileSize {
		return nil, fail(op, name, TooBig(size))
	}
	if err := t.charge(e.Hash, size); err != nil {
		return nil, fail(op, name, err)
	}
	data, err := t.storeOf(e).Read(e)
	if err != nil {
		return nil, fail(op, name, err)
	}
	return data, nil
}

// TooBig is the error of a file above MaxFileSize.
func TooBig(size int64) error {
	return &LimitError{Name: "tree.MaxFileSize", Limit: MaxFileSize, What: fmt.Sprintf("the file has %d bytes", size), Remedy: "keep it out of what is rendered"}
}

func (t *Tree) charge(hash string, size int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.read[hash] {
		return nil
	}
	if t.sum+size > MaxTreeBytes {
		return &LimitError{Name: "tree.MaxTreeBytes", Limit: MaxTreeBytes, What: fmt.Sprintf("with this file %d bytes are read from one revision", t.sum+size), Remedy: "keep big files out of what is rendered"}
	}
	t.read[hash] = true
	t.sum += size
	return nil
}

func (t *Tree) info(e *Entry, name string, size int64) info {
	return info{name: path.Base(name), mode: e.mode(), size: size, when: t.when}
}

func (t *Tree) list(d *Dir, name string) []fs.DirEntry {
	out := make([]fs.DirEntry, len(d.entries))
	for i := range d.entries {
		out[i] = &dirEntry{tree: t, entry: &d.entries[i], dir: name}
	}
	return out
}

func fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

type info struct {
	name string
	mode fs.FileMode
	size int64
	when time.Time
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.when }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
func (i info) String() string     { return fs.FormatFileInfo(i) }

type dirEntry struct {
	tree  *Tree
	entry *Entry
	dir   string
}

func (d *dirEntry) Name() string      { return d.entry.Name }
func (d *dirEntry) IsDir() bool       { return d.entry.mode().IsDir() }
func (d *dirEntry) Type() fs.FileMode { return d.entry.mode().Type() }
func (d *dirEntry) String() string    { return fs.FormatDirEntry(d) }

func (d *dirEntry) Info() (fs.FileInfo, error) {
	size, err := d.tree.size(d.entry)
	if err != nil {
		return nil, fail("stat", path.Join(d.dir, d.entry.Name), err)
	}
	return d.tree.info(d.entry, d.entry.Name, size), nil
}

type openFile struct {
	*bytes.Reader
	info info
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info info
	path string
	list []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, fail("read", d.path, errors.New("is a directory"))
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.list
		d.list = nil
		return out, nil
	}
	if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	out := d.list[:n]
	d.list = d.list[n:]
	return out, nil
}
