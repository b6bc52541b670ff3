package dir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/dir"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

func open(t *testing.T, options dir.Options) *dir.Source {
	t.Helper()
	s, err := dir.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := put(path, text); err != nil {
		t.Fatal(err)
	}
}

func put(path, text string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T, repo *sourcetest.Repo) sources.Source {
		path := t.TempDir()
		repo.Mirror(path)
		return open(t, dir.Options{Path: path})
	})
}

// workTree is a work tree whose main has these files.
func workTree(t *testing.T, files map[string]string) (path, hash string) {
	t.Helper()
	repo := sourcetest.NewRepo(t)
	hash = repo.Commit("main", files)
	path = filepath.Join(t.TempDir(), "tree")
	repo.Run("clone", "--quiet", repo.Dir, path)
	return path, hash
}

func TestLabel(t *testing.T) {
	t.Parallel()
	path, hash := workTree(t, map[string]string{"a": "1\n", "deploy/b": "2\n", "deploy/c": "3\n", ".gitignore": "*.log\n!keep.log\n/build/\n", "deploy/.gitignore": "tmp\n"})
	for _, c := range []struct {
		name   string
		below  string
		change func()
		want   string
	}{
		{"clean", ".", func() {}, ""},
		{"ignored", ".", func() {
			write(t, filepath.Join(path, "x.log"), "log")
			write(t, filepath.Join(path, "build", "out"), "out")
			write(t, filepath.Join(path, "deploy", "tmp"), "tmp")
		}, ""},
		{"CRLF is no change", ".", func() { write(t, filepath.Join(path, "a"), "1\r\n") }, ""},
		{"changed", ".", func() { write(t, filepath.Join(path, "a"), "changed") }, " + 1 uncommitted file"},
		{"added", ".", func() { write(t, filepath.Join(path, "new", "d"), "4") }, " + 2 uncommitted files"},
		{"not ignored after all", ".", func() { write(t, filepath.Join(path, "keep.log"), "log") }, " + 3 uncommitted files"},
		{"only what is below counts", "deploy", func() {}, ""},
		{"removed", "deploy", func() {
			if err := os.Remove(filepath.Join(path, "deploy", "c")); err != nil {
				t.Fatal(err)
			}
		}, " + 1 uncommitted file"},
	} {
		c.change()
		got := sourcetest.Await(t, open(t, dir.Options{Path: filepath.Join(path, c.below)}), "")
		if want := "main@" + hash[:7] + c.want; got.Label != want {
			t.Errorf("%s: label %q, want %q", c.name, got.Label, want)
		}
		if clean := c.want == ""; clean != (got.Commit.Hash == hash) || !strings.HasPrefix(string(got.Revision), "dir@sha256:") {
			t.Errorf("%s: commit %q of revision %s", c.name, got.Commit.Hash, got.Revision)
		}
		if _, err := got.FS.Stat(".git"); err == nil {
			t.Errorf("%s: .git is part of the tree", c.name)
		}
	}
}

func TestOutsideGit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shop")
	write(t, filepath.Join(path, "a"), "1")
	got := sourcetest.Await(t, open(t, dir.Options{Path: path}), "")
	if got.Label != "shop" || got.Commit.Hash != "" {
		t.Errorf("label %q, commit %q", got.Label, got.Commit.Hash)
	}
}

// A snapshot holds what was there when it was made, also of files that it hasn't
// been asked for yet.
func TestSnapshotIsACopy(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	write(t, filepath.Join(path, "a"), "1")
	got := sourcetest.Await(t, open(t, dir.Options{Path: path}), "")
	write(t, filepath.Join(path, "a"), "2")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1"}, sourcetest.Contents(t, got.FS)); diff != "" {
		t.Error(diff)
	}
}

// Files in directories that were made after the watch began are seen too.
func TestNewDirectories(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	s := open(t, dir.Options{Path: path})
	last := sourcetest.Await(t, s, "")
	for _, name := range []string{"x/y/z/a", "x/y/b", "x/c"} {
		done := make(chan error, 1)
		go func() { done <- put(filepath.Join(path, filepath.FromSlash(name)), name) }()
		for last.FS.Blob(name) == "" {
			last = sourcetest.Await(t, s, last.Revision)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeenWithinASecond(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	s := open(t, dir.Options{Path: path})
	last := sourcetest.Await(t, s, "")
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- put(filepath.Join(path, "a"), "1") }()
	sourcetest.Await(t, s, last.Revision)
	// The safety net would take ten seconds: only the watch is this fast.
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("seen after %v", took)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A directory that goes away is unavailable, and one that comes back under its
// name is followed again.
func TestGoesAndComesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "d")
	write(t, filepath.Join(path, "a"), "1")
	s := open(t, dir.Options{Path: path})
	first := sourcetest.Await(t, s, "")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	for {
		next, err := s.Next(t.Context(), first.Revision)
		if err != nil {
			if !errors.Is(err, sources.ErrUnavailable) {
				t.Fatal(err)
			}
			break
		}
		first = next // emptied, and not removed yet
	}
	write(t, filepath.Join(path, "a"), "2")
	for sourcetest.Contents(t, first.FS)["a"] != "2" {
		first = sourcetest.Await(t, s, first.Revision)
	}
}

func TestIgnoredPath(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	write(t, filepath.Join(path, "a"), "1")
	write(t, filepath.Join(path, "data", "log"), "1")
	s := open(t, dir.Options{Path: path, Ignore: []string{filepath.Join(path, "data")}})
	first := sourcetest.Await(t, s, "")
	if diff := cmp.Diff(map[string]string{"a": "1"}, sourcetest.Contents(t, first.FS)); diff != "" {
		t.Error(diff)
	}
	write(t, filepath.Join(path, "data", "log"), "2")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx, first.Revision); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next: %v, want it to wait", err)
	}
}

// What is no file is named when it is read, and hinders nothing else.
func TestIrregular(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps no sockets in directories like this")
	}
	path := t.TempDir()
	write(t, filepath.Join(path, "a"), "1")
	pipe(t, filepath.Join(path, "pipe"))
	got := sourcetest.Await(t, open(t, dir.Options{Path: path}), "")
	if data, err := got.FS.ReadFile("a"); err != nil || string(data) != "1" {
		t.Errorf("a: %q, %v", data, err)
	}
	if _, err := got.FS.ReadFile("pipe"); err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("pipe: %v", err)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := dir.New(dir.Options{Path: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a missing directory: %v", err)
	}
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "x")
	if _, err := dir.New(dir.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
}
