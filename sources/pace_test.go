package sources_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-gitops/tandem/sources"
)

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := sources.Pace{Interval: time.Minute, Longest: 10 * time.Minute}
		wait := func(hint <-chan struct{}) time.Duration {
			began := time.Now()
			if err := p.Wait(t.Context(), hint); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if got := wait(nil); got != 0 {
			t.Errorf("the first look waits %v", got)
		}
		p.Looked(nil)
		if got := wait(nil); got < 54*time.Second || got > 66*time.Second {
			t.Errorf("the next look waits %v", got)
		}
		want := time.Second
		for range 20 {
			p.Looked(errors.New("down"))
			if got := wait(nil); got < want*3/4 || got > want*5/4 {
				t.Errorf("a failed look waits %v, want about %v", got, want)
			}
			want = min(2*want, 10*time.Minute)
		}
		p.Looked(nil)
		hint := make(chan struct{}, 1)
		hint <- struct{}{}
		if got := wait(hint); got != 0 || p.Failing() {
			t.Errorf("after a hint it waits %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Wait(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with an ended context: %v", err)
		}
	})
}
