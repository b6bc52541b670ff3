package audit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// lockedBuffer is a log that many write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// spellings are the ways in which a value can be read off.
func spellings(secret string) []string {
	var out []string
	for at := range 3 { // base64 depends on where the value begins
		full := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", at) + secret + "xxx"))
		out = append(out, full[4:len(full)-8])
	}
	return append(out, secret, hex.EncodeToString([]byte(secret)), string(slices.Collect(func(yield func(byte) bool) {
		for i := len(secret) - 1; i >= 0 && yield(secret[i]); i-- {
			continue
		}
	})))
}

func TestSpellingsFindASecret(t *testing.T) {
	for _, text := range []string{canary, "password: " + canary, "ab" + canary, "abc" + canary} {
		for _, coded := range []string{base64.StdEncoding.EncodeToString([]byte(text)), hex.EncodeToString([]byte(text)), text} {
			if !slices.ContainsFunc(spellings(canary), func(s string) bool { return strings.Contains(coded, s) }) {
				t.Errorf("the secret is not found in %q", coded)
			}
		}
	}
}

// planted is a tree with a secret in every place that a Secret has, and in an
// environment variable whose value comes from it.
func planted(secret string) map[string]string {
	files := shop("shop.example/web:1", 2)
	files["secret.yaml"] = `apiVersion: v1
kind: Secret
metadata:
  name: till
  namespace: default
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"password":"` + secret + `"}}'
stringData: {password: ` + secret + `}
data: {token: ` + base64.StdEncoding.EncodeToString([]byte(secret)) + `}
`
	return files
}

// A secret is in no byte that comes out: not in the log of the process, the
// records, words, blobs, exports, bundles, answers or problems. And what
// stands for it in digests can't be found by trying values.
func TestNoSecretComesOut(t *testing.T) {
	const other = "canary-2b99aa01-do-not-tell-either"
	var logged lockedBuffer
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	w.push("Ada <ada@shop.example>", "first", planted(canary))
	w.converged("first")
	w.snapshot()
	w.push("Ada <ada@shop.example>", "second", planted(other))
	w.converged("second")
	bad := planted(canary)
	bad["secret.yaml"] += "immutable: " + canary + "\n"
	bad["more.yaml"] = "apiVersion: v1\nkind: Secret\nmetadata: {name: more, namespace: default}\ndata: {token: '!" + canary + "', other: [" + canary + "]}\n"
	bad["kustomization.yaml"] = "resources: [web.yaml, db.yaml, secret.yaml, more.yaml]\n"
	w.push("Ada <ada@shop.example>", "third", bad)
	w.until("the rejection", func(s *state.State) bool { return s.Apps[state.RootApp].Rejected != nil })
	var answers bytes.Buffer
	w.ctl.View(func(s *state.State) {
		st := report.NewStatus(s, w.ctl.Words)
		st.Text(&answers)
		answers.WriteString(asJSON(t, st))
		for ref := range s.Objects {
			d := report.NewDetail(s, ref, w.ctl.Words)
			d.Text(&answers)
			answers.WriteString(asJSON(t, d))
		}
	})
	w.end()

	out := map[string]string{"the log of the process": logged.String(), "answers": answers.String()}
	read(t, dir, out)
	for where, text := range out {
		for _, secret := range []string{canary, other} {
			for _, s := range spellings(secret) {
				if strings.Contains(text, s) {
					t.Errorf("%s holds the secret as %q", where, s)
				}
			}
			sum := state.DigestOf([]byte(secret))
			if strings.Contains(text, hex.EncodeToString(sum[:8])) || strings.Contains(text, string(sum[:8])) {
				t.Errorf("%s holds an unkeyed digest of the secret", where)
			}
		}
	}
	for _, where := range []string{"JSON lines", "CSV", "bundle", "diff", "answers", "log/00000000000000000001.log", "texts"} {
		if out[where] == "" {
			t.Errorf("%s was not looked at, only %v", where, slices.Sorted(maps.Keys(out)))
		}
	}
}

// read adds all that can be got from a data directory by who has its files but
// not its keys, and all that its commands print.
func read(t *testing.T, dir string, out map[string]string) {
	t.Helper()
	for name, content := range files(t, dir) {
		if name != "secrets.key" && name != "tokens.key" {
			out[name] = string(content)
		}
	}
	blobs, err := history.ReadBlobs(history.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	digests, err := blobs.Digests()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range digests {
		raw, err := blobs.Blob(d)
		if err != nil {
			t.Fatal(err)
		}
		out["unpacked blob "+d.Short()] = string(raw)
	}
	a := open(t, dir)
	end := a.Store.Head().Seq
	var lines, rows, tar, said bytes.Buffer
	for _, err := range []error{
		a.JSONL(t.Context(), &lines, report.Filter{All: true}), a.CSV(t.Context(), &rows, report.Filter{All: true}), a.Bundle(t.Context(), &tar, dir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	applied := last(t, a, func(r *state.Record) bool {
		_, ok := r.Fact.(*state.RevisionApplied)
		return ok
	})
	d, err := a.Diff(t.Context(), applied-1, end)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Desired) == 0 || slices.ContainsFunc(d.Desired, func(c report.PlanChange) bool { return c.Ref.Kind != "Secret" }) {
		t.Errorf("the change of the Secrets alone is not told: %+v", d.Desired)
	}
	d.Text(&said)
	said.WriteString(asJSON(t, d))
	m, err := a.At(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	m.Text(&said)
	said.WriteString(asJSON(t, m))
	out["JSON lines"], out["CSV"], out["bundle"], out["diff"] = lines.String(), rows.String(), tar.String(), said.String()
	name := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(name, tar.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, name)
	var unpacked bytes.Buffer
	for _, d := range digests {
		if m, err := b.Blobs.Manifest(d); err == nil {
			unpacked.WriteString(asJSON(t, m))
		}
	}
	out["manifests of the bundle"] = unpacked.String()
}
