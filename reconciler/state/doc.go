// Package state holds the nouns that cross a stage and the fold that records
// make of them.
//
//	sources ──► render ──Manifest──► [ state ◄── Record ] ──Assignment──► runtimes
//
// In: records, one at a time, in the order of the log. Out: a State, which is
// the fold of these records and nothing else. The package refuses to know where
// records are kept, how a plan is made, and what time it is. It imports no other
// package of Tandem; every stage may import it.
//
// Fields that are written to the log, a snapshot or the wire carry a `pb` tag:
// their protobuf field number, never reused (package history/recordpb encodes
// them).
package state
