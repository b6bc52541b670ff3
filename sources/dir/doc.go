// Package dir follows a directory that people edit.
//
//	editor ──files──► [ sources/dir ] ──Snapshot──► render
//
// In: a path. Out: a snapshot, copied into memory as of one quiet moment, each
// time the contents are others. Inside a Git work tree the label says which
// commit it was checked out from and how many files differ. It refuses to know
// what is in the files.
package dir
