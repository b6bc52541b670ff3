package sources

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pace says when to look again: every Interval while looking succeeds, less and
// less often while it fails. Both carry jitter, so that a thousand sources that
// one outage made fail together don't come back together. It is not safe for
// concurrent use.
type Pace struct {
	Interval time.Duration // between looks that succeed
	Longest  time.Duration // between looks that fail; the first is tried after a second

	failures int
	next     time.Time
}

// firstBackOff is the wait after the first failure.
const firstBackOff = time.Second

// Wait waits until it is time to look, for a hint that there is something to
// see, or for ctx.
func (p *Pace) Wait(ctx context.Context, hint <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	wait := time.Until(p.next)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-hint:
	case <-timer.C:
	}
	return nil
}

// Looked tells how the look went.
func (p *Pace) Looked(err error) {
	if err == nil {
		p.failures = 0
		p.next = time.Now().Add(jitter(p.Interval, 10))
		return
	}
	p.failures++
	back := firstBackOff << min(p.failures-1, 20)
	p.next = time.Now().Add(jitter(min(back, p.Longest), 25))
}

// jitter is d, give or take the percentage.
func jitter(d time.Duration, percent int64) time.Duration {
	span := int64(d) * percent / 100
	if span <= 0 {
		return d
	}
	return d - time.Duration(span) + time.Duration(rand.Int64N(2*span+1))
}

// Failing says whether the last look failed.
func (p *Pace) Failing() bool { return p.failures > 0 }
