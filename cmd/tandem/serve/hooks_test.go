package serve

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// A push that a webhook tells of is seen at once: without it, an hour would pass.
func TestHookMakesSourcesLook(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"})
	web := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	const secret = "a secret for the test"
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "hooks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "hooks", "generic"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Data: data, Where: web.URL, Renders: renders(), Interval: time.Hour, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	await(t, s, "one")
	repo.Commit("main", map[string]string{"cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n"})
	body := `{"repo": "` + web.URL + `"}`
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(body))
	r := httptest.NewRequest(http.MethodPost, hookPath+"generic", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Signature", "sha256="+hex.EncodeToString(m.Sum(nil)))
	rec := httptest.NewRecorder()
	s.api.http.Handler.ServeHTTP(rec, r)
	if rec.Code != http.StatusAccepted {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	await(t, s, "two")
}

// await waits until the ConfigMap is there.
func await(t *testing.T, s *Server, name string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		var seq state.Seq
		found := false
		s.Controller.View(func(st *state.State) {
			seq = st.Seq
			found = st.Objects[state.Ref{Kind: "ConfigMap", Namespace: "default", Name: name}] != nil
		})
		if found {
			return
		}
		select {
		case <-s.Controller.Changed(seq):
		case <-deadline:
			t.Fatalf("ConfigMap %s does not appear", name)
		}
	}
}
