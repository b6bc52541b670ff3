package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Dial prepares the connection of an agent to a controller's address; it is
// made when a session is opened, and again when it broke. Config brings the
// node's certificate and trusts the controller's authority only.
func Dial(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: ReconnectMost},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(frameMost), grpc.MaxCallSendMsgSize(frameMost)))
}

// Remote is the link over a connection that Dial made.
func Remote(conn grpc.ClientConnInterface) Link { return remoteLink{conn} }

type remoteLink struct{ conn grpc.ClientConnInterface }

// classOfStatus makes an error of gRPC one of ours: the only place that knows
// its codes.
func classOfStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return lost(err)
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.InvalidArgument:
		return &remoteError{status.Convert(err).Message(), runtimes.ErrRejected}
	case codes.Unimplemented:
		return &remoteError{status.Convert(err).Message(), runtimes.ErrUnsupported}
	default:
		return lost(err)
	}
}

// Open says hello on a stream of its own and waits for the welcome.
func (l remoteLink) Open(ctx context.Context, hello Hello, peer Peer) (Session, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := l.conn.NewStream(ctx, streamDesc(sessionMethod), "/"+serviceName+"/"+sessionMethod)
	if err != nil {
		cancel()
		return nil, classOfStatus(err)
	}
	h := wireHello(hello)
	var down downFrame
	mine := spoken(hello.Facts.Agent)
	err = send(stream, &upFrame{Hello: &h, Speaks: mine})
	if err == nil || errors.Is(err, io.EOF) { // EOF: what was refused says the receipt
		err = receive(stream, &down)
	}
	if err == nil && down.Welcome == nil {
		err = fmt.Errorf("the controller did not answer hello: %w", runtimes.ErrUnsupported)
	}
	if err == nil {
		err = mine.understands(down.Speaks, "this agent", "the controller")
	}
	if err != nil {
		cancel()
		return nil, classOfStatus(err)
	}
	s := &remoteSession{
		conn: l.conn, ctx: ctx, cancel: cancel, stream: stream, peer: peer, welcome: Welcome(*down.Welcome), granted: time.Now(),
	}
	s.all.Go(s.receive)
	s.all.Go(s.listen)
	return s, nil
}

type remoteSession struct {
	conn    grpc.ClientConnInterface
	ctx     context.Context //nolint:containedctx // of the stream, which ends with it
	cancel  context.CancelFunc
	stream  grpc.ClientStream
	peer    Peer
	welcome Welcome
	all     sync.WaitGroup

	sending sync.Mutex // one at a time

	mu       sync.Mutex // guards what follows
	renewals uint64
	answered uint64
	granted  time.Time // when the newest was answered
}

func (s *remoteSession) Welcome() Welcome { return s.welcome }

func (s *remoteSession) Report(_ context.Context, r *state.Report) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return classOfStatus(send(s.stream, &upFrame{Report: r}))
}

// Renew sends a renewal.
func (s *remoteSession) Renew(_ context.Context, sent time.Duration) error {
	s.mu.Lock()
	s.renewals++
	number := s.renewals
	s.mu.Unlock()
	s.sending.Lock()
	defer s.sending.Unlock()
	return classOfStatus(send(s.stream, &upFrame{Renew: number, Sent: sent, Wall: time.Now().UnixNano()}))
}

// silence is for how long a controller that was asked hasn't answered.
func (s *remoteSession) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered >= s.renewals {
		return 0
	}
	return time.Since(s.granted)
}

// listen ends a session whose controller answers no renewal for as long as a
// lease: the stream is half open. It is no part of Renew, which may wait for the
// other end to take what was sent before.
func (s *remoteSession) listen() {
	limit := s.welcome.Lease
	if limit <= 0 {
		return
	}
	tick := time.NewTicker(max(limit/20, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		if silent := s.silence(); silent > limit {
			s.peer.Lost(fmt.Errorf("the controller has not answered for %v: %w", silent.Round(time.Second), runtimes.ErrUnavailable))
			s.cancel() // who sends waits no more
			return
		}
	}
}

func (s *remoteSession) Close() {
	s.cancel()
	s.all.Wait()
}

func (s *remoteSession) receive() {
	var x decoder
	var network *state.Network
	for {
		var down downFrame
		if err := receive(s.stream, &down); err != nil {
			s.peer.Lost(classOfStatus(err))
			return
		}
		switch {
		case down.Delta != nil:
			a, err := x.decode(down.Delta)
			if err != nil {
				s.peer.Lost(err) // the next session begins with a whole one
				return
			}
			s.peer.Assign(a)
		case down.Network != nil:
			n, err := decodeNetwork(network, down.Network)
			if err != nil {
				s.peer.Lost(err)
				return
			}
			network = n
			if p, ok := s.peer.(NetworkPeer); ok {
				p.Network(n)
			}
		case down.Grant != nil:
			if p, ok := s.peer.(GrantPeer); ok {
				g := down.Grant
				p.Grant(state.Grant{Sent: g.Sent, Epoch: g.Epoch, Generation: g.Generation, Endless: g.Endless})
			}
		case down.Granted != 0:
			s.mu.Lock()
			s.answered, s.granted = down.Granted, time.Now()
			s.mu.Unlock()
			if p, ok := s.peer.(HeadPeer); ok && down.Head != nil {
				p.Head(*down.Head)
			}
		case down.Resync:
			s.peer.Resync()
		case down.Open != nil:
			open := down.Open
			s.all.Go(func() { s.serve(open) })
		}
	}
}

// serve answers one request of the controller on a stream of its own.
func (s *remoteSession) serve(open *wireOpen) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stream, err := s.conn.NewStream(ctx, streamDesc(tunnelMethod), "/"+serviceName+"/"+tunnelMethod)
	if err != nil {
		return // the session is about to be lost, and the request with it
	}
	p := newPump(stream)
	defer context.AfterFunc(p.over, cancel)() // the other end has gone: so does what it asked for
	t := &tunnel{stream: p}
	if err := t.send(&chunk{ID: open.ID, Channel: chanBegin}); err != nil {
		return
	}
	end := chunk{Channel: chanEnd}
	switch {
	case open.Logs != nil:
		end.fail(s.serveLogs(ctx, t, open.Logs))
	case open.Exec != nil:
		code, err := s.serveExec(ctx, t, open.Exec)
		end.Code = int64(code)
		end.fail(err)
	case open.Port != nil:
		conn := &tunnelConn{t: t, out: chanStdout, in: chanStdin}
		end.fail(s.peer.PortForward(ctx, open.Port.UID, uint16(open.Port.Port), conn))
	default:
		end.fail(fmt.Errorf("this agent doesn't know the request, it is older than the controller: %w", runtimes.ErrUnsupported))
	}
	close(p.stop)
	if t.send(&end) == nil && stream.CloseSend() == nil {
		select { // until the controller has read everything
		case <-p.over.Done():
		case <-ctx.Done():
		}
	}
}

func (s *remoteSession) serveLogs(ctx context.Context, t *tunnel, r *LogRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	logs, err := s.peer.Logs(ctx, *r)
	if err != nil {
		return err
	}
	go func() { // the reader's end says when it has enough
		defer cancel()
		_ = receive(t.stream, &chunk{})
	}()
	_, err = io.Copy(&chunkWriter{t, chanStdout}, logs)
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, logs.Close())
}

func (s *remoteSession) serveExec(ctx context.Context, t *tunnel, w *wireExec) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := runtimes.Exec{Command: w.Command, TTY: w.TTY}
	if w.Stdout {
		x.Stdout = &chunkWriter{t, chanStdout}
	}
	if w.Stderr {
		x.Stderr = &chunkWriter{t, chanStderr}
	}
	in, feed := io.Pipe()
	if w.Stdin {
		x.Stdin = in
	}
	resize := make(chan runtimes.Size, 1)
	x.Resize = resize
	go func() {
		defer close(resize)
		for {
			var c chunk
			if err := receive(t.stream, &c); err != nil {
				_ = feed.Close()
				cancel() // nobody listens any more
				return
			}
			switch c.Channel {
			case chanStdin:
				if _, err := feed.Write(c.Data); err != nil {
					continue
				}
			case chanEnd:
				_ = feed.Close()
			case chanResize:
				select {
				case resize <- runtimes.Size{Width: uint16(c.Width), Height: uint16(c.Height)}:
				case <-ctx.Done():
				}
			case chanBegin, chanStdout, chanStderr, chanHalf:
			}
		}
	}()
	code, err := s.peer.Exec(ctx, ExecRequest{UID: w.UID, Container: w.Container, Exec: x})
	return code, errors.Join(err, in.Close())
}
