package git

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
)

// dialHTTP prepares a conversation over HTTP. Redirects are followed for the
// first request alone, never from https to http, and without credentials to any
// other host, port or scheme.
func dialHTTP(a address, auth Auth) (session, error) {
	w, err := prepareHTTP(a, auth)
	if err != nil {
		return nil, err
	}
	s, err := w.client.NewUploadPackSession(w.endpoint, w.method)
	if err != nil {
		return nil, err
	}
	return &httpSession{UploadPackSession: s, way: w}, nil
}

// httpWay is what fetching and pushing have in common.
type httpWay struct {
	client   transport.Transport
	endpoint *transport.Endpoint
	method   transport.AuthMethod
	base     *nethttp.Transport

	elsewhere *nethttp.Transport // to hosts that a redirect leads to: without our certificate
	guard     *guard
}

// closeIdle lets go of connections: nothing is kept between two looks.
func (w *httpWay) closeIdle() {
	w.base.CloseIdleConnections()
	w.elsewhere.CloseIdleConnections()
}

func prepareHTTP(a address, auth Auth) (*httpWay, error) {
	method, err := auth.http(a)
	if err != nil {
		return nil, err
	}
	base := nethttp.DefaultTransport.(*nethttp.Transport).Clone()
	base.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	idle := cmp.Or(a.idle, idleTimeout)
	base.ResponseHeaderTimeout = idle
	if base.TLSClientConfig, err = auth.tls(); err != nil {
		return nil, err
	}
	elsewhere := base.Clone()
	elsewhere.TLSClientConfig.Certificates = nil
	g := &guard{base: base, host: a.url.Host, elsewhere: elsewhere, idle: idle}
	client := http.NewClient(&nethttp.Client{Transport: g})
	port, err := strconv.Atoi(or(a.url.Port(), "0"))
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", a.url.Port(), err)
	}
	host := a.url.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	endpoint := &transport.Endpoint{Protocol: a.url.Scheme, Host: host, Port: port, Path: strings.TrimSuffix(a.url.EscapedPath(), "/")}
	return &httpWay{client: client, endpoint: endpoint, method: method, base: base, elsewhere: elsewhere, guard: g}, nil
}

// httpSession closes its connections with it.
type httpSession struct {
	transport.UploadPackSession
	way *httpWay
}

// UploadPack asks for a pack, and lets no endless list come before it.
func (s *httpSession) UploadPack(ctx context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	s.way.guard.most = maxAnswerHead
	response, err := s.UploadPackSession.UploadPack(ctx, request)
	if err != nil {
		return nil, err
	}
	s.way.guard.last.left += MaxPack + MaxPack/64 // the frames around the pack
	return response, nil
}

func (s *httpSession) Close() error {
	err := s.UploadPackSession.Close()
	s.way.closeIdle()
	return err
}

func (a Auth) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.ClientCertFile != "" {
		ours, err := tls.LoadX509KeyPair(a.ClientCertFile, a.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read our certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{ours}
	}
	if a.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate: want PEM", a.CAFile)
	}
	config.RootCAs = pool
	return config, nil
}

// http is how requests prove who we are, or nil.
func (a Auth) http(at address) (transport.AuthMethod, error) {
	secret, err := a.secret()
	if err != nil || secret == "" {
		return nil, err
	}
	if a.Bearer {
		return &http.TokenAuth{Token: secret}, nil
	}
	user := a.Username
	if at.url.User != nil && user == "" {
		user = at.url.User.Username()
	}
	return &http.BasicAuth{Username: or(user, "git"), Password: secret}, nil
}

func (a Auth) secret() (string, error) {
	switch {
	case a.PasswordFile != "":
		text, err := os.ReadFile(a.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		if s := strings.TrimSpace(string(text)); s != "" {
			return s, nil
		}
		return "", fmt.Errorf("the password file %s is empty", a.PasswordFile)
	case a.PasswordEnv != "":
		if s := os.Getenv(a.PasswordEnv); s != "" {
			return s, nil
		}
		return "", fmt.Errorf("the environment variable %s, which should hold the password, is empty", a.PasswordEnv)
	default:
		return "", nil
	}
}

// A guard gives up transfers that stand still or never end. One conversation uses
// it, one request after the other.
type guard struct {
	base      nethttp.RoundTripper
	host      string
	elsewhere nethttp.RoundTripper
	idle      time.Duration

	most int64 // bytes of the next answer; 0: maxAdvertised
	last *guardedBody
}

func (g *guard) RoundTrip(request *nethttp.Request) (*nethttp.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	base := g.base
	if request.URL.Host != g.host {
		base = g.elsewhere
	}
	response, err := base.RoundTrip(request.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	g.last = &guardedBody{body: response.Body, cancel: cancel, left: cmp.Or(g.most, maxAdvertised), idle: g.idle, timer: time.AfterFunc(g.idle, cancel)}
	response.Body = g.last
	return response, nil
}

type guardedBody struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
	idle   time.Duration
	left   int64
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server's answer is endless: gave up (limits git.MaxPack, 1 MiB before a pack, and 64 MiB of refs)")
	}
	b.timer.Reset(b.idle)
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel()
	return err
}
