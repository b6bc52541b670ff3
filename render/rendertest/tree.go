// Package rendertest has trees for tests of rendering.
package rendertest

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"testing/fstest"

	"golang.org/x/tools/txtar"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
)

// Tree is a tree in memory.
type Tree struct{ fstest.MapFS }

// Blob is the sha256 of a file.
func (t Tree) Blob(path string) string {
	info, err := t.Stat(path)
	if err != nil || info.IsDir() {
		return ""
	}
	raw, err := t.ReadFile(path)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// FromFiles makes a tree of paths and contents.
func FromFiles(files map[string]string) Tree {
	t := Tree{fstest.MapFS{}}
	for name, content := range files {
		t.MapFS[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return t
}

// FromArchive makes a tree of the files of a txtar archive.
func FromArchive(a *txtar.Archive) Tree {
	files := make(map[string]string, len(a.Files))
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	return FromFiles(files)
}

// FromFS copies a file system, such as os.DirFS of an example.
func FromFS(from fs.FS) (Tree, error) {
	files := map[string]string{}
	err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(from, path)
		files[path] = string(raw)
		return err
	})
	return FromFiles(files), err
}

// Snapshot is the tree at a made-up revision.
func (t Tree) Snapshot() sources.Snapshot {
	return sources.Snapshot{Revision: state.Revision("main@sha1:3f2a91c0000000000000000000000000000000aa"), Label: "main@3f2a91c", FS: t}
}
