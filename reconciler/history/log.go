// Package history is the log: append, replay, snapshot, checkpoint, prove, verify.
//
//	sources ──► render ──► reconciler ──Record──► [ history ]
//
// In: records, in batches, from one writer. Out: the same records for ever, and
// proofs that they are the same. It refuses to know what a record means.
package history

import (
	"context"
	"errors"
	"iter"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ErrConflict means that the log's head is not the one that the writer knows:
// somebody else leads.
var ErrConflict = errors.New("log has another head")

// A Head is where a log ends: how many records, and the Merkle root over them.
type Head struct {
	Seq  state.Seq
	Root state.Digest
}

// A Log is the only durable thing: one ordered history with one writer.
type Log interface {
	// Append makes the batch durable after head, or nothing at all. A head
	// that is not the log's own is ErrConflict. Any other error ends the
	// process: memory must not run ahead of the disk.
	Append(ctx context.Context, head Head, batch []*state.Record) (Head, error)
	// Head is the durable end of the log.
	Head() Head
	// Read yields records from a sequence number on, up to the head at the
	// time of the call, without ever holding up Append.
	Read(ctx context.Context, from state.Seq) iter.Seq2[*state.Record, error]
}
