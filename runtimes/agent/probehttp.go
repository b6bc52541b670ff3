package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// probeHTTP succeeds on 200 to 399. It follows the kubelet: no keep-alive, no
// certificate check, redirects only within the host.
func probeHTTP(ctx context.Context, ip string, c *corev1.Container, h *corev1.HTTPGetAction) error {
	port, err := portOf(c, h.Port)
	if err != nil {
		return err
	}
	host := h.Host
	if host == "" {
		host = ip
	}
	path := h.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	scheme := strings.ToLower(string(h.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tandem-probe")
	req.Header.Set("Accept", "*/*")
	for _, f := range h.HTTPHeaders {
		if strings.EqualFold(f.Name, "Host") {
			req.Host = f.Value
			continue
		}
		req.Header.Add(f.Name, f.Value)
	}
	req.Close = true
	client := http.Client{
		Transport: oneShot{},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != req.URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= redirectsMost {
				return fmt.Errorf("stopped after %d redirects", redirectsMost)
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, cappedMost))
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP status %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return nil
}

// redirectsMost is after how many redirects a probe fails: the kubelet's figure.
const redirectsMost = 10

// answerMost is how much of an answer is looked at, its header included.
const answerMost = 1 << 20

// oneShot carries a request over a connection of its own, by the goroutine that
// asks: http.Transport begins four for each, and a node of a hundred pods does
// little else at rest.
type oneShot struct{}

// RoundTrip implements http.RoundTripper.
func (oneShot) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	port := r.URL.Port()
	if port == "" {
		port = r.URL.Scheme // a redirect may leave it out
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(r.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	end := func() error { stop(); return conn.Close() }
	answer, err := exchange(ctx, conn, r)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // what cut it off
		}
		return nil, errors.Join(err, end())
	}
	answer.Body = &oneBody{answer.Body, end}
	return answer, nil
}

func exchange(ctx context.Context, conn net.Conn, r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: r.URL.Hostname()}) //nolint:gosec // as the kubelet: the address is the pod's own
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	from := bufio.NewReader(io.LimitReader(conn, answerMost))
	for {
		answer, err := http.ReadResponse(from, r)
		if err != nil || answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			return answer, err
		}
	}
}

// oneBody is an answer's, whose end closes the connection.
type oneBody struct {
	io.ReadCloser

	end func() error
}

// Close implements io.Closer. What was not read is left to the connection's end.
func (b *oneBody) Close() error { return b.end() }
