package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/tree"
)

// Limits of objects that are not files.
const (
	objectCache   = 16 << 20 // bytes of decoded objects kept per repository
	maxTreeObject = 32 << 20 // bytes of one directory's listing
	maxCommit     = 1 << 20  // bytes of one commit, message included
	maxPeel       = 8        // tags on tags
	maxAlternates = 16       // repositories that one borrows objects from
)

// objects reads a repository's objects by hash. go-git's storage is neither safe
// for concurrent use nor aware of packs that others add, so it is guarded, and
// opened again where an object is missing.
type objects struct {
	open   func() (*filesystem.Storage, error)
	common string // the directory that holds objects/

	mu      sync.Mutex
	stores  []*filesystem.Storage // the repository's own, then those it borrows from
	partial bool                  // files above the limit were left out of the fetch

	damaged func() // told when a file's content can't be read; may be nil
}

func openObjects(open func() (*filesystem.Storage, error), common string) (*objects, error) {
	o := &objects{open: open, common: common}
	err := o.reopen()
	return o, err
}

func (o *objects) reopen() error {
	own, err := o.open()
	if err != nil {
		return err
	}
	stores := []*filesystem.Storage{own}
	dirs := []string{filepath.Join(o.common, "objects")}
	for i := 0; i < len(dirs) && len(dirs) <= maxAlternates; i++ {
		dirs = append(dirs, alternates(dirs[i])...)
	}
	for _, dir := range dirs[1:] {
		stores = append(stores, filesystem.NewStorage(osfs.New(filepath.Dir(dir)), cache.NewObjectLRU(objectCache)))
	}
	o.stores = stores
	return nil
}

// alternates are the object directories that another one borrows from.
func alternates(dir string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "info", "alternates"))
	if err != nil {
		return nil // none; an object that is missed for it is told by name
	}
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !filepath.IsAbs(line) {
			line = filepath.Join(dir, line)
		}
		if filepath.Base(line) == "objects" {
			out = append(out, line)
		}
	}
	return out
}

// with runs f on the storage that has the object.
func (o *objects) with(hash plumbing.Hash, f func(*filesystem.Storage) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	try := func() error {
		for _, s := range o.stores {
			if err := f(s); !errors.Is(err, plumbing.ErrObjectNotFound) {
				return err
			}
		}
		return plumbing.ErrObjectNotFound
	}
	err := try()
	if err == nil {
		return nil
	}
	// A repack moves objects under our feet: look again with fresh eyes.
	if reopened := o.reopen(); reopened != nil {
		return errors.Join(err, reopened)
	}
	if err := try(); err != nil {
		return fmt.Errorf("object %s: %w", hash, err)
	}
	return nil
}

func (o *objects) sizeOf(hash plumbing.Hash) (int64, error) {
	var size int64
	err := o.with(hash, func(s *filesystem.Storage) (err error) {
		size, err = s.EncodedObjectSize(hash)
		return err
	})
	return size, err
}

// bytes reads an object of at most the given size.
func (o *objects) bytes(hash plumbing.Hash, most int64) (plumbing.ObjectType, []byte, error) {
	size, err := o.sizeOf(hash)
	if err != nil {
		return plumbing.InvalidObject, nil, err
	}
	if size > most {
		return plumbing.InvalidObject, nil, fmt.Errorf("object %s has %d bytes, more than the %d that are read", hash, size, most)
	}
	var kind plumbing.ObjectType
	var data []byte
	err = o.with(hash, func(s *filesystem.Storage) error {
		encoded, err := s.EncodedObject(plumbing.AnyObject, hash)
		if err != nil {
			return err
		}
		r, err := encoded.Reader()
		if err != nil {
			return err
		}
		kind = encoded.Type()
		data, err = io.ReadAll(io.LimitReader(r, most+1))
		if int64(len(data)) != size && err == nil {
			err = fmt.Errorf("it has %d bytes, want %d", len(data), size)
		}
		return errors.Join(err, r.Close())
	})
	if err == nil && plumbing.ComputeHash(kind, data) != hash {
		err = fmt.Errorf("object %s is damaged: its content has another hash", hash)
	}
	return kind, data, err
}

// decoded is the object as go-git's decoders take it.
func (o *objects) decoded(hash plumbing.Hash, want plumbing.ObjectType, most int64) (*plumbing.MemoryObject, error) {
	kind, data, err := o.bytes(hash, most)
	if err != nil {
		return nil, err
	}
	if kind != want {
		return nil, fmt.Errorf("object %s is a %s, want a %s", hash, kind, want)
	}
	m := &plumbing.MemoryObject{}
	m.SetType(kind)
	_, err = m.Write(data)
	return m, err
}

func (o *objects) commit(hash plumbing.Hash) (*object.Commit, error) {
	encoded, err := o.decoded(hash, plumbing.CommitObject, maxCommit)
	if err != nil {
		return nil, err
	}
	return object.DecodeCommit(nil, encoded)
}

// peel follows tags to the commit.
func (o *objects) peel(hash plumbing.Hash) (plumbing.Hash, error) {
	for range maxPeel {
		kind, data, err := o.bytes(hash, maxCommit)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return plumbing.ZeroHash, fmt.Errorf("there is no commit %s: %w", hash, sources.ErrNotFound)
		}
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if kind == plumbing.CommitObject {
			return hash, nil
		}
		if kind != plumbing.TagObject {
			return plumbing.ZeroHash, fmt.Errorf("%s is a %s and not a commit: %w", hash, kind, sources.ErrNotFound)
		}
		line, _, _ := strings.Cut(string(data), "\n")
		target, ok := strings.CutPrefix(line, "object ")
		if !ok || !plumbing.IsHash(target) {
			return plumbing.ZeroHash, fmt.Errorf("tag %s names no object", hash)
		}
		hash = plumbing.NewHash(target)
	}
	return plumbing.ZeroHash, fmt.Errorf("tag %s leads to no commit within %d tags: %w", hash, maxPeel, sources.ErrNotFound)
}

// Size is tree.Store's.
func (o *objects) Size(e *tree.Entry) (int64, error) {
	size, err := o.sizeOf(hashOf(e))
	if errors.Is(err, plumbing.ErrObjectNotFound) && o.partial {
		return tree.MaxFileSize + 1, nil // the server was asked to leave out exactly these
	}
	if err != nil && o.damaged != nil {
		o.damaged()
	}
	return size, err
}

// Read is tree.Store's.
func (o *objects) Read(e *tree.Entry) ([]byte, error) {
	kind, data, err := o.bytes(hashOf(e), tree.MaxFileSize)
	if err == nil && kind != plumbing.BlobObject {
		return nil, fmt.Errorf("object %s is a %s and not a file", hashOf(e), kind)
	}
	if err != nil && o.damaged != nil {
		o.damaged()
	}
	return data, err
}

func hashOf(e *tree.Entry) plumbing.Hash {
	return plumbing.NewHash(strings.TrimPrefix(e.Hash, "sha1:"))
}

// A builder makes the directories of one tree, and takes over those that the
// tree before had too.
type builder struct {
	objects *objects
	store   tree.Store // of the contents, where it isn't the tree's own
	old     map[plumbing.Hash]*tree.Dir
	dirs    map[plumbing.Hash]*tree.Dir
}

// root is the tree's root, or a broken one where the tree exceeds a limit: that
// is for whoever wrote the commit to mend.
func (b *builder) root(hash plumbing.Hash) (*tree.Dir, error) {
	d, err := b.dir(hash, 1)
	if limit, ok := errors.AsType[*tree.LimitError](err); ok {
		return tree.Broken(limit), nil
	}
	return d, err
}

func (b *builder) dir(hash plumbing.Hash, depth int) (*tree.Dir, error) {
	if d := b.dirs[hash]; d != nil {
		return d, nil
	}
	if depth > tree.MaxDepth {
		return nil, &tree.LimitError{Name: "tree.MaxDepth", Limit: tree.MaxDepth, What: "the tree is deeper", Remedy: "make it flatter"}
	}
	if len(b.dirs) > tree.MaxFiles {
		return nil, &tree.LimitError{Name: "tree.MaxFiles", Limit: tree.MaxFiles, What: "the tree has more directories", Remedy: "keep manifests in a repository of their own"}
	}
	if d := b.old[hash]; d != nil {
		b.keep(hash, d)
		return d, nil
	}
	if size, err := b.objects.sizeOf(hash); err == nil && size > maxTreeObject {
		return nil, &tree.LimitError{Name: "git.maxTreeObject", Limit: maxTreeObject, What: fmt.Sprintf("a directory's listing has %d bytes", size), Remedy: "put fewer files into one directory"}
	}
	encoded, err := b.objects.decoded(hash, plumbing.TreeObject, maxTreeObject)
	if err != nil {
		return nil, err
	}
	listing, err := object.DecodeTree(nil, encoded)
	if err != nil { // its hash is right: that is how it was committed
		d := tree.Broken(fmt.Errorf("the directory's listing %s can't be read (%w): commit it anew", hash, err))
		b.dirs[hash] = d
		return d, nil
	}
	entries := make([]tree.Entry, len(listing.Entries))
	for i := range listing.Entries {
		e := &listing.Entries[i]
		entries[i] = tree.Entry{Name: e.Name, Hash: "sha1:" + e.Hash.String(), Size: -1, Kind: kindOf(e.Mode), Executable: e.Mode == filemode.Executable, Store: b.store}
		if entries[i].Kind == tree.Directory {
			if entries[i].Dir, err = b.dir(e.Hash, depth+1); err != nil {
				return nil, err
			}
		}
	}
	d := tree.NewDir(entries)
	b.dirs[hash] = d
	return d, nil
}

// keep carries a directory that didn't change over, with all below it.
func (b *builder) keep(hash plumbing.Hash, d *tree.Dir) {
	if b.dirs[hash] != nil {
		return
	}
	b.dirs[hash] = d
	for i := range d.Entries() {
		if e := &d.Entries()[i]; e.Kind == tree.Directory {
			b.keep(hashOf(e), e.Dir)
		}
	}
}

func kindOf(mode filemode.FileMode) tree.Kind {
	switch mode {
	case filemode.Dir:
		return tree.Directory
	case filemode.Regular, filemode.Executable, filemode.Deprecated:
		return tree.File
	case filemode.Symlink:
		return tree.Link
	case filemode.Submodule:
		return tree.Submodule
	case filemode.Empty:
		return tree.Other
	default:
		return tree.Other
	}
}

func describe(c *object.Commit) sources.Commit {
	out := sources.Commit{
		Hash:      c.Hash.String(),
		Author:    person(c.Author),
		Committer: person(c.Committer),
		Message:   strings.ToValidUTF8(c.Message, "\uFFFD"),
		Signature: c.PGPSignature,
		Tree:      c.TreeHash.String(),
	}
	for _, p := range c.ParentHashes {
		out.Parents = append(out.Parents, p.String())
	}
	return out
}

func person(s object.Signature) sources.Person {
	return sources.Person{Name: strings.ToValidUTF8(s.Name, "\uFFFD"), Email: strings.ToValidUTF8(s.Email, "\uFFFD"), When: s.When}
}
