package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// api is the one TLS listener: the Kubernetes-shaped API and the agents' streams.
// It answers from the moment that it listens: until the server runs, that it is
// starting, and with what.
type api struct {
	listener net.Listener
	http     *http.Server
	ends     func() map[string]time.Time // of the certificates that are served with
	opening  *opening
	done     chan struct{} // closed when err is set
	err      error
}

func newAPI(s *Server) (*api, error) {
	o := &s.opts
	users, err := access.Open(o.Data)
	if err != nil {
		return nil, err
	}
	authority, err := join.OpenAuthority(o.Data)
	if err != nil {
		return nil, err
	}
	certificate, err := authority.Server(hosts(o.Listen))
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w; another address: --listen 127.0.0.1:0", err)
	}
	a := &api{listener: listener, opening: newOpening(), done: make(chan struct{}), ends: func() map[string]time.Time {
		return map[string]time.Time{"authority": authority.Ends(), "server": certificate.Ends()}
	}}
	if _, err := users.WriteKubeconfig(s.Kubeconfig(), "https://"+a.address(), authority.PEM()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	tokens := join.OpenTokens(o.Data, authority.Pin())
	s.lostTokens(tokens)
	streams := join.Handler(s.Hub, authority, tokens, s.joining, o.Logger)
	handler := kubeapi.New(kubeapi.Config{
		Controller: &signing{Controller: s.Controller, store: s.Data.Store}, Nodes: remoteNodes{s.Hub}, Past: s.Data.past(o.Data), Access: users, Logger: o.Logger, Version: o.Version,
		Look: s.look, Metrics: s.meter.Handler(o.Logger), Tokens: tokens,
	})
	hooks := s.hooks()
	a.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if a.opening.answer(w, r) {
				return
			}
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				streams.ServeHTTP(w, r)
				return
			}
			if strings.HasPrefix(r.URL.Path, hookPath) {
				hooks.ServeHTTP(w, r)
				return
			}
			handler.ServeHTTP(w, r)
		}),
		TLSConfig: authority.TLS(certificate), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(quiet{o.Logger}, "", 0),
	}
	go func() { // until close, or run's end
		defer close(a.done)
		a.err = a.http.ServeTLS(a.listener, "", "")
	}()
	return a, nil
}

func (a *api) address() string { return a.listener.Addr().String() }

// run serves until ctx ends; what still waits is cut off then.
func (a *api) run(ctx context.Context) error {
	a.opening.over()
	stop := context.AfterFunc(ctx, func() { _ = a.http.Close() })
	defer stop()
	<-a.done
	if errors.Is(a.err, http.ErrServerClosed) {
		return nil
	}
	return a.err
}

func (a *api) close() error {
	err := a.http.Close()
	if closed := a.listener.Close(); closed != nil && !errors.Is(closed, net.ErrClosed) {
		err = errors.Join(err, closed)
	}
	<-a.done
	return err
}

// hosts are the names and addresses that the API is reached by.
func hosts(listen string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	host, _, err := net.SplitHostPort(listen)
	if err == nil && host != "" && !slices.Contains(names, host) {
		names = append(names, host)
	}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		names = append(names, addresses()...)
	}
	return names
}

// addresses are this machine's own.
func addresses() []string {
	var out []string
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// quiet logs what net/http complains of: strangers' broken connections.
type quiet struct{ logger *slog.Logger }

// Write implements io.Writer.
func (q quiet) Write(p []byte) (int, error) {
	q.logger.LogAttrs(context.Background(), slog.LevelDebug, "closed a connection", slog.String("err", strings.TrimSpace(string(p))))
	return len(p), nil
}

// joining records that a node is about to be given a certificate, and then
// whether it was.
func (s *Server) joining(ctx context.Context, node state.NodeName, x join.Token) (outcome func(ok bool), err error) {
	cmd := &state.Command{Verb: state.CmdJoin, Object: state.Ref{Kind: "Node", Name: string(node)}, Hold: x.ID}
	reply, err := s.Controller.Do(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("record that node %s joins: %w: %w", node, err, runtimes.ErrUnavailable)
	}
	return func(ok bool) {
		told := &state.JoinTokenTold{Cause: reply.Seq, JoinTokenNoted: kubeapi.TokenNoted(x, state.TokenUsed)}
		told.Node = node
		if !ok {
			told.Outcome = state.TokenFailed
		}
		s.Controller.Submit(told)
	}, nil
}

// remoteNodes answers the API from the agents.
type remoteNodes struct{ hub *agent.Hub }

// Logs implements kubeapi.Nodes.
func (n remoteNodes) Logs(ctx context.Context, node state.NodeName, uid state.UID, container string, o kubeapi.LogOptions) (io.ReadCloser, error) {
	r := agent.LogRequest{UID: uid, Container: container, Follow: o.Follow, Previous: o.Previous, Times: o.Timestamps, Stream: o.Stream, Most: o.Limit}
	if !o.Since.IsZero() {
		r.Since = o.Since.UnixNano()
	}
	switch {
	case o.Tail == 0:
		r.Tail = -1 // none
	case o.Tail > 0:
		r.Tail = o.Tail
	}
	return n.hub.Logs(ctx, node, r)
}

// Exec implements kubeapi.Nodes.
func (n remoteNodes) Exec(ctx context.Context, node state.NodeName, uid state.UID, container string, x runtimes.Exec) (int, error) {
	return n.hub.Exec(ctx, node, agent.ExecRequest{UID: uid, Container: container, Exec: x})
}

// PortForward implements kubeapi.Nodes.
func (n remoteNodes) PortForward(ctx context.Context, node state.NodeName, uid state.UID, port uint16, conn io.ReadWriteCloser) error {
	return n.hub.PortForward(ctx, node, uid, port, conn)
}
