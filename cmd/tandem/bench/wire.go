package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// wire is the controller's listener as agents of other machines see it: each
// has a connection, a certificate and a stream of its own.
type wire struct {
	authority *join.Authority
	address   string
	server    *http.Server
	key       *ecdsa.PrivateKey
	closers   []func() error
}

func newWire(hub *agent.Hub, dir string) (*wire, error) {
	w := &wire{}
	var err error
	if w.authority, err = join.OpenAuthority(dir); err != nil {
		return nil, err
	}
	cert, err := w.authority.Server([]string{"127.0.0.1"})
	if err != nil {
		return nil, err
	}
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.address = listener.Addr().String()
	w.server = &http.Server{
		Handler:   join.Handler(hub, w.authority, join.OpenTokens(dir, w.authority.Pin()), unrecorded, slog.New(slog.DiscardHandler)),
		TLSConfig: w.authority.TLS(cert), ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { _ = w.server.ServeTLS(listener, "", "") }()
	return w, nil
}

// link is one node's way to the controller.
func (w *wire) link(name state.NodeName) (agent.Link, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, w.key)
	if err != nil {
		return nil, err
	}
	signed, err := w.authority.Node(name, request)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(w.key)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(signed, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		return nil, err
	}
	conn, err := agent.Dial(w.address, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.authority.Pool(), Certificates: []tls.Certificate{cert}})
	if err != nil {
		return nil, fmt.Errorf("dial for %s: %w", name, err)
	}
	w.closers = append(w.closers, conn.Close)
	return agent.Remote(conn), nil
}

func (w *wire) close() error {
	err := w.server.Close()
	for _, c := range w.closers {
		err = errors.Join(err, c())
	}
	return err
}

// convergeWire is converge with a TLS connection and a stream for every node.
func convergeWire(ctx context.Context, b *board) error {
	w, err := newWorldOver(ctx, manyNodes, true)
	if err != nil {
		return err
	}
	start := time.Now()
	w.commit(1, many(1)...)
	total := manyDeployments * podsEach
	if err := w.until(ctx, func(s *state.State) bool { return ready(s) == total }); err != nil {
		return err
	}
	b.atMost("10,000 pods on 1,000 nodes over mTLS: all Ready", ms(time.Since(start)), "ms", 5000)
	rss, _ := resident()
	b.atMost("10,000 pods over mTLS, both ends: resident", rss, "MB", 0)
	return w.stop()
}

// unrecorded is the ledger of a controller without a log.
func unrecorded(context.Context, state.NodeName, join.Token) (func(bool), error) {
	return func(bool) {}, nil
}
