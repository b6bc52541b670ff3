package agent

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// wayOut is what an operator can do about a controller that a node refuses.
const wayOut = "bring the newest log back, or, if it is lost, remove the agent's data directory and join again"

// sameLog refuses a controller that another log, or a shorter copy of this one,
// stands behind: decision 15.
func sameLog(known, now Head) error {
	switch {
	case known.Log.IsZero() || now.Log.IsZero():
		return nil
	case known.Log != now.Log:
		return fmt.Errorf("the controller has log %s, this node belongs to log %s; %s: %w", now.Log.Short(), known.Log.Short(), wayOut, runtimes.ErrRejected)
	case now.Size < known.Size:
		return fmt.Errorf("the controller's log ends at record %d, this node has seen record %d: an old copy was restored; %s: %w",
			now.Size, known.Size, wayOut, runtimes.ErrRejected)
	case now.Size == known.Size && now.Root != known.Root:
		return fmt.Errorf("the controller's log differs from the one that this node has seen, in its first %d records; %s: %w", now.Size, wayOut, runtimes.ErrRejected)
	default:
		return nil
	}
}

// follows also wants a proof that the log which a node has seen is the beginning of
// the one that the controller has now: another history that has grown longer meanwhile
// has none.
func follows(known, now Head, proof []state.Digest) error {
	if err := sameLog(known, now); err != nil {
		return err
	}
	if known.Size == 0 || known.Log.IsZero() || now.Log.IsZero() || now.Size == known.Size {
		return nil
	}
	tree := make(tlog.TreeProof, len(proof))
	for i, h := range proof {
		tree[i] = tlog.Hash(h)
	}
	if err := tlog.CheckTree(tree, int64(now.Size), tlog.Hash(now.Root), int64(known.Size), tlog.Hash(known.Root)); err != nil { //nolint:gosec // a log's size
		return fmt.Errorf("the controller does not prove that its log of %d records begins with the %d that this node has seen: it is another history; %s: %w",
			now.Size, known.Size, wayOut, runtimes.ErrRejected)
	}
	return nil
}

// follows says whether a controller's welcome may be taken by who remembers a head.
func (w *Welcome) follows(known Head) error {
	if !w.Proves {
		return sameLog(known, w.Head)
	}
	return follows(known, w.Head, w.Proof)
}

// A HeadPeer remembers how far the log has come. Where its controller's end knows, it
// says so with each renewal.
type HeadPeer interface{ Head(h Head) }

// Head implements HeadPeer: a copy of the log that is older than this is refused from
// now on. A controller that goes back within a session has another log.
func (p *sessionPeer) Head(h Head) {
	p.mu.Lock()
	known := p.note.Head
	p.mu.Unlock()
	if err := sameLog(known, h); err != nil {
		p.Lost(err)
		return
	}
	if h.Log.IsZero() || h.Size == known.Size {
		return
	}
	if err := p.keepNote(func(n *note) { n.Head = h }); err != nil {
		p.Lost(fmt.Errorf("remember the controller's log: %w", err))
	}
}
