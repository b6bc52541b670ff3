package audit_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func verify(t testing.TB, path string, o audit.Options) *history.Report {
	t.Helper()
	r, err := audit.Verify(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func publicKey(t testing.TB, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "log.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// files are those of a data directory that hold what was recorded.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == "lock" {
			return err
		}
		out[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// replaced verifies a directory with one file replaced, or removed where
// content is nil, and puts the file back.
func replaced(t testing.TB, dir, name string, old, content []byte, o audit.Options) *history.Report {
	t.Helper()
	file := filepath.Join(dir, name)
	var err error
	if content == nil {
		err = os.Remove(file)
	} else {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, o)
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestALivedDirectoryFoldsAnew(t *testing.T) {
	dir := lived(t)
	r := verify(t, dir, audit.Options{PublicKey: publicKey(t, dir), Every: true})
	if !r.OK() {
		t.Fatalf("%+v", r.Findings)
	}
	if r.Records < 40 || r.Snapshots != 1 || r.Blobs < 4 {
		t.Errorf("%+v", r)
	}
	for _, n := range r.NotChecked {
		if !strings.Contains(n, "newest checkpoint") {
			t.Errorf("left unchecked: %s", n)
		}
	}
}

func TestEveryDamageIsNamed(t *testing.T) {
	dir := copied(t, lived(t))
	o := audit.Options{PublicKey: publicKey(t, dir)}
	for name, content := range files(t, dir) {
		about := func(r *history.Report, what string) {
			t.Helper()
			cache := strings.HasSuffix(name, ".idx") || strings.HasSuffix(name, ".snap")
			if r.OK() && len(r.Notes) == 0 {
				t.Errorf("%s: %s unnoticed", name, what)
			}
			for i := range r.Findings {
				if f := &r.Findings[i]; f.File == name && cache != strings.Contains(f.Error(), "fix: delete") {
					t.Errorf("the wrong remedy: %v", f)
				}
			}
		}
		for _, at := range []int{0, len(content) / 3, len(content) / 2, len(content) - 1} {
			flipped := bytes.Clone(content)
			flipped[at] ^= 1 << (at % 8)
			about(replaced(t, dir, name, content, flipped, o), "a flipped bit")
		}
		about(replaced(t, dir, name, content, content[:len(content)-1], o), "a cut-off byte")
		removed := replaced(t, dir, name, content, nil, o)
		if private := strings.HasSuffix(name, ".key"); !private && !strings.HasSuffix(name, ".snap") {
			about(removed, "removal")
		}
	}
	if r := verify(t, dir, o); !r.OK() {
		t.Fatalf("the directory is not as it was: %+v", r.Findings)
	}
}

// Who writes the files but lacks the key puts another manifest in a blob's
// place, mends its seal, and is found out by the digests in the log.
func TestAManifestWithOtherTextIsNoticed(t *testing.T) {
	dir := copied(t, lived(t))
	blobs, err := history.ReadBlobs(history.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	digests, err := blobs.Digests()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, d := range digests {
		raw, err := blobs.Blob(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, edit := range [][2]string{{`"replicas":3`, `"replicas":1`}, {`shop.example/web:2`, `evil.example/web:2`}, {`"port`, `"porT`}} {
			other := bytes.Replace(raw, []byte(edit[0]), []byte(edit[1]), 1)
			if bytes.Equal(other, raw) {
				continue
			}
			tried++
			name, content, err := history.BlobFile(d, other)
			if err != nil {
				t.Fatal(err)
			}
			old, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if r := replaced(t, dir, name, old, content, audit.Options{}); r.OK() {
				t.Errorf("%s for %s in %s unnoticed", edit[1], edit[0], name)
			}
		}
	}
	if tried < 3 {
		t.Errorf("only %d edits were tried", tried)
	}
}

// An old copy of the directory is all in order by itself; a checkpoint that was
// kept elsewhere tells.
func TestAnOldCopyAndAnotherHistoryAreNoticed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "first", shop("shop.example/web:1", 1))
	w.converged("first")
	w.end()
	old, fork := copied(t, dir), copied(t, dir)
	key := publicKey(t, dir)
	for message, where := range map[string]string{"second": dir, "other": fork} {
		w := newWorld(t, where, slog.New(slog.DiscardHandler))
		w.push("Bob <bob@shop.example>", message, shop("shop.example/web:2", 2))
		w.converged(message)
		w.end()
	}
	kept, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	o := audit.Options{PublicKey: key, Seen: bytes.TrimRight(kept, "\x00")}
	if r := verify(t, dir, o); !r.OK() {
		t.Errorf("the directory that the checkpoint is of: %+v", r.Findings)
	}
	for name, where := range map[string]string{"old copy": old, "fork": fork} {
		if r := verify(t, where, audit.Options{PublicKey: key}); !r.OK() {
			t.Errorf("%s is not in order by itself: %+v", name, r.Findings)
		}
		if r := verify(t, where, o); r.OK() {
			t.Errorf("%s unnoticed", name)
		}
	}
}

// A live directory is verified beside its writer.
func TestALiveDirectoryVerifies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	for i := range 5 {
		message := string(rune('a' + i))
		w.push("Ada <ada@shop.example>", message, shop("shop.example/web:"+message, 2))
		if r := verify(t, dir, audit.Options{}); !r.OK() {
			t.Fatalf("while %s rolls out: %+v", message, r.Findings)
		}
		w.converged(message)
		w.snapshot()
	}
	if r := verify(t, dir, audit.Options{PublicKey: publicKey(t, dir)}); !r.OK() || r.Snapshots != 5 {
		t.Errorf("%+v", r)
	}
	var seq state.Seq
	w.ctl.View(func(s *state.State) { seq = s.Seq })
	if seq == 0 {
		t.Error("nothing was recorded")
	}
}
