package act

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// commit makes steps durable, as many at once as are waiting (group commit), and
// lets out what follows from them. Any error ends the process: memory must not
// run ahead of the disk for good.
// What asks the world outside does so under another context than the disk.
func (c *Controller) commit(ctx, outside context.Context) {
	for out := range c.commits {
		steps := []reconciler.Output{out}
	more:
		for len(steps) < maxQueued && !rotates(steps) {
			select {
			case next, ok := <-c.commits:
				if !ok {
					break more
				}
				steps = append(steps, next)
			default:
				break more
			}
		}
		if err := c.write(ctx, outside, steps); err != nil {
			c.failed <- err
			for range c.commits {
				// The process is ending: what is still decided is dropped.
			}
			return
		}
	}
}

// rotates says whether a step ends with a change of the log's signing key: the old key
// signs up to there, and what follows is another batch.
func rotates(steps []reconciler.Output) bool {
	records := steps[len(steps)-1].Records
	if len(records) == 0 {
		return false
	}
	_, ok := records[len(records)-1].Fact.(*state.SigningKeyRotated)
	return ok
}

func (c *Controller) write(ctx, outside context.Context, steps []reconciler.Output) error {
	var records []*state.Record
	var blobs []reconciler.Blob
	for i := range steps {
		blobs = append(blobs, steps[i].Blobs...)
		records = append(records, steps[i].Records...)
	}
	if err := c.cfg.Library.storeAll(blobs); err != nil {
		return fmt.Errorf("store what record %d names: %w", c.head.Seq+1, err)
	}
	if len(records) > 0 {
		began := time.Now()
		head, err := c.cfg.Log.Append(ctx, c.head, records)
		if err != nil {
			return fmt.Errorf("append %d records: %w", len(records), err)
		}
		c.head = head
		if c.cfg.Meter != nil {
			c.cfg.Meter.Appended(time.Since(began), records)
		}
		if err := c.publish(records); err != nil {
			return err
		}
	}
	c.release(outside, steps)
	return c.snapshot(ctx)
}

// publish moves the watermark: readers see the batch from now on.
func (c *Controller) publish(records []*state.Record) error {
	if err := c.advance(records); err != nil {
		return err
	}
	// Not under the lock: who is told may want to read.
	if c.cfg.Committed != nil {
		c.cfg.Committed(records)
	}
	return nil
}

func (c *Controller) advance(records []*state.Record) error {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	for _, r := range records {
		if err := c.view.Apply(r); err != nil {
			return fmt.Errorf("fold at the watermark: %w", err)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// release lets out what the durable records lead to: of each node's
// assignments the newest, and every effect.
func (c *Controller) release(ctx context.Context, steps []reconciler.Output) {
	seen := map[state.NodeName]bool{}
	for _, out := range slices.Backward(steps) {
		for _, a := range slices.Backward(out.Assignments) {
			if !seen[a.Node] {
				seen[a.Node] = true
				c.cfg.Nodes.Assign(a)
			}
		}
	}
	c.tell(steps)
	if nodes, ok := c.cfg.Nodes.(GrantNodes); ok {
		for _, out := range steps {
			for _, g := range out.Grants {
				nodes.Grant(g)
			}
		}
	}
	for _, out := range steps {
		for _, e := range out.Effects {
			switch e := e.(type) {
			case *state.LookUp:
				c.lookUp(ctx, e)
			case *state.ReviewWanted, *state.Push, *state.NoteWanted:
				c.promote(ctx, e)
			case *state.Reply:
				c.reply(e)
			}
		}
	}
}

// tell lets out the newest network.
func (c *Controller) tell(steps []reconciler.Output) {
	nodes, ok := c.cfg.Nodes.(NetworkNodes)
	if !ok {
		return
	}
	for _, out := range slices.Backward(steps) {
		if out.Network != nil {
			nodes.Network(out.Network)
			return
		}
	}
}

func (c *Controller) reply(r *state.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.calls[r.ID]; answer != nil {
		answer <- *r
	}
}

// enter waits for a place among those who ask the world outside; false: the
// controller ends.
func (c *Controller) enter(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case c.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Controller) lookUp(ctx context.Context, e *state.LookUp) {
	c.lookups.Go(func() {
		if !c.enter(ctx) {
			return
		}
		defer func() { <-c.slots }()
		im := c.cfg.Images.Look(ctx, e.Image, e.Secrets)
		im.Name = e.Image
		c.Submit(&state.ImageLooked{App: e.App, Manifest: e.Manifest, Image: im})
	})
}

// snapshot captures the fold now and then. A snapshot is a cache, but a disk
// that refuses it is no longer to be trusted with the log either.
func (c *Controller) snapshot(ctx context.Context) error {
	if c.cfg.Snapshots == nil || c.head.Seq-c.snapped < SnapshotEvery {
		return nil
	}
	c.viewMu.RLock()
	snap := c.view.Snapshot()
	c.viewMu.RUnlock()
	c.snapped = snap.Seq
	if err := c.cfg.Snapshots.Save(snap); err != nil {
		return fmt.Errorf("save the snapshot of record %d: %w", snap.Seq, err)
	}
	c.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "saved snapshot", slog.Uint64("seq", uint64(snap.Seq)))
	return nil
}
