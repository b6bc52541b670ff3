package serve

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A server that is put together, but doesn't run yet, says so to whoever asks,
// and when to ask again.
func TestAStartingServerAnswers(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), Options{Data: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.api.opening.now("takes over what runs on this machine")
	text, code := scrape(t, s, "")
	var status metav1.Status
	if err := json.Unmarshal(text, &status); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if code != http.StatusServiceUnavailable || status.Reason != metav1.StatusReasonServiceUnavailable || !strings.Contains(status.Message, "it takes over what runs on this machine") {
		t.Errorf("a starting server answered %d %s", code, text)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	if _, code := scrape(t, s, ""); code != http.StatusUnauthorized {
		t.Errorf("once it runs: %d", code)
	}
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Error(err)
	}
}

// One that never ran can be closed, also while it is asked.
func TestAServerThatNeverRanIsClosed(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), Options{Data: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
