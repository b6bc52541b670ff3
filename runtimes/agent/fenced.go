package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/agent/bootclock"
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

const (
	// fencerWait is how long the first hello waits for the fencer's word, so
	// that a node doesn't begin with saying that it has none.
	fencerWait = 5 * time.Second
	// fencerPatience is how long a lost fencer may take to come back before the
	// controller is told. No identity starts meanwhile.
	fencerPatience = 2 * time.Second
)

// errFacts ends a session so that the next one says what has changed.
var errFacts = errors.New("what this node says of itself has changed")

// guard tells the fencer what the machine knows, where that has changed.
func (a *Agent) guard() {
	if a.cfg.Fencer == nil {
		return
	}
	w := a.machine.Word()
	if !w.Same(&a.told) {
		a.told = w
		a.cfg.Fencer.Tell(w)
	}
}

// fenced takes in what is known of the fencer.
func (a *Agent) fenced(ctx context.Context, h fencer.Health) {
	a.killed(ctx, h.Killed)
	a.mu.Lock()
	if !slices.Equal(a.open, h.Open) {
		a.open = h.Open
		defer a.post(&step.Guarded{Open: h.Open})
	}
	now := bootclock.Now()
	if h.Running {
		a.unfencedSince = 0
	} else if a.unfencedSince == 0 {
		a.unfencedSince = now
	}
	unfenced := !h.Running && (a.facts.Unfenced || now-a.unfencedSince >= fencerPatience)
	changed := unfenced != a.facts.Unfenced
	a.facts.Unfenced = unfenced
	peer := a.peer
	a.mu.Unlock()
	a.fencerKnown()
	if !changed {
		return
	}
	if unfenced {
		a.log.LogAttrs(ctx, slog.LevelError, "the fencer does not run: this node takes no StatefulSet's pods", slog.String("reason", h.Why))
	} else {
		a.log.LogAttrs(ctx, slog.LevelInfo, "the fencer runs")
	}
	if peer != nil {
		peer.Lost(errFacts)
	}
}

func (a *Agent) killed(ctx context.Context, all []fencer.Killing) {
	for _, k := range all {
		a.log.LogAttrs(ctx, slog.LevelWarn, "the fencer killed an identity: its lease had lapsed", slog.String("pod", k.UID.String()),
			slog.Time("at", time.Unix(0, k.At)), slog.Int("processes", k.Processes))
	}
}

// awaitFencer waits until it is known whether there is a fencer.
func (a *Agent) awaitFencer(ctx context.Context) {
	if a.cfg.Fencer == nil {
		return
	}
	t := time.NewTimer(fencerWait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-a.fencerHeard:
	}
}
