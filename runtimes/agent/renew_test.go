package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// A renewing link passes on when renewals are sent.
type renewingLink struct {
	peer chan agent.Peer
	sent chan time.Duration
}

func (l *renewingLink) Open(_ context.Context, _ agent.Hello, p agent.Peer) (agent.Session, error) {
	l.peer <- p
	return l, nil
}

func (*renewingLink) Welcome() agent.Welcome {
	return agent.Welcome{Renew: lease.Renewal, Lease: time.Hour}
}

func (l *renewingLink) Renew(_ context.Context, sent time.Duration) error {
	l.sent <- sent
	return nil
}
func (*renewingLink) Report(context.Context, *state.Report) error { return nil }
func (*renewingLink) Close()                                      {}

// The first pod of the class with the short lease is not left to the renewal that
// was set for the longer one: by then it would have been ended.
func TestAShorterLeaseIsRenewedAtOnce(t *testing.T) {
	link := &renewingLink{peer: make(chan agent.Peer, 1), sent: make(chan time.Duration, 10)}
	run(t, agent.Config{Node: "n1", Dir: t.TempDir(), Runtime: simulated.New(simulated.Options{}), Link: link, BootID: "b"})
	peer := within(t, link.peer, "that the agent connects")
	first := within(t, link.sent, "the first renewal")
	fast := podOf(1, nil)
	fast.Loss = lease.FailoverFast
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: []*state.AssignedPod{fast}})
	second := within(t, link.sent, "the second renewal")
	if terms := lease.FailoverFast.Terms(); second-first >= terms.Length-terms.Kill {
		t.Errorf("renewed %s after the renewal before, when the lease has lapsed", second-first)
	}
}
