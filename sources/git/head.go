package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/tree"
)

// A Head is what the work tree around a directory was checked out from.
type Head struct {
	Branch   string // "HEAD" where it is on no branch
	Commit   sources.Commit
	WorkTree string    // the root of the work tree
	GitDir   string    // of the repository, with info/exclude
	Tree     *tree.Dir // what the commit has of the directory; nil if nothing
	Links    tree.Store
}

// HeadAround finds the work tree that dir lies in, looking into its parents, and
// what its HEAD has of dir. The error is an ErrNotFound where there is no work
// tree or no commit yet. Known is an earlier answer for the same dir, which is
// given again if nothing changed; it may be nil.
func HeadAround(dir string, known *Head) (*Head, error) {
	l, err := locateAround(dir)
	if err != nil {
		return nil, err
	}
	storage, err := l.open()
	if err != nil {
		return nil, err
	}
	ref, err := storer.ResolveReference(storage, plumbing.HEAD)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return nil, fmt.Errorf("%s has no commit yet: %w", l.WorkTree, sources.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read HEAD of %s: %w", l.WorkTree, err)
	}
	branch := "HEAD"
	if ref.Name() != plumbing.HEAD {
		branch = shortName(ref.Name().String())
	}
	if known != nil && known.Commit.Hash == ref.Hash().String() && known.Branch == branch && known.WorkTree == l.WorkTree {
		return known, nil
	}
	objects, err := openObjects(l.open, l.CommonDir)
	if err != nil {
		return nil, err
	}
	commit, err := objects.commit(ref.Hash())
	if err != nil {
		return nil, err
	}
	head := &Head{Branch: branch, Commit: describe(commit), WorkTree: l.WorkTree, GitDir: l.CommonDir, Links: objects}
	below, err := filepath.Rel(l.WorkTree, dir)
	if err != nil {
		return nil, err
	}
	head.Tree, err = objects.below(commit.TreeHash, filepath.ToSlash(below))
	return head, err
}

func locateAround(dir string) (Location, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return Locate(at)
		}
		if filepath.Dir(at) == at {
			return Location{}, fmt.Errorf("%s is in no Git work tree: %w", dir, sources.ErrNotFound)
		}
	}
}

// below is the directory at path, or nil where the tree has none.
func (o *objects) below(hash plumbing.Hash, path string) (*tree.Dir, error) {
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == "" {
			continue
		}
		encoded, err := o.decoded(hash, plumbing.TreeObject, maxTreeObject)
		if err != nil {
			return nil, err
		}
		listing, err := object.DecodeTree(nil, encoded)
		if err != nil {
			return nil, err
		}
		next := plumbing.ZeroHash
		for _, e := range listing.Entries {
			if e.Name == part && kindOf(e.Mode) == tree.Directory {
				next = e.Hash
			}
		}
		if next.IsZero() {
			return nil, nil //nolint:nilnil // the commit doesn't have the directory, and that is an answer
		}
		hash = next
	}
	b := builder{objects: o, dirs: map[plumbing.Hash]*tree.Dir{}}
	return b.root(hash)
}
