// Package sources turns places where manifests are written into snapshots.
//
//	[ Git, dir ──► sources ] ──Snapshot──► render ──► reconciler ──► runtimes
//
// In: a repository or a directory. Out: whole trees at one revision, read-only.
// It refuses to know what is in the files.
package sources

import (
	"context"
	"io/fs"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Source yields snapshots of one tree of manifests. Polling, webhooks,
// credentials and caches are its own business.
type Source interface {
	// Next waits for a snapshot whose Revision differs from last, or for ctx.
	// It may skip revisions; it never returns one that is not whole. An error
	// that wraps ErrUnavailable means that the source doesn't answer now:
	// call Next again, it waits by itself (back-off with jitter).
	Next(ctx context.Context, last state.Revision) (Snapshot, error)
}

// A Historian is a Source that knows how commits follow one another. Commits are
// given by their whole hash; errors are of Next's classes.
type Historian interface {
	// Descends says whether from is commit or one of its ancestors.
	Descends(ctx context.Context, commit, from string) (bool, error)
	// Since visits commit and its ancestors without known and those of known, in
	// no order that a commit could choose; known may be "". The bytes are the ones
	// whose hash is the commit's name.
	Since(ctx context.Context, commit, known string, visit func(hash string, raw []byte) error) error
}

// A Snapshot is a tree at one revision: a value that never changes.
type Snapshot struct {
	Revision state.Revision // "main@sha1:3f2a91c…", or "dir@sha256:…"
	Label    string         // for people: "main@3f2a91c + 2 uncommitted files"
	Commit   Commit         // zero for a directory outside Git
	FS       Tree           // read-only, size-capped, symlinks can't leave the root
}

// A Tree is a read-only file system that also knows each file's content hash
// without reading it.
type Tree interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
	// Blob is a hash of the file's content (Git's blob hash, or sha256), or ""
	// where there is no such file.
	Blob(path string) string
}

// A Comparer is a Tree that can tell what it has otherwise than one before it.
type Comparer interface {
	// Changed has every path that may be otherwise: of what was added, removed or
	// changed, of all below it, and of each directory above. False: nobody knows.
	Changed(since Tree) (map[string]bool, bool)
}

// Commit is who wrote a revision, in clear.
type Commit struct {
	Hash      string
	Author    Person
	Committer Person
	Message   string
	Parents   []string
	Tree      string
	Raw       []byte // the bytes whose hash is Hash
	Signature string // the raw signature block, unverified
}

// Person is a name as a commit gives it: nobody has verified it.
type Person struct {
	Name, Email string
	When        time.Time
}
