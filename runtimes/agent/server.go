package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Register puts the controller's end of the wire on a gRPC server. Identify
// says which node a call comes from, by its certificate: an agent speaks for
// no other.
func (h *Hub) Register(s grpc.ServiceRegistrar, identify func(context.Context) (state.NodeName, error)) {
	w := &wireHub{hub: h, identify: identify, waiting: map[uint64]*waitingTunnel{}}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil), Metadata: "runtimes/agent/frames.go",
		Streams: []grpc.StreamDesc{
			{StreamName: sessionMethod, ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return w.session(s) }},
			{StreamName: tunnelMethod, ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return w.tunnel(s) }},
		},
	}, w)
}

type wireHub struct {
	hub      *Hub
	identify func(context.Context) (state.NodeName, error)

	mu      sync.Mutex
	ids     uint64
	waiting map[uint64]*waitingTunnel
}

type waitingTunnel struct {
	node  state.NodeName
	begun chan *tunnel
	done  chan struct{} // closed when the request has ended
}

func statusOf(err error) error {
	code := codes.Unavailable
	switch {
	case err == nil:
		return nil
	case errors.Is(err, runtimes.ErrRejected):
		code = codes.FailedPrecondition
	case errors.Is(err, runtimes.ErrUnsupported):
		code = codes.Unimplemented
	}
	return status.Error(code, err.Error())
}

func (w *wireHub) session(stream grpc.ServerStream) error {
	ctx := stream.Context()
	node, err := w.identify(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	var up upFrame
	if err := receive(stream, &up); err != nil {
		return err
	}
	if up.Hello == nil {
		return status.Error(codes.InvalidArgument, "a session begins with hello")
	}
	if up.Hello.Node != node {
		return status.Errorf(codes.PermissionDenied, "the certificate is node %s's, hello says %s", node, up.Hello.Node)
	}
	mine := spoken(w.hub.cfg.Version)
	if err := mine.understands(up.Speaks, "this controller", "the agent of node "+string(node)); err != nil {
		return statusOf(err)
	}
	peer := &wirePeer{hub: w, node: node, ctx: ctx, hint: make(chan struct{}, 1), lost: make(chan error, 1)}
	peer.encoder.cache = &w.hub.templates
	p, err := w.hub.attach(Hello(*up.Hello), peer)
	if err != nil {
		return statusOf(err)
	}
	defer p.Close()
	p.note(func(s *SessionStatus) { s.CertificateEnds = certificateEnd(ctx) })
	welcome := wireWelcome(p.welcome)
	if err := send(stream, &downFrame{Welcome: &welcome, Speaks: mine}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- w.listen(ctx, stream, p, peer) }() // ends with the stream
	for {
		if err := peer.flush(stream); err != nil {
			return statusOf(lost(err))
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return statusOf(lost(err))
		case err := <-peer.lost:
			return statusOf(err)
		case <-peer.hint:
		}
	}
}

// listen takes in what the agent says.
func (w *wireHub) listen(ctx context.Context, stream messenger, p *port, peer *wirePeer) error {
	for {
		var up upFrame
		if err := receive(stream, &up); err != nil {
			return err
		}
		var err error
		switch {
		case up.Report != nil && up.Report.Node != p.node:
			err = fmt.Errorf("node %s reports for %s: %w", p.node, up.Report.Node, runtimes.ErrRejected)
		case up.Report != nil:
			err = p.Report(ctx, up.Report)
		case up.Renew != 0:
			err = p.Renew(ctx, up.Sent)
			if now := time.Now(); up.Wall != 0 {
				p.note(func(s *SessionStatus) { s.ClockAhead = time.Unix(0, up.Wall).Sub(now) })
			}
			peer.put(func() { peer.granted = up.Renew })
		}
		if err != nil {
			return err
		}
	}
}

// tunnel hands a stream that an agent opened to the request that waits for it.
func (w *wireHub) tunnel(stream grpc.ServerStream) error {
	node, err := w.identify(stream.Context())
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	var c chunk
	if err := receive(stream, &c); err != nil {
		return err
	}
	w.mu.Lock()
	t := w.waiting[c.ID]
	if t != nil && t.node == node {
		delete(w.waiting, c.ID)
	} else {
		t = nil
	}
	w.mu.Unlock()
	if t == nil {
		return status.Error(codes.NotFound, "nobody waits for this tunnel")
	}
	t.begun <- &tunnel{stream: stream}
	select {
	case <-t.done:
	case <-stream.Context().Done():
	}
	return nil
}

// A wirePeer is an agent beyond the wire, as the hub sees it.
type wirePeer struct {
	hub  *wireHub
	node state.NodeName
	ctx  context.Context //nolint:containedctx // of the stream that the peer is
	hint chan struct{}
	lost chan error

	encoder encoder        // of the sender alone
	sent    *state.Network // likewise

	mu      sync.Mutex
	newest  *state.Assignment
	network *state.Network
	opens   []*wireOpen
	granted uint64
	grants  []wireGrant
	resync  bool
}

func (p *wirePeer) put(change func()) {
	p.mu.Lock()
	change()
	p.mu.Unlock()
	select {
	case p.hint <- struct{}{}:
	default:
	}
}

// Assign keeps the newest for the sender.
func (p *wirePeer) Assign(a *state.Assignment) { p.put(func() { p.newest = a }) }

// Network keeps the newest for the sender.
func (p *wirePeer) Network(n *state.Network) { p.put(func() { p.network = n }) }

// Grant keeps a lease for the sender.
func (p *wirePeer) Grant(g state.Grant) {
	p.put(func() { p.grants = append(p.grants, wireGrant{g.Sent, g.Epoch, g.Generation, g.Endless}) })
}

// Resync asks for a full report.
func (p *wirePeer) Resync() { p.put(func() { p.resync = true }) }

// Lost ends the stream.
func (p *wirePeer) Lost(err error) {
	select {
	case p.lost <- err:
	default:
	}
}

// flush sends what has come up since the last time.
func (p *wirePeer) flush(stream messenger) error {
	p.mu.Lock()
	newest, opens, granted, resync := p.newest, p.opens, p.granted, p.resync
	network, grants := p.network, p.grants
	p.newest, p.network, p.opens, p.grants, p.granted, p.resync = nil, nil, nil, nil, 0, false
	p.mu.Unlock()
	if newest != nil && newest != p.encoder.last {
		d, err := p.encoder.encode(newest)
		if err != nil {
			return err
		}
		if err := send(stream, &downFrame{Delta: d}); err != nil {
			return err
		}
	}
	if network != nil && network != p.sent {
		if err := send(stream, &downFrame{Network: encodeNetwork(p.sent, network)}); err != nil {
			return err
		}
		p.sent = network
	}
	for i := range grants { // after the assignment that they were given for
		if err := send(stream, &downFrame{Grant: &grants[i]}); err != nil {
			return err
		}
	}
	if granted != 0 {
		f := &downFrame{Granted: granted}
		if p.hub.hub.cfg.Head != nil {
			head := p.hub.hub.cfg.Head()
			f.Head = &head
		}
		if err := send(stream, f); err != nil {
			return err
		}
	}
	if resync {
		if err := send(stream, &downFrame{Resync: true}); err != nil {
			return err
		}
	}
	for _, o := range opens {
		if err := send(stream, &downFrame{Open: o}); err != nil {
			return err
		}
	}
	return nil
}

// open asks the agent for a tunnel and waits for it. Whoever gets it calls done.
func (p *wirePeer) open(ctx context.Context, o *wireOpen) (t *tunnel, done func(), err error) {
	w := &waitingTunnel{node: p.node, begun: make(chan *tunnel, 1), done: make(chan struct{})}
	p.hub.mu.Lock()
	p.hub.ids++
	o.ID = p.hub.ids
	p.hub.waiting[o.ID] = w
	p.hub.mu.Unlock()
	done = func() {
		p.hub.mu.Lock()
		delete(p.hub.waiting, o.ID)
		p.hub.mu.Unlock()
		close(w.done)
	}
	p.put(func() { p.opens = append(p.opens, o) })
	select {
	case t := <-w.begun:
		return t, done, nil
	case <-ctx.Done():
		done()
		return nil, nil, ctx.Err()
	case <-p.ctx.Done():
		done()
		return nil, nil, fmt.Errorf("node %s disconnected: %w", p.node, runtimes.ErrUnavailable)
	}
}

// Logs reads a container's output through a tunnel.
func (p *wirePeer) Logs(ctx context.Context, r LogRequest) (io.ReadCloser, error) {
	t, done, err := p.open(ctx, &wireOpen{Logs: &r})
	if err != nil {
		return nil, err
	}
	// The first chunk says whether there are any: an error belongs to the call.
	var first chunk
	if err := receive(t.stream, &first); err != nil {
		done()
		return nil, lost(err)
	}
	if err := first.err(); err != nil {
		done()
		return nil, err
	}
	out, in := io.Pipe()
	go func() {
		c := first
		for c.Channel == chanStdout {
			if _, err := in.Write(c.Data); err != nil {
				return // the reader has enough
			}
			c = chunk{}
			if err := receive(t.stream, &c); err != nil {
				_ = in.CloseWithError(lost(err))
				return
			}
		}
		_ = in.CloseWithError(errors.Join(c.err(), nil))
	}()
	l := &logReader{PipeReader: out, done: sync.OnceFunc(done)}
	l.stop = context.AfterFunc(ctx, func() {
		_ = in.CloseWithError(io.EOF)
		l.done()
	})
	return l, nil
}

type logReader struct {
	*io.PipeReader
	done func()
	stop func() bool
}

// Close ends the stream at both ends.
func (l *logReader) Close() error {
	l.stop()
	err := l.PipeReader.Close()
	l.done()
	return err
}

// Exec runs a command through a tunnel.
func (p *wirePeer) Exec(ctx context.Context, r ExecRequest) (int, error) {
	t, done, err := p.open(ctx, &wireOpen{Exec: &wireExec{
		UID: r.UID, Container: r.Container, Command: r.Command, TTY: r.TTY, Stdin: r.Stdin != nil, Stdout: r.Stdout != nil,
		Stderr: r.Stderr != nil,
	}})
	if err != nil {
		return 0, err
	}
	done = sync.OnceFunc(done)
	defer done()
	defer context.AfterFunc(ctx, done)()
	if r.Stdin != nil {
		go func() { // ends with its reader or its stream
			_, _ = io.Copy(&chunkWriter{t, chanStdin}, r.Stdin)
			_ = t.send(&chunk{Channel: chanEnd})
		}()
	}
	ended := make(chan struct{})
	defer close(ended)
	if r.Resize != nil {
		go resizing(t, r.Resize, ended)
	}
	for {
		var c chunk
		if err := receive(t.stream, &c); err != nil {
			return 0, errors.Join(ctx.Err(), lost(err))
		}
		var err error
		switch c.Channel {
		case chanStdout:
			if r.Stdout != nil {
				_, err = r.Stdout.Write(c.Data)
			}
		case chanStderr:
			if r.Stderr != nil {
				_, err = r.Stderr.Write(c.Data)
			}
		case chanEnd:
			return int(c.Code), c.err()
		case chanBegin, chanStdin, chanResize, chanHalf:
		}
		if err != nil {
			return 0, err
		}
	}
}

func resizing(t *tunnel, sizes <-chan runtimes.Size, ended <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || t.send(&chunk{Channel: chanResize, Width: uint32(size.Width), Height: uint32(size.Height)}) != nil {
				return
			}
		case <-ended:
			return
		}
	}
}

// PortForward joins conn to a port of a pod through a tunnel.
func (p *wirePeer) PortForward(ctx context.Context, uid state.UID, port uint16, conn io.ReadWriteCloser) error {
	t, done, err := p.open(ctx, &wireOpen{Port: &wirePort{UID: uid, Port: uint32(port)}})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer done()
	c := &tunnelConn{t: t, out: chanStdin, in: chanStdout}
	return errors.Join(join(ctx, conn, c), c.failure())
}
