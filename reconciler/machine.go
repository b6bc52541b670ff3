// Package reconciler is the control plane as one deterministic step machine.
//
//	sources ──► render ──Manifest──► [ reconciler ] ──assignment──► runtimes
//
// In: events and the time. Out: records, assignments, effects and when to be
// called again. It has no goroutine, clock, socket, file or randomness; package
// act drives it in production, package sim under a seed.
package reconciler

import "github.com/tandem-gitops/tandem/reconciler/state"

// Output is what one step decided. Nothing of it but Blobs may leave before
// Records are durable.
type Output struct {
	Blobs       []Blob             // to be durable before Records
	Records     []*state.Record    // to append, in order
	Assignments []state.Assignment // what each touched node should run, as of the last record
	Effects     []state.Effect
	Wake        state.Instant // when the answer changes by itself, on the driver's clock; zero if it can't
}

// A Blob lies beside the log: a manifest or a template, under its digest.
type Blob struct {
	Digest   state.Digest
	Manifest *state.Manifest // its stored form is the shell's affair: secret values are encrypted
	Template []byte
}
