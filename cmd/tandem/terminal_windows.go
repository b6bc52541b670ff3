package main

import (
	"sync"
	"time"
)

// resizeEvery is how often the size is looked at: Windows sends no signal.
const resizeEvery = 250 * time.Millisecond

// resized hints that the terminal may have another size, until stop.
func resized() (<-chan struct{}, func()) {
	hints, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(hints)
		tick := time.NewTicker(resizeEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			select {
			case hints <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return hints, sync.OnceFunc(func() { close(done) })
}
