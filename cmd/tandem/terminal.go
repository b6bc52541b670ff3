package main

import (
	"golang.org/x/term"
	"k8s.io/client-go/tools/remotecommand"
)

// terminal tells the size of a terminal at the start, and when it changes.
type terminal struct {
	fd    int
	first bool
	hints <-chan struct{} // it may have changed; closed at the end
	last  remotecommand.TerminalSize
}

// terminalSizes follows a terminal until stop.
func terminalSizes(fd int) (t *terminal, stop func()) {
	hints, stop := resized()
	return &terminal{fd: fd, first: true, hints: hints}, stop
}

// Next implements remotecommand.TerminalSizeQueue.
func (t *terminal) Next() *remotecommand.TerminalSize {
	for {
		if !t.first {
			if _, ok := <-t.hints; !ok {
				return nil
			}
		}
		t.first = false
		w, h, err := term.GetSize(t.fd)
		if err != nil {
			return nil
		}
		if now := (remotecommand.TerminalSize{Width: uint16(w), Height: uint16(h)}); now != t.last {
			t.last = now
			return &now
		}
	}
}
