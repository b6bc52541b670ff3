//go:build !windows

package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// resized hints that the terminal may have another size, until stop.
func resized() (<-chan struct{}, func()) {
	signals, hints, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, syscall.SIGWINCH)
	go func() {
		defer close(hints)
		for {
			select {
			case <-signals:
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
	return hints, sync.OnceFunc(func() { signal.Stop(signals); close(done) })
}
