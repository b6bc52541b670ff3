package kubeapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// recheck is how often what is open is held against the tokens and the clock; what the
// root says of people is looked at with each change.
const recheck = time.Second

// A revokedError ends what somebody holds open who may no longer.
type revokedError struct{ why error }

// Error implements error.
func (e *revokedError) Error() string { return "its right ended: " + e.why.Error() }

// Unwrap implements errors.
func (e *revokedError) Unwrap() error { return e.why }

// lasts says whether a request stays open: what it may do is asked again meanwhile.
func lasts(c *call, sub string) bool {
	q := c.r.URL.Query()
	return isTrue(q.Get("watch")) || isTrue(q.Get("follow")) || streams(sub)
}

// guard runs what lasts, and ends it as soon as its user may no longer do it: the token
// or certificate ended, or the root in Git took the role away.
func (a *api) guard(c *call, verb, resource string, at access.Where, run func() error) error {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	w := &guarded{ResponseWriter: c.w}
	c.r, c.w = c.r.WithContext(ctx), w
	done := make(chan struct{})
	go func() {
		defer close(done)
		if why := a.await(ctx, c.r, verb, resource, at); why != nil {
			cancel(&revokedError{why})
			w.hangUp()
		}
	}()
	err := run()
	cancel(nil)
	<-done
	if revoked(ctx) != nil && !w.hijacked() {
		panic(http.ErrAbortHandler) // the status is sent: breaking off is the only way left to say it
	}
	return err
}

// revoked is why somebody may no longer, where that is what ended a request.
func revoked(ctx context.Context) error {
	if e, ok := errors.AsType[*revokedError](context.Cause(ctx)); ok {
		return e
	}
	return nil
}

// await returns why the request may no longer go on, or nil where it ends before.
func (a *api) await(ctx context.Context, r *http.Request, verb, resource string, at access.Where) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	var said *state.Access
	first := true
	for {
		var seq state.Seq
		var now *state.Access
		a.Controller.View(func(s *state.State) { seq, now = s.Seq, s.Access })
		if first || now != said {
			if err := a.still(r, verb, resource, at); err != nil {
				return err
			}
			said, first = now, false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.Controller.Changed(seq):
		case <-tick.C:
			first = true
		}
	}
}

func (a *api) still(r *http.Request, verb, resource string, at access.Where) error {
	user, err := a.Access.Authenticate(r)
	if err != nil {
		return err
	}
	return access.Authorize(a.govern(user), verb, resource, at)
}

// guarded remembers the connection that a stream takes over, to end it.
type guarded struct {
	http.ResponseWriter

	mu   sync.Mutex
	conn net.Conn
	over bool
}

// Unwrap is for http.ResponseController.
func (g *guarded) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// Flush implements http.Flusher.
func (g *guarded) Flush() { _ = http.NewResponseController(g.ResponseWriter).Flush() }

// Hijack implements http.Hijacker.
func (g *guarded) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn = conn
	if g.over {
		_ = conn.Close()
	}
	return conn, rw, nil
}

func (g *guarded) hijacked() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conn != nil
}

func (g *guarded) hangUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	if g.conn != nil {
		_ = g.conn.Close()
	}
}
