package tree

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Limits of one tree. They are far above what manifests need and far below what
// would hurt the process that reads them.
const (
	MaxFileSize  = 10 << 20  // bytes of one file
	MaxFiles     = 100_000   // files and links of a tree
	MaxTreeBytes = 256 << 20 // bytes of all files that are read from a tree
	MaxDepth     = 64        // directories above a file
	MaxName      = 255       // bytes of one name
	MaxLink      = 4096      // bytes of a symbolic link's target
	MaxHops      = 40        // links that one path may go through
)

// Kind is what an entry is.
type Kind uint8

// The kinds of entries.
const (
	File Kind = iota + 1
	Directory
	Link
	Submodule // a commit of another repository
	Other     // a socket, a device, a pipe
)

// An Entry is one name in a directory. It never changes once it is in a Dir.
type Entry struct {
	Name       string
	Kind       Kind
	Executable bool
	Hash       string // of the content: "sha1:…" as Git counts it, or "sha256:…"
	Size       int64  // negative where only the Store knows it
	Dir        *Dir   // of a Directory
	Store      Store  // has the content; nil: the tree's own
	Err        error  // why it can't be read, where that is known beforehand
}

// A Dir is one directory with all that is below it. It has no name and no
// parent, so that successive trees share what didn't change.
type Dir struct {
	entries []Entry // sorted by name
	files   int     // below it, files and links
	depth   int     // directories below it, itself included
	err     error   // why nothing in it can be read
	links   bool    // there is a link below it, or what else leads elsewhere
}

// NewDir makes a directory of entries, in any order. Mistakes in names are kept
// and told when something is read.
func NewDir(entries []Entry) *Dir {
	d := &Dir{entries: slices.Clone(entries), depth: 1}
	slices.SortFunc(d.entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	for i := range d.entries {
		e := &d.entries[i]
		if err := checkHostile(e.Name); err != nil && d.err == nil {
			d.err = fmt.Errorf("%w: rename it", err)
		}
		if i > 0 && d.entries[i-1].Name == e.Name && d.err == nil {
			d.err = fmt.Errorf("two entries are named %q: rename one", e.Name)
		}
		if err := checkPortable(e.Name); err != nil && e.Err == nil {
			e.Err = fmt.Errorf("%w: rename it", err)
		}
		d.links = d.links || e.Kind != File && e.Kind != Directory || e.Dir != nil && e.Dir.links
		switch {
		case e.Kind != Directory:
			d.files++
		case e.Dir != nil:
			d.files = min(d.files+e.Dir.files, 1<<30)
			d.depth = max(d.depth, e.Dir.depth+1)
		}
	}
	return d
}

// Broken is a directory in which nothing can be read, because of err.
func Broken(err error) *Dir { return &Dir{depth: 1, err: err} }

// Files is how many files and links are below d.
func (d *Dir) Files() int { return d.files }

// Entries are the directory's entries, sorted by name, not to be changed.
func (d *Dir) Entries() []Entry { return d.entries }

func (d *Dir) find(name string) *Entry {
	i, ok := slices.BinarySearchFunc(d.entries, name, func(e Entry, n string) int { return cmp.Compare(e.Name, n) })
	if !ok {
		return nil
	}
	return &d.entries[i]
}

// Find is the entry at a path of names below d, or nil. It follows no link.
func (d *Dir) Find(path ...string) *Entry {
	var e *Entry
	for _, name := range path {
		if d == nil || d.err != nil {
			return nil
		}
		if e = d.find(name); e == nil {
			return nil
		}
		d = e.Dir
	}
	return e
}

// Graft is d with another entry in place of the one at a path that Find finds;
// what is beside the path is shared.
func (d *Dir) Graft(e Entry, path ...string) *Dir {
	entries := slices.Clone(d.entries)
	i := slices.IndexFunc(entries, func(o Entry) bool { return o.Name == path[0] })
	if len(path) > 1 {
		below := entries[i]
		below.Dir = below.Dir.Graft(e, path[1:]...)
		e = below
	}
	entries[i] = e
	return NewDir(entries)
}

// check finds what makes a whole tree unusable.
func (d *Dir) check() error {
	if d.files > MaxFiles {
		return &LimitError{Name: "tree.MaxFiles", Limit: MaxFiles, What: fmt.Sprintf("the tree has %d files", d.files), Remedy: "keep manifests in a repository or directory of their own"}
	}
	if d.depth > MaxDepth {
		return &LimitError{Name: "tree.MaxDepth", Limit: MaxDepth, What: fmt.Sprintf("the tree is %d directories deep", d.depth), Remedy: "make it flatter"}
	}
	return nil
}

// A LimitError says which limit a tree exceeds.
type LimitError struct {
	Name   string // as in the source text: "tree.MaxFileSize"
	Limit  int64
	What   string // "the file has 104857600 bytes"
	Remedy string
}

// Error names the limit and what to do.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s, more than %d (limit %s): %s", e.What, e.Limit, e.Name, e.Remedy)
}

// Errors that a path can end with, besides those of io/fs.
var (
	ErrEscape    = errors.New("the link leads out of the tree: link only to what is inside")
	ErrLoop      = errors.New("the links lead in a circle: point one of them at a file")
	ErrSubmodule = errors.New("it is a submodule that .gitmodules doesn't name: add it there, or commit the files themselves")
	ErrIrregular = errors.New("it is neither a file, a directory nor a link: remove it")
)

func (e *Entry) mode() fs.FileMode {
	switch e.Kind {
	case Directory, Submodule:
		return fs.ModeDir | 0o555
	case Link:
		return fs.ModeSymlink | 0o777
	case File:
		if e.Executable {
			return 0o555
		}
		return 0o444
	case Other:
		return fs.ModeIrregular
	default:
		return fs.ModeIrregular
	}
}

// Err is why nothing in d can be read, or nil.
func (d *Dir) Err() error { return d.err }
