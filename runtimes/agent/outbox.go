package agent

import (
	"context"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// reportsMost is how many reports wait for a controller that takes none. Beyond
// it they are dropped, and a full one follows once it does.
const reportsMost = 256

// An outbox holds the reports that wait to be sent in one session: a controller
// that is slow, or gone without a word, is not to keep the agent from its pods.
type outbox struct {
	hint chan struct{}

	mu   sync.Mutex // guards what follows
	wait []*state.Report
	lost bool
}

func newOutbox() *outbox { return &outbox{hint: make(chan struct{}, 1)} }

// put adds a report; false: there is no room, a full one follows later.
func (o *outbox) put(r *state.Report) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost = o.lost || len(o.wait) >= reportsMost; o.lost {
		return false
	}
	o.wait = append(o.wait, r)
	nudge(o.hint)
	return true
}

// take gives what waits, and says whether something was lost since the last time.
func (o *outbox) take() (all []*state.Report, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all, lost = o.wait, o.lost
	o.wait, o.lost = nil, false
	return all, lost
}

// deliver sends reports until the session ends.
func (a *Agent) deliver(ctx context.Context, s Session, out *outbox, p *sessionPeer) {
	for {
		all, lost := out.take()
		for _, r := range all {
			if err := s.Report(ctx, r); err != nil {
				p.Lost(err) // the next session begins with a full one
				return
			}
		}
		if lost {
			a.post(&step.Connected{})
		}
		select {
		case <-ctx.Done():
			return
		case <-out.hint:
		}
	}
}
