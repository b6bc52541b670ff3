// Package render turns a snapshot into manifests, per operating system.
//
//	sources ──Snapshot──► [ render ] ──Manifest──► reconciler ──► runtimes
//
// In: a tree and an Application. Out: a Manifest or every problem of the text.
// It refuses to know the network, the clock and what runs.
package render

import (
	"context"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
)

// A Renderer is a function of the snapshot alone: the same tree gives the same
// Result on any machine.
type Renderer interface {
	// Render reads what app.Path gives. Mistakes in the text are problems of
	// the Result, all of them at once; the error is for the machine's own
	// failures.
	Render(ctx context.Context, snap sources.Snapshot, app state.Application) (Result, error)
}

// A Result is a manifest, or why there is none.
type Result struct {
	Manifest  *state.Manifest     // nil with problems
	Apps      []state.Application // tandem.dev/v1 Applications among the objects; only a root may have any
	Pipelines []state.Pipeline    // likewise, by name
	Access    *state.Access       // likewise; nil where there is none
	Problems  []state.Problem     // sorted by place
}
