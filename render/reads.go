package render

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
)

// Listing is the hash of a directory's names, for a Read of the directory
// itself: its Path ends in "/".
func Listing(entries []fs.DirEntry) string {
	h := sha256.New()
	for _, e := range entries {
		kind := byte('f')
		if e.IsDir() {
			kind = 'd'
		}
		h.Write(append([]byte(e.Name()), 0, kind))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Unread lists the kustomizations of a tree that none of these reads looked at,
// such as a misspelt windws/.
func Unread(tree sources.Tree, reads []state.Read) ([]string, error) {
	read := make(map[string]bool, len(reads))
	for _, r := range reads {
		read[r.Path] = true
	}
	var out []string
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch path.Base(p) {
		case "kustomization.yaml", "kustomization.yml", "Kustomization":
			if !d.IsDir() && !read[p] {
				out = append(out, p)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for kustomizations: %w", err)
	}
	return out, nil
}

// Unchanged says whether a render that made these reads would make the same
// ones in tree, and so give the same manifest.
func Unchanged(tree sources.Tree, reads []state.Read) bool {
	for _, r := range reads {
		dir, isDir := strings.CutSuffix(r.Path, "/")
		switch {
		case r.Blob == "":
			if _, err := tree.Stat(r.Path); !errors.Is(err, fs.ErrNotExist) {
				return false
			}
		case isDir:
			entries, err := tree.ReadDir(dir)
			if err != nil || Listing(entries) != r.Blob {
				return false
			}
		default:
			if tree.Blob(r.Path) != r.Blob {
				return false
			}
		}
	}
	return true
}
