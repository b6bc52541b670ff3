package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A SessionStatus is what the hub knows of an open session, for whoever watches.
// Nothing is decided by it.
type SessionStatus struct {
	Node  state.NodeName
	Heard time.Time // when the agent last renewed or reported; before that, when it connected
	// ClockAhead is how far the node's wall clock is ahead of this machine's, less
	// the time that a renewal takes to get here. In process: 0.
	ClockAhead      time.Duration
	CertificateEnds time.Time // zero: it showed none, as in process
}

// Sessions are all open ones, by node.
func (h *Hub) Sessions() []SessionStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []SessionStatus
	for _, n := range h.nodes {
		if n.port != nil {
			all = append(all, n.port.status)
		}
	}
	slices.SortFunc(all, func(a, b SessionStatus) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

// note changes what is known of the session.
func (p *port) note(change func(*SessionStatus)) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	change(&p.status)
}

// certificateEnd is when the certificate that a call showed ends.
func certificateEnd(ctx context.Context) time.Time {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return time.Time{}
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return time.Time{}
	}
	return info.State.PeerCertificates[0].NotAfter
}
