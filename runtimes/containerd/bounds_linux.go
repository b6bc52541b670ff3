package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long others may take to answer. They do in milliseconds; what takes longer
// than this is stuck, and waiting on would hang the node with it.
const (
	shimAnswers  = 10 * time.Second // a shim, or runc
	shimNotices  = 2 * time.Second  // until a shim notices that its process has ended
	shimSilent   = 15 * time.Second // until a shim that answers "unknown" is given up
	storeAnswers = 30 * time.Second // containerd itself: its disk may be busy
	helloAnswers = 10 * time.Second // containerd's first word on a new connection
	dialLimit    = 90 * time.Second // to take over a node, all in all
)

// errNoAnswer is the cause of a call that was given up.
var errNoAnswer = errors.New("no answer")

// bounded gives f a limit. Where f fails because of it, the error says what was
// waited for, and how long.
func bounded(ctx context.Context, limit time.Duration, what string, f func(context.Context) error) error {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	err := f(inner)
	// The daemon is told of the limit, and may be the first to give up.
	over := inner.Err() != nil || time.Since(begin) > limit-limit/20
	switch {
	case err == nil:
		return nil
	case over && ctx.Err() == nil:
		return fmt.Errorf("%s: %w within %s", what, errNoAnswer, limit)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// sleep waits, and says false when ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
