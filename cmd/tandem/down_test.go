package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Down says that no pod is left where the controller has ended, and not because a
// question wasn't answered.
func TestDownBelievesNoError(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = w.Write([]byte(`{"seq":1}`))
			return
		}
		asked.Add(1)
		w.WriteHeader(http.StatusBadGateway) // a proxy that restarts, say
	}))
	server.StartTLS()
	defer server.Close()
	t.Setenv("TANDEM_TOKEN", "secret")
	t.Setenv("TANDEM_CA", caOf(t, server))
	var out bytes.Buffer
	c := &cli{out: &out, errs: &out, server: server.URL}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.down(ctx, "test") }()
	for limit := time.Now().Add(20 * time.Second); asked.Load() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it gave up after %d questions: %s", asked.Load(), out.String())
		}
	}
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "isn't known") {
		t.Errorf("down: %v, %q", err, out.String())
	}
	done = make(chan error, 1)
	out.Reset()
	go func() { done <- c.down(t.Context(), "test") }()
	for n := asked.Load(); asked.Load() == n; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-done:
			t.Fatalf("down: %v, %q", err, out.String())
		default:
		}
	}
	server.Close()
	if err := <-done; err != nil || !strings.Contains(out.String(), "no pod is left") {
		t.Errorf("down: %v, %q", err, out.String())
	}
}

// A network that is down, a name that isn't found and a question that was broken
// off say nothing of pods.
func TestDownTellsWhoIsGone(t *testing.T) {
	for _, c := range []struct {
		network string
		err     error
		gone    bool
	}{
		{"tcp", os.NewSyscallError("connect", syscall.ECONNREFUSED), true},
		{"unix", os.NewSyscallError("connect", syscall.ENOENT), true},
		{"tcp", os.NewSyscallError("connect", syscall.ENETUNREACH), false},
		{"tcp", os.NewSyscallError("connect", syscall.EHOSTUNREACH), false},
		{"tcp", &net.DNSError{Err: "no such host", Name: "tandem.example", IsNotFound: true}, false},
		{"tcp", context.Canceled, false},
	} {
		err := fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Net: c.network, Err: c.err})
		if isRefused(err) != c.gone {
			t.Errorf("%v: nobody listens %t, want %t", err, !c.gone, c.gone)
		}
	}
}

// caOf is a file with a test server's certificate.
func caOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
