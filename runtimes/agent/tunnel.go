package agent

import (
	"context"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A pump receives a stream's frames in one place, so that any number may wait
// for them, and its end can be waited for.
type pump struct {
	messenger

	frames chan *wrapperspb.BytesValue
	over   context.Context //nolint:containedctx // ends when the stream has
	end    context.CancelFunc
	stop   chan struct{} // closed when nobody receives any more
}

func newPump(m messenger) *pump {
	p := &pump{messenger: m, frames: make(chan *wrapperspb.BytesValue), stop: make(chan struct{})}
	p.over, p.end = context.WithCancel(context.Background())
	go p.run()
	return p
}

// run ends with the stream.
func (p *pump) run() {
	defer p.end()
	for {
		b := &wrapperspb.BytesValue{}
		if err := p.messenger.RecvMsg(b); err != nil {
			return
		}
		select {
		case p.frames <- b:
		case <-p.stop:
		}
	}
}

// RecvMsg gives the next frame.
func (p *pump) RecvMsg(m any) error {
	select {
	case b := <-p.frames:
		proto.Merge(m.(proto.Message), b)
		return nil
	case <-p.over.Done():
		return io.EOF
	}
}

// A tunnel is one stream; several may write to it.
type tunnel struct {
	stream messenger
	mu     sync.Mutex
}

func (t *tunnel) send(c *chunk) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return send(t.stream, c)
}

// A chunkWriter writes to one channel of a tunnel.
type chunkWriter struct {
	t  *tunnel
	ch channel
}

// Write sends b in chunks.
func (w *chunkWriter) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		part := b[:min(len(b), chunkMost)]
		if err := w.t.send(&chunk{Channel: w.ch, Data: part}); err != nil {
			return n, err
		}
		n += len(part)
		b = b[len(part):]
	}
	return n, nil
}

// A tunnelConn is a tunnel as a connection: a port's bytes both ways.
type tunnelConn struct {
	t       *tunnel
	out, in channel
	rest    []byte
	err     error
	once    sync.Once

	mu    sync.Mutex
	ended error // what the other end said at its end
}

func (c *tunnelConn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Read gives what the other end wrote.
func (c *tunnelConn) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		var x chunk
		if err := receive(c.t.stream, &x); err != nil {
			c.err = io.EOF
			continue
		}
		switch x.Channel {
		case c.in:
			c.rest = x.Data
		case chanEnd:
			c.mu.Lock()
			c.ended = x.err()
			c.mu.Unlock()
			c.err = io.EOF
		case chanHalf:
			c.err = io.EOF
		default:
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write sends b to the other end.
func (c *tunnelConn) Write(b []byte) (int, error) { return (&chunkWriter{c.t, c.out}).Write(b) }

// CloseWrite says that no more comes from this end.
func (c *tunnelConn) CloseWrite() error {
	var err error
	c.once.Do(func() { err = c.t.send(&chunk{Channel: chanHalf}) })
	return err
}

// Close leaves the end to the request, which has a result to tell.
func (c *tunnelConn) Close() error { return nil }
