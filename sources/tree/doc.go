// Package tree is the read-only file system that a snapshot carries.
//
//	Git objects, directory ──► [ tree ] ──sources.Tree──► render
//
// In: directories of entries with content hashes, and a Store that has the
// contents. Out: an fs.FS whose links can't leave the root. It refuses to know
// where contents come from, and whatever a hostile commit puts into names,
// links, sizes and numbers ends as an error that names the file.
package tree
