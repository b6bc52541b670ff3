package containerd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A call that its limit ended says so, also where the daemon, which has the same
// limit, was a moment earlier with words of its own.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := errors.New("context deadline exceeded: unknown")
		for after, none := range map[time.Duration]bool{time.Second: false, 9900 * time.Millisecond: true, time.Minute: true} {
			err := bounded(t.Context(), 10*time.Second, "signal", func(ctx context.Context) error {
				select {
				case <-time.After(after):
				case <-ctx.Done():
				}
				return theirs
			})
			if errors.Is(err, errNoAnswer) != none || errors.Is(err, theirs) == none {
				t.Errorf("an error after %s: %v", after, err)
			}
		}
	})
}
