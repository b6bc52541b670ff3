package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// writers are both ways; what a user notices is the same.
func writers() map[string]func(string, []byte, fs.FileMode) error {
	return map[string]func(string, []byte, fs.FileMode) error{"write": atomicfile.Write, "durable": atomicfile.WriteDurable}
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// alone wants no other file in the directory.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestAFileIsReplaced(t *testing.T) {
	for name, write := range writers() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "note.json")
			for _, text := range []string{"a first content", "", "2"} {
				if err := write(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if got := content(t, path); got != text {
					t.Errorf("got %q, want %q", got, text)
				}
			}
			alone(t, path)
		})
	}
}

// What a killed writer left neither lends its permissions nor leads elsewhere.
func TestAnOldWritersFileIsReplaced(t *testing.T) {
	for name, write := range writers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, elsewhere := filepath.Join(dir, "key"), filepath.Join(t.TempDir(), "elsewhere")
			if err := os.WriteFile(elsewhere, []byte("somebody's"), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, path+".new"); err != nil {
				t.Skipf("this user may make no symbolic links: %v", err)
			}
			if err := write(path, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := content(t, elsewhere); got != "somebody's" {
				t.Errorf("the file that the link led to has %q", got)
			}
			if err := os.WriteFile(path+".new", []byte("half"), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := write(path, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 && filepath.Separator == '/' {
				t.Errorf("mode %v, want only its owner to read it", info.Mode())
			}
			alone(t, path)
		})
	}
}

// Where a file can't be replaced, it says so, the old one stays and nothing lies
// beside it.
func TestAFailureLeavesTheOldFile(t *testing.T) {
	for name, write := range writers() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "note")
			if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := write(path, []byte("new"), 0o600); err == nil {
				t.Error("a directory was replaced by a file")
			}
			alone(t, path)
			absent := filepath.Join(t.TempDir(), "no", "such", "directory")
			if err := write(absent, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v, want that there is no such directory", err)
			}
		})
	}
}

// writerPath makes this program a writer, which goes on until it is killed.
const writerPath = "TANDEM_TEST_WRITER"

func TestMain(m *testing.M) {
	path := os.Getenv(writerPath)
	if path == "" {
		os.Exit(m.Run())
	}
	for i := byte(0); ; i++ {
		if err := atomicfile.Write(path, pages(i), 0o600); err != nil {
			panic(err)
		}
	}
}

// pages is a content of which a part can be told from the whole.
func pages(i byte) []byte { return bytes.Repeat([]byte{i}, 1<<18) }

// A writer killed at any instant leaves a whole file, and the next one goes on.
func TestAKilledWriterLeavesAWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "note")
	if err := atomicfile.Write(path, pages(0), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		writer := exec.CommandContext(t.Context(), os.Args[0])
		writer.Env = append(os.Environ(), writerPath+"="+path)
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		// Reads while it writes, for an instant that chance says.
		for end := time.Now().Add(time.Duration(20+rand.IntN(60)) * time.Millisecond); time.Now().Before(end); {
			whole(t, path)
		}
		if err := writer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = writer.Wait()
		whole(t, path)
	}
	if err := atomicfile.WriteDurable(path, []byte("the last"), 0o600); err != nil {
		t.Fatal(err)
	}
	alone(t, path)
}

func whole(t *testing.T, path string) {
	t.Helper()
	raw := []byte(content(t, path))
	if len(raw) == 0 || !bytes.Equal(raw, pages(raw[0])) {
		t.Fatalf("read %d bytes, want %d of one kind", len(raw), len(pages(0)))
	}
}
