// Package git follows one branch, a tag or a range of versions, or stays at one
// commit, of a Git repository.
//
//	HTTPS, SSH ──fetch──► store on disk ─┐
//	repository on this machine ──────────┴─objects──► [ sources/git ] ──Snapshot──► render
//
// In: an address and who we are. Out: snapshots served from Git objects; nothing
// is ever checked out, and no program is run. A remote repository is asked for
// one commit of one branch, without history, and only for what changed since the
// last. It refuses to know what is in the files.
package git
