package sourcetest

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
)

// patience is how long the suite waits for what must come, calm how long it
// watches that nothing comes.
const (
	patience = 2 * time.Minute
	calm     = 300 * time.Millisecond
)

// Await is Next with patience, trying again where the source is unavailable.
func Await(t testing.TB, s sources.Source, last state.Revision) sources.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		snapshot, err := s.Next(ctx, last)
		if err == nil {
			if snapshot.Revision == last || snapshot.Revision == "" || snapshot.FS == nil || snapshot.Label == "" {
				t.Fatalf("Next(%s) = %+v: want another whole snapshot", last, snapshot)
			}
			return snapshot
		}
		if !errors.Is(err, sources.ErrUnavailable) {
			t.Fatalf("Next(%s): %v", last, err)
		}
	}
}

// Contents are all files of a tree.
func Contents(t testing.TB, tree fs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(tree, path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Run runs the conformance suite. Each case gets a repository with a branch main
// and a source of it that new makes.
func Run(t *testing.T, create func(t *testing.T, repo *Repo) sources.Source) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, *Repo, func(*testing.T, *Repo) sources.Source)
	}{
		{"first snapshot and the next", testSequence},
		{"waits while nothing changes", testWaits},
		{"forced push", testForced},
		{"skips to the newest", testSkips},
		{"file system", testFS},
		{"links", testLinks},
		{"big file", testBig},
		{"equal trees have equal hashes", testStable},
		{"a snapshot outlives the next", testOutlives},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, NewRepo(t), create)
		})
	}
}

func start(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source, files map[string]string) (sources.Source, sources.Snapshot) {
	t.Helper()
	repo.Commit("main", files)
	s := create(t, repo)
	return s, Await(t, s, "")
}

func testSequence(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	files := map[string]string{"app.yaml": "one", "deploy/web.yaml": "two"}
	s, first := start(t, repo, create, files)
	if diff := cmp.Diff(files, Contents(t, first.FS)); diff != "" {
		t.Fatal(diff)
	}
	files["deploy/web.yaml"], files["deploy/db.yaml"] = "three", "four"
	repo.Commit("main", files)
	second := Await(t, s, first.Revision)
	if diff := cmp.Diff(files, Contents(t, second.FS)); diff != "" {
		t.Fatal(diff)
	}
	if a, b := first.FS.Blob("app.yaml"), second.FS.Blob("app.yaml"); a == "" || a != b {
		t.Errorf("the hash of a file that didn't change was %q and is %q", a, b)
	}
	if a, b := first.FS.Blob("deploy/web.yaml"), second.FS.Blob("deploy/web.yaml"); a == b {
		t.Errorf("the hash of a file that changed is %q as before", a)
	}
	repo.CommitFiles("main", File{Path: "deploy/db.yaml", Mode: Gone})
	third := Await(t, s, second.Revision)
	if _, err := third.FS.Stat("deploy/db.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed file is still there: %v", err)
	}
	if again := Await(t, s, ""); again.Revision != third.Revision {
		t.Errorf("asked anew, the source gives %s, want %s", again.Revision, third.Revision)
	}
}

func testWaits(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	s, first := start(t, repo, create, map[string]string{"a": "1"})
	ctx, cancel := context.WithTimeout(t.Context(), calm)
	defer cancel()
	if snapshot, err := s.Next(ctx, first.Revision); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next = %s, %v, want it to wait for the context's end", snapshot.Revision, err)
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Next(cancelled, first.Revision); !errors.Is(err, context.Canceled) {
		t.Fatalf("Next with a cancelled context: %v", err)
	}
	repo.Commit("main", map[string]string{"a": "2"}) // and goes on afterwards
	Await(t, s, first.Revision)
}

func testForced(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	base := repo.Commit("main", map[string]string{"a": "0"})
	s, first := start(t, repo, create, map[string]string{"a": "1", "gone": "yes"})
	repo.Reset("main", base)
	repo.Commit("main", map[string]string{"a": "2"})
	next := Await(t, s, first.Revision)
	for next.FS.Blob("gone") != "" { // the state between the two commands may be seen
		next = Await(t, s, next.Revision)
	}
	for Contents(t, next.FS)["a"] != "2" {
		next = Await(t, s, next.Revision)
	}
	repo.Reset("main", base)
	if got := Contents(t, Await(t, s, next.Revision).FS); got["a"] != "0" {
		t.Errorf("after the branch was set back: %v", got)
	}
}

func testSkips(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	s, last := start(t, repo, create, map[string]string{"n": "0"})
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		repo.Commit("main", map[string]string{"n": n})
	}
	for got := ""; got != "5"; got = Contents(t, last.FS)["n"] {
		last = Await(t, s, last.Revision)
	}
}

func testFS(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	files := map[string]string{"a.yaml": "a", "empty": "", "x/y/z.txt": strings.Repeat("z", 70_000), "x/b": "b", "linux/k.yaml": "k", "x.d/c": "c"}
	_, snapshot := start(t, repo, create, files)
	if err := fstest.TestFS(snapshot.FS, slices.Collect(maps.Keys(files))...); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"nothing", "x/nothing", "a.yaml/below", "../a.yaml", "/a.yaml", "x/../a.yaml", ""} {
		if _, err := snapshot.FS.ReadFile(path); err == nil {
			t.Errorf("ReadFile(%q) succeeds", path)
		}
		if hash := snapshot.FS.Blob(path); hash != "" {
			t.Errorf("Blob(%q) = %q", path, hash)
		}
	}
	if _, err := snapshot.FS.ReadFile("x"); err == nil {
		t.Error("a directory is read as a file")
	}
}

func testLinks(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	repo.CommitFiles("main",
		File{"base/a", Regular, "content"}, File{"good", Link, "base/a"}, File{"up/link", Link, "../base/a"}, File{"dir", Link, "base"},
		File{"twice", Link, "good"}, File{"escape", Link, "../outside"}, File{"deep/escape", Link, "../../etc/passwd"}, File{"absolute", Link, "/etc/passwd"},
		File{"loop", Link, "loop2"}, File{"loop2", Link, "loop"}, File{"self", Link, "self/x"}, File{"dangling", Link, "nothing"})
	tree := Await(t, create(t, repo), "").FS
	for _, path := range []string{"good", "up/link", "dir/a", "twice"} {
		if data, err := tree.ReadFile(path); err != nil || string(data) != "content" {
			t.Errorf("ReadFile(%s) = %q, %v", path, data, err)
		}
		if tree.Blob(path) != tree.Blob("base/a") {
			t.Errorf("Blob(%s) is not that of what it links to", path)
		}
	}
	for _, path := range []string{"escape", "deep/escape", "absolute", "loop", "self", "dangling"} {
		_, err := tree.ReadFile(path)
		var named *fs.PathError
		if !errors.As(err, &named) || named.Path != path {
			t.Errorf("ReadFile(%s): %v, want an error that names it", path, err)
		}
		if _, err := tree.Stat(path); err == nil {
			t.Errorf("Stat(%s) succeeds", path)
		}
	}
}

func testBig(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	_, snapshot := start(t, repo, create, map[string]string{"small": "s", "big.bin": strings.Repeat("0123456789abcdef", 11<<20/16)})
	if data, err := snapshot.FS.ReadFile("small"); err != nil || string(data) != "s" {
		t.Errorf("beside a big file: %q, %v", data, err)
	}
	list, err := snapshot.FS.ReadDir(".")
	if err != nil || len(list) != 2 {
		t.Errorf("ReadDir: %v, %v", list, err)
	}
	_, err = snapshot.FS.ReadFile("big.bin")
	var named *fs.PathError
	if !errors.As(err, &named) || named.Path != "big.bin" || !strings.Contains(err.Error(), "MaxFileSize") {
		t.Errorf("reading 11 MiB: %v, want the file and the limit named", err)
	}
}

func testStable(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	_, first := start(t, repo, create, map[string]string{"a": "1", "b/c": "2"})
	other := Await(t, create(t, repo), "")
	if first.Revision != other.Revision {
		t.Errorf("two sources of one commit say %s and %s", first.Revision, other.Revision)
	}
	for _, path := range []string{"a", "b/c"} {
		if first.FS.Blob(path) != other.FS.Blob(path) {
			t.Errorf("two sources of one commit have other hashes of %s", path)
		}
	}
}

func testOutlives(t *testing.T, repo *Repo, create func(*testing.T, *Repo) sources.Source) {
	s, first := start(t, repo, create, map[string]string{"a": "1"})
	repo.Commit("main", map[string]string{"a": "2"})
	second := Await(t, s, first.Revision)
	if got := Contents(t, first.FS)["a"]; got != "1" {
		t.Errorf("the first snapshot now says %q", got)
	}
	if got := Contents(t, second.FS)["a"]; got != "2" {
		t.Errorf("the second snapshot says %q", got)
	}
}
