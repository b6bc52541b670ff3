//go:build !linux

package bootclock

import "time"

// mostSleep is how late a Timer may fire after the machine has slept, where the
// system has none that goes on meanwhile.
const mostSleep = 100 * time.Millisecond

// A Timer fires at a time of this clock.
type Timer struct {
	C    <-chan struct{}
	c    chan struct{}
	stop chan struct{}
}

// NewTimer is a timer that isn't set.
func NewTimer() (*Timer, error) {
	c := make(chan struct{}, 1)
	return &Timer{C: c, c: c}, nil
}

// Set makes the timer fire at a time, and no longer at the one before; false:
// not at all.
func (t *Timer) Set(at time.Duration, on bool) error {
	if t.stop != nil {
		close(t.stop)
		t.stop = nil
	}
	if !on {
		return nil
	}
	stop := make(chan struct{})
	t.stop = stop
	go func() { // ends when set again, or closed, or fired
		for {
			left := at - Now()
			if left <= 0 {
				select {
				case t.c <- struct{}{}:
				default:
				}
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(min(left, mostSleep)):
			}
		}
	}()
	return nil
}

// Close ends the timer.
func (t *Timer) Close() error { return t.Set(0, false) }
