// Package audit looks back: what ran when, what changed between, and whether
// the log and all beside it is still as it was written.
//
//	history (directory, bundle, live) ──► [ audit ] ──state, findings──► report, verify
//
// In: a data directory, stopped or live, or a bundle that was exported from
// one. Out: the state as of any record, answers made of it, proofs, and every
// finding with its file. It changes nothing and refuses to know what is printed.
package audit
