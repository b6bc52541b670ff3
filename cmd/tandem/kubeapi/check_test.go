package kubeapi

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An external gate believes who signs with the Secret that the root names, and
// nobody else; a newer answer counts, an older or repeated one doesn't.
func TestExternalChecks(t *testing.T) {
	w := shop(t)
	_, server, _ := serve(t, w)
	w.write("", &state.PipelineDeclared{Pipeline: state.Pipeline{Name: "shop", Stages: []state.Stage{
		{Name: "dev", App: state.RootApp},
		{Name: "prod", App: "prod", After: []string{"dev"}, Gates: []state.Gate{
			{Kind: state.GateExternal, Name: "ticket", Secret: "web-key"}, {Kind: state.GateExternal, Name: "lost", Secret: "nowhere"},
		}},
	}}})
	commit := strings.Repeat("ab", 20)
	now := time.Now()
	sign := func(key string, body []byte) string {
		m := hmac.New(sha256.New, []byte(key))
		m.Write(body)
		return "sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	post := func(where, signature string, body []byte) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+ChecksPath+where, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(SignatureHeader, signature)
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw)
	}
	answer := func(ok bool, at time.Time) []byte {
		raw, err := json.Marshal(CheckAnswer{Commit: commit, OK: ok, Time: at, Detail: "change 7 is approved"})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := answer(true, now)
	for name, c := range map[string]struct {
		where, signature string
		body             []byte
		code             int
	}{
		"another key":     {"shop/prod/ticket", sign("another key of this length", good), good, http.StatusUnauthorized},
		"no signature":    {"shop/prod/ticket", "", good, http.StatusUnauthorized},
		"changed body":    {"shop/prod/ticket", sign(secretValue, good), answer(false, now), http.StatusUnauthorized},
		"no such gate":    {"shop/prod/nope", sign(secretValue, good), good, http.StatusUnauthorized},
		"no such stage":   {"shop/nope/ticket", sign(secretValue, good), good, http.StatusUnauthorized},
		"no such secret":  {"shop/prod/lost", sign("", good), good, http.StatusUnauthorized},
		"another path":    {"shop/prod", sign(secretValue, good), good, http.StatusUnauthorized},
		"an old answer":   {"shop/prod/ticket", sign(secretValue, answer(true, now.Add(-time.Hour))), answer(true, now.Add(-time.Hour)), http.StatusBadRequest},
		"an unknown word": {"shop/prod/ticket", sign(secretValue, []byte(`{"okay":true}`)), []byte(`{"okay":true}`), http.StatusBadRequest},
		"too much":        {"shop/prod/ticket", "", bytes.Repeat([]byte("x"), maxAnswer+1), http.StatusRequestEntityTooLarge},
	} {
		if code, raw := post(c.where, c.signature, c.body); code != c.code {
			t.Errorf("%s: %d %s, want %d", name, code, raw, c.code)
		}
	}
	check := func() *state.Check {
		var out *state.Check
		w.View(func(s *state.State) {
			_, up := s.Lines["shop"].Stage("prod")
			out = up.Check("ticket", commit)
		})
		return out
	}
	if check() != nil {
		t.Fatal("a refused answer was recorded")
	}
	if code, raw := post("shop/prod/ticket", sign(secretValue, good), good); code != http.StatusOK || check() == nil || !check().OK {
		t.Errorf("a good answer: %d %s", code, raw)
	}
	first := check().Seq
	no := answer(false, now.Add(time.Second))
	if code, _ := post("shop/prod/ticket", sign(secretValue, no), no); code != http.StatusOK || check().OK || check().Seq == first {
		t.Error("a newer answer doesn't count")
	}
	seq := check().Seq
	if code, _ := post("shop/prod/ticket", sign(secretValue, good), good); code != http.StatusOK || check().OK || check().Seq != seq {
		t.Error("the older answer, sent again, overtook the newer one")
	}
}
