package audit_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func backup(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := audit.Backup(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "backup.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A backup that was made while a controller wrote goes on elsewhere.
func TestARestoredBackupGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "first", shop("shop.example/web:1", 2))
	w.converged("first")
	w.snapshot()
	w.push("Ada <ada@shop.example>", "second", shop("shop.example/web:2", 2))
	kept := backup(t, dir) // in the middle of it
	w.converged("second")
	w.end()

	elsewhere := filepath.Join(t.TempDir(), "new", "data")
	r, err := audit.Restore(t.Context(), kept, elsewhere)
	if err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
	again := newWorld(t, elsewhere, slog.New(slog.DiscardHandler))
	again.push("Ada <ada@shop.example>", "third", shop("shop.example/web:3", 1))
	again.converged("third")
	again.end()
	if r := verify(t, elsewhere, audit.Options{PublicKey: publicKey(t, dir)}); !r.OK() {
		t.Errorf("%+v", r.Findings)
	}
	note, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if r := verify(t, elsewhere, audit.Options{Seen: bytes.TrimRight(note, "\x00")}); r.OK() {
		t.Error("that the restored log left out records went unnoticed")
	}
	if _, err := audit.Restore(t.Context(), kept, elsewhere); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over another directory: %v", err)
	}
}

func TestADamagedBackupIsNotRestored(t *testing.T) {
	kept := backup(t, lived(t))
	raw, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, []byte("ustar")) // some header
	at = bytes.Index(raw[at:], []byte("log/0000")) + at + 3000
	raw[at] ^= 1
	if err := os.WriteFile(kept, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "data")
	r, err := audit.Restore(t.Context(), kept, to)
	if err == nil && r.OK() {
		t.Error("it was restored")
	}
	left, err := os.ReadDir(filepath.Dir(to))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// What was erased is in no file, every record is as it was, and the erasure is
// one more.
func TestErasedWordsAreGoneAndTheLogIsWhole(t *testing.T) {
	dir := lived(t)
	before := files(t, dir)["checkpoint"]
	if _, err := audit.Erase(t.Context(), dir, "ada@shop.example", true, "root", "asked for"); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, audit.Options{PublicKey: publicKey(t, dir), Seen: bytes.TrimRight(before, "\x00")})
	if !r.OK() || r.Erased == 0 {
		t.Fatalf("%+v", r)
	}
	for name, content := range files(t, dir) {
		if bytes.Contains(bytes.ToLower(content), []byte("ada")) && name != "secrets.key" && !strings.HasSuffix(name, ".pub") && !strings.HasSuffix(name, ".key") {
			if bytes.Contains(content, []byte("Ada <")) || bytes.Contains(content, []byte("ada@")) {
				t.Errorf("%s still names the person", name)
			}
		}
	}
	a := open(t, dir)
	end := a.Store.Head().Seq
	m, err := a.At(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	text := asJSON(t, m)
	if strings.Contains(text, "Ada") || !strings.Contains(text, "(erased)") || !strings.Contains(text, "Bob") {
		t.Errorf("what is told afterwards: %s", text)
	}
	last, err := a.Store.ReadAt(end)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := last.Fact.(*state.Commanded); !ok || c.Verb != state.CmdErase || a.Words(c.Reason) != "asked for" || a.Words(last.Actor) != "root" {
		t.Errorf("the record of it: %+v", last)
	}
	if _, err := audit.Erase(t.Context(), dir, "ada@shop.example", true, "root", "again"); !errors.Is(err, history.ErrNoText) {
		t.Errorf("a second time: %v", err)
	}
}

func TestEraseWantsAStoppedController(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	newWorld(t, dir, slog.New(slog.DiscardHandler))
	if _, err := audit.Erase(t.Context(), dir, "ada", true, "root", "why"); !errors.Is(err, history.ErrLocked) {
		t.Errorf("beside a controller: %v", err)
	}
}
