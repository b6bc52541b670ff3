package join_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

type controller struct {
	authority *join.Authority
	tokens    *join.Tokens
	address   string
	hub       *agent.Hub
	hellos    chan state.NodeName
	serving   *join.Serving
	server    *grpc.Server

	mu       sync.Mutex
	recorded []string // by the ledger
	refuses  bool
}

func (c *controller) ledger(_ context.Context, node state.NodeName, token join.Token) (func(bool), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuses {
		return nil, fmt.Errorf("the log is full: %w", runtimes.ErrUnavailable)
	}
	said := fmt.Sprintf("%s by %q of %s, %d left", node, token.Node, token.By, token.Uses)
	c.recorded = append(c.recorded, said)
	return func(ok bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.recorded = append(c.recorded, fmt.Sprint(ok))
	}, nil
}

func newController(t *testing.T) *controller {
	t.Helper()
	dir := t.TempDir()
	a, err := join.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := join.OpenAuthority(dir)
	if err != nil || again.Pin() != a.Pin() {
		t.Fatalf("a second start made another authority: %v", err)
	}
	c := &controller{authority: a, tokens: join.OpenTokens(dir, a.Pin()), hellos: make(chan state.NodeName, 10)}
	cert, err := a.Server([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c.serving = cert
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(a.TLS(cert))))
	c.server = s
	join.Register(s, a, c.tokens, c.ledger, slog.New(slog.DiscardHandler))
	c.hub = agent.NewHub(agent.HubConfig{Submit: func(events ...state.Event) {
		for _, e := range events {
			if h, ok := e.(*state.NodeHello); ok {
				c.hellos <- h.Node
			}
		}
	}})
	c.hub.Register(s, join.Identify)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c.address = l.Addr().String()
	return c
}

func (c *controller) token(t *testing.T, life time.Duration, uses int, node state.NodeName) string {
	t.Helper()
	x, text, err := c.tokens.Draw("rita", life, uses, node)
	if err == nil {
		err = c.tokens.Keep(x)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

type silent struct{ agent.Peer }

func (silent) Lost(error)               {}
func (silent) Assign(*state.Assignment) {}

func dial(t *testing.T, c *controller, dir string) *grpc.ClientConn {
	t.Helper()
	config, err := join.TLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := agent.Dial(c.address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestTokenBuysACertificate(t *testing.T) {
	c, dir := newController(t), t.TempDir()
	if err := join.Join(t.Context(), c.address, c.token(t, time.Hour, 1, ""), "n1", dir); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, c, dir)
	s, err := agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n1"}, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-c.hellos; got != "n1" {
		t.Errorf("hello of %s", got)
	}
	s.Close()
	if _, err := agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n2"}, silent{}); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("n1 says it is n2: %v, want ErrRejected", err)
	}

	before, err := os.ReadFile(filepath.Join(dir, "node.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := join.Renew(t.Context(), conn, dir); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "node.pem"))
	if err != nil || string(after) == string(before) {
		t.Errorf("renewal changed nothing: %v", err)
	}
	s, err = agent.Remote(dial(t, c, dir)).Open(t.Context(), agent.Hello{Node: "n1"}, silent{})
	if err != nil {
		t.Fatalf("with the renewed certificate: %v", err)
	}
	s.Close()
}

// Who joins is recorded before there is a certificate, and whether there is one
// after; where it can't be recorded there is none.
func TestJoinIsRecordedFirst(t *testing.T) {
	c := newController(t)
	token := c.token(t, time.Hour, 3, "n1")
	if err := join.Join(t.Context(), c.address, token, "n1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if want := []string{`n1 by "n1" of rita, 2 left`, "true"}; !slices.Equal(c.recorded, want) {
		t.Errorf("recorded %q, want %q", c.recorded, want)
	}
	c.refuses = true
	dir := t.TempDir()
	if err := join.Join(t.Context(), c.address, token, "n1", dir); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("a join that can't be recorded: %v, want ErrUnavailable", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node.pem")); err == nil {
		t.Error("it has a certificate all the same")
	}
	once := c.token(t, time.Hour, 1, "n2")
	if err := join.Join(t.Context(), c.address, once, "n2", dir); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("a join that can't be recorded: %v, want ErrUnavailable", err)
	}
	c.refuses = false
	if err := join.Join(t.Context(), c.address, once, "n2", dir); err != nil {
		t.Errorf("the token was spent though nothing could be recorded: %v", err)
	}
	c.recorded = nil
	if err := join.Join(t.Context(), c.address, once, "n2", dir); !errors.Is(err, runtimes.ErrRejected) || len(c.recorded) > 0 {
		t.Errorf("its second use: %v, recorded %q", err, c.recorded)
	}
}

// A token for one use, shown by many at once: one gets a certificate, and each that was
// recorded has an outcome.
func TestOneUseIsOneCertificate(t *testing.T) {
	c := newController(t)
	once := c.token(t, time.Hour, 1, "")
	var wg sync.WaitGroup
	var got atomic.Int32
	for i := range 8 {
		dir := t.TempDir()
		wg.Go(func() {
			switch err := join.Join(t.Context(), c.address, once, state.NodeName(fmt.Sprint("n", i)), dir); {
			case err == nil:
				got.Add(1)
			case !errors.Is(err, runtimes.ErrRejected):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ok, failed := 0, 0
	for _, line := range c.recorded {
		switch line {
		case "true":
			ok++
		case "false":
			failed++
		}
	}
	if got.Load() != 1 || ok != 1 || ok+failed != len(c.recorded)-ok-failed {
		t.Errorf("%d certificates, recorded %q", got.Load(), c.recorded)
	}
}

// A controller that runs for years serves with a certificate that is good.
func TestServerRenewsItsCertificate(t *testing.T) {
	c := newController(t)
	first := c.serving.Ends()
	c.serving.Pass(join.ServerLife * 3 / 5)
	if err := join.Join(t.Context(), c.address, c.token(t, time.Hour, 1, ""), "n1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if !c.serving.Ends().Equal(first) {
		t.Error("renewed though more than a third of its time was left")
	}
	c.serving.Pass(join.ServerLife / 10)
	config := &tls.Config{RootCAs: c.authority.Pool(), MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Time: func() time.Time { return first.Add(time.Hour) }}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", c.address)
	if err != nil {
		t.Fatalf("after the end of the first certificate: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestTokensAreRefused(t *testing.T) {
	c, other := newController(t), newController(t)
	used := c.token(t, time.Hour, 1, "")
	if err := join.Join(t.Context(), c.address, used, "n1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	revoked := c.token(t, time.Hour, 0, "")
	if err := c.tokens.Revoke(strings.Split(revoked, ".")[1]); err != nil {
		t.Fatal(err)
	}
	good := c.token(t, time.Hour, 0, "")
	parts := strings.Split(good, ".")
	parts[2] = strings.Repeat("0", len(parts[2]))
	for name, token := range map[string]string{
		"used up": used, "revoked": revoked, "expired": c.token(t, -time.Second, 0, ""), "of another node": c.token(t, time.Hour, 0, "n9"),
		"wrong secret": strings.Join(parts, "."), "no token": "hello",
	} {
		if err := join.Join(t.Context(), c.address, token, "n2", t.TempDir()); !errors.Is(err, runtimes.ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		} else if strings.Count(err.Error(), "rejected") != 1 {
			t.Errorf("%s: %v: the class is said twice", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := join.Join(ctx, other.address, good, "n2", t.TempDir()); err == nil {
		t.Error("a server that the token doesn't pin got it")
	}
	if err := join.Join(t.Context(), c.address, good, "n2", t.TempDir()); err != nil {
		t.Errorf("a token of many uses: %v", err)
	}
	if err := join.Join(t.Context(), c.address, good, "../n2", t.TempDir()); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("a bad node name: %v", err)
	}
}

func TestNoCertificateNoSession(t *testing.T) {
	c := newController(t)
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(c.authority.Pool(), "")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n1"}, silent{}); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("a session without a certificate: %v, want ErrRejected", err)
	}
}

// age writes a certificate of this authority for n1 that ended a while ago.
func age(t *testing.T, c *controller, dir string, ago time.Duration) {
	t.Helper()
	if err := join.Join(t.Context(), c.address, c.token(t, time.Hour, 1, ""), "n1", dir); err != nil {
		t.Fatal(err)
	}
	pem, key, err := c.authority.Aged("n1", ago)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node.pem"), append(pem, key...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLongOffline: a certificate that expired while the machine was off buys the
// next one by its key, within a bound; later it takes a token, and so does a
// certificate of another controller.
func TestLongOffline(t *testing.T) {
	c, dir := newController(t), t.TempDir()
	age(t, c, dir, 24*time.Hour)
	if _, err := agent.Remote(dial(t, c, dir)).Open(t.Context(), agent.Hello{Node: "n1"}, silent{}); err == nil {
		t.Fatal("an expired certificate opens a session")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go join.KeepFresh(ctx, dial(t, c, dir), c.address, dir, slog.New(slog.DiscardHandler))
	for until, err := join.GoodUntil(dir); err != nil || time.Until(until) < 0; until, err = join.GoodUntil(dir) {
		select {
		case <-ctx.Done():
			t.Fatalf("no new certificate: %s, %v", until, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	s, err := agent.Remote(dial(t, c, dir)).Open(t.Context(), agent.Hello{Node: "n1"}, silent{})
	if err != nil {
		t.Fatalf("with the new certificate: %v", err)
	}
	s.Close()

	age(t, c, dir, join.RejoinLimit+time.Hour)
	if err := join.Rejoin(t.Context(), c.address, dir); !errors.Is(err, runtimes.ErrRejected) || !strings.Contains(err.Error(), "tandem agent token create") {
		t.Errorf("too late: %v, want ErrRejected and the remedy", err)
	}
	if err := c.authority.RefusesRejoin("n1", join.RejoinLimit+time.Hour, false); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("the controller takes one that is too late: %v", err)
	}
	if err := c.authority.RefusesRejoin("n1", time.Hour, true); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("the controller takes a proof of another key: %v", err)
	}
	if err := newController(t).authority.RefusesRejoin("n1", time.Hour, false); err != nil {
		t.Errorf("a good one is refused: %v", err)
	}
}

// TestEveryCallOfAgents: each call that agents can make, by somebody without anything to
// show and by a node. A call that is new and has no row fails it.
func TestEveryCallOfAgents(t *testing.T) {
	c := newController(t)
	dir := t.TempDir()
	if err := join.Join(t.Context(), c.address, c.token(t, time.Hour, 1, ""), "n1", dir); err != nil {
		t.Fatal(err)
	}
	config, err := join.TLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &tls.Config{RootCAs: c.authority.Pool(), MinVersion: tls.VersionTLS13}
	type row struct {
		node bool // may with its certificate
	}
	table := map[string]row{
		"/tandem.agent.v1.Join/Join":     {}, // a token is all that counts
		"/tandem.agent.v1.Join/Rejoin":   {}, // an expired certificate, and its key's proof
		"/tandem.agent.v1.Join/Renew":    {node: true},
		"/tandem.agent.v1.Agent/Session": {node: true},
		"/tandem.agent.v1.Agent/Tunnel":  {node: true},
	}
	for service, info := range c.server.GetServiceInfo() {
		for _, m := range info.Methods {
			method := "/" + service + "/" + m.Name
			x, ok := table[method]
			if !ok {
				t.Errorf("%s has no row: who may call it?", method)
				continue
			}
			for who, tls := range map[string]*tls.Config{"a stranger": stranger, "a node": config} {
				conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(tls)))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				in, out := wrapperspb.Bytes(nil), &wrapperspb.BytesValue{}
				if m.IsClientStream {
					var stream grpc.ClientStream
					if stream, err = conn.NewStream(ctx, &grpc.StreamDesc{StreamName: m.Name, ServerStreams: true, ClientStreams: true}, method); err == nil {
						_ = stream.SendMsg(in)
						_ = stream.CloseSend()
						err = stream.RecvMsg(out)
					}
				} else {
					err = conn.Invoke(ctx, method, in, out)
				}
				cancel()
				_ = conn.Close()
				refused := status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated
				if err != nil && strings.Contains(err.Error(), "certificate request of node n1") {
					refused = false // who it is was taken; its empty request wasn't
				}
				if may := x.node && who == "a node"; refused == may {
					t.Errorf("%s by %s: %v, want allowed %t", method, who, err, may)
				}
			}
		}
	}
}
