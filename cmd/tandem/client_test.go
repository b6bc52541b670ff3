package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
)

// A starts is a writer that begins something at the first word, and keeps the words.
type starts struct {
	begin func()
	words bytes.Buffer
}

func (s *starts) Write(p []byte) (int, error) {
	if s.words.Len() == 0 {
		s.begin()
	}
	return s.words.Write(p)
}

// A command waits for a controller that is starting, and says so.
func TestACommandWaitsForAStartingController(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s, err := serve.Open(t.Context(), serve.Options{Data: data, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	said := &starts{begin: func() { go func() { done <- s.Run(ctx) }() }}
	c := &cli{out: io.Discard, errs: said, data: data}
	r, err := c.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.status(ctx, false); err != nil {
		t.Error(err)
	}
	if got := said.words.String(); !strings.HasPrefix(got, "waiting: the controller is starting: it ") || strings.Count(got, "\n") != 1 {
		t.Errorf("said %q", got)
	}
	stop()
	if err := errors.Join(r.Close(), <-done, s.Close()); err != nil {
		t.Error(err)
	}
}

// A token goes over TLS or not at all, and a server's port may be HTTPS's own.
func TestServersAreHTTPS(t *testing.T) {
	t.Setenv("TANDEM_TOKEN", "secret")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked with %v", r.Header) }))
	defer plain.Close()
	c := &cli{out: io.Discard, errs: io.Discard, server: plain.URL}
	if _, err := c.connect(t.Context()); err == nil || !strings.Contains(err.Error(), "want a URL such as https://") {
		t.Errorf("a server without TLS: %v", err)
	}
	c.server = "https://127.9.9.9"
	if _, err := c.connect(t.Context()); err == nil || !strings.Contains(err.Error(), "127.9.9.9:443") {
		t.Errorf("a server without a port: %v", err)
	}
}
