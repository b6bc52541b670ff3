package git_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// within commits a submodule at vendor/sub.
func within(repo *sourcetest.Repo, url, commit string) string {
	return repo.CommitFiles("main",
		sourcetest.File{Path: ".gitmodules", Mode: sourcetest.Regular, Data: fmt.Sprintf("[submodule \"x\"]\n\tpath = vendor/sub\n\turl = %s\n", url)},
		sourcetest.File{Path: "vendor/sub", Mode: sourcetest.Submodule, Data: commit},
		sourcetest.File{Path: "own", Mode: sourcetest.Regular, Data: "own"})
}

func knowing(t *testing.T, hosts string) git.Credentials {
	t.Helper()
	c, err := git.ParseCredentials([]byte(hosts), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A submodule is read at its commit, from the repository's own host and by a
// relative address, and so is one within it.
func TestSubmodules(t *testing.T) {
	t.Parallel()
	inner, sub, repo := sourcetest.NewRepo(t), sourcetest.NewRepo(t), sourcetest.NewRepo(t)
	deep := inner.Commit("main", map[string]string{"f": "deep"})
	inner.Commit("main", map[string]string{"f": "later"})
	sub.Commit("main", map[string]string{"a": "1"})
	nested := within(sub, sourcetest.ServeHTTP(t, inner, sourcetest.HTTPOptions{}).URL, deep)
	if err := os.Symlink(sub.Dir, filepath.Join(filepath.Dir(repo.Dir), "sub.git")); err != nil {
		t.Fatal(err)
	}
	own := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{Username: "ada", Password: "pw"})
	within(repo, "../sub.git", nested)
	s := open(t, git.Options{URL: own.URL, Auth: git.Auth{Username: "ada", PasswordFile: file(t, "pw")}})
	first := sourcetest.Await(t, s, "")
	read := func(snapshot sources.Snapshot) map[string]string {
		out := map[string]string{}
		for _, p := range []string{"own", "vendor/sub/a", "vendor/sub/own", "vendor/sub/vendor/sub/f"} {
			data, err := snapshot.FS.ReadFile(p)
			if err != nil {
				t.Errorf("%s: %v", p, err)
			}
			out[p] = string(data)
			if snapshot.FS.Blob(p) == "" {
				t.Errorf("%s has no hash", p)
			}
		}
		return out
	}
	want := map[string]string{"own": "own", "vendor/sub/a": "1", "vendor/sub/own": "own", "vendor/sub/vendor/sub/f": "deep"}
	if diff := cmp.Diff(want, read(first)); diff != "" {
		t.Error(diff)
	}
	within(repo, "../sub.git", sub.Commit("main", map[string]string{"a": "2"}))
	second := sourcetest.Await(t, s, first.Revision)
	want["vendor/sub/a"] = "2"
	if diff := cmp.Diff(want, read(second)); diff != "" {
		t.Error(diff)
	}
	if data, err := first.FS.ReadFile("vendor/sub/a"); err != nil || string(data) != "1" {
		t.Errorf("the first snapshot now says %q, %v", data, err)
	}
}

// A server that gives only what branches name is asked for all of them each time,
// into a new store: what stays the same in a submodule is read from there.
func TestSubmoduleOfBranchesOnly(t *testing.T) {
	t.Parallel()
	repo, sub := sourcetest.NewRepo(t), sourcetest.NewRepo(t)
	sub.Run("config", "uploadpack.allowAnySHA1InWant", "false")
	url := sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{}).URL
	s := open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL})
	var last sources.Snapshot
	for i := range 4 {
		commit := sub.Commit("main", map[string]string{"a": fmt.Sprint(i), "same/b": "b"})
		sub.Commit("main", map[string]string{"a": "later", "same/b": "b"})
		within(repo, url, commit)
		last = sourcetest.Await(t, s, last.Revision)
	}
	for name, want := range map[string]string{"vendor/sub/a": "3", "vendor/sub/same/b": "b"} {
		if data, err := last.FS.ReadFile(name); err != nil || string(data) != want {
			t.Errorf("%s is %q, want %q: %v", name, data, want, err)
		}
	}
}

// A submodule's store that is damaged is filled again, by the process that finds it
// so and by the next.
func TestSubmoduleStoreIsMended(t *testing.T) {
	t.Parallel()
	repo, sub, cache := sourcetest.NewRepo(t), sourcetest.NewRepo(t), t.TempDir()
	within(repo, sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{}).URL, sub.Commit("main", map[string]string{"a": "1"}))
	url := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
	harm := func() {
		packs, err := filepath.Glob(filepath.Join(cache, "modules", "*", "*", "objects", "pack", "*.pack"))
		if err != nil || len(packs) == 0 {
			t.Fatalf("packs %v, %v", packs, err)
		}
		for _, pack := range packs {
			data, err := os.ReadFile(pack)
			if err != nil {
				t.Fatal(err)
			}
			for i := 12; i < len(data); i++ {
				data[i] ^= 0x55
			}
			if err := errors.Join(os.Chmod(pack, 0o600), os.WriteFile(pack, data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := open(t, git.Options{URL: url, Cache: cache})
	wantRead := func(when string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; {
			snapshot := sourcetest.Await(t, s, "")
			data, err := snapshot.FS.ReadFile("vendor/sub/a")
			if err == nil && string(data) == "1" {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			_, _ = s.Next(ctx, snapshot.Revision) // it looks, and there is nothing new
			cancel()
			if time.Now().After(end) {
				t.Fatalf("%s: it says %q, %v", when, data, err)
			}
		}
	}
	sourcetest.Await(t, s, "")
	harm()
	wantRead("harmed while it is followed")
	harm()
	s = open(t, git.Options{URL: url, Cache: cache})
	wantRead("harmed before the start")
}

// What no commit has any more takes no room, before and after a restart; the
// commit before the newest can still be read.
func TestSubmodulesGo(t *testing.T) {
	t.Parallel()
	repo, cache := sourcetest.NewRepo(t), t.TempDir()
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	s := open(t, git.Options{URL: server.URL, Cache: cache})
	var last sources.Snapshot
	next := func(commit string) {
		t.Helper()
		before := last
		last = sourcetest.Await(t, s, before.Revision)
		if before.FS == nil {
			return
		}
		if data, err := before.FS.ReadFile("vendor/sub/a"); err != nil || string(data) != "1" {
			t.Errorf("beside %s the one before says %q, %v", commit, data, err)
		}
	}
	stores := func(want int) {
		t.Helper()
		if found, err := os.ReadDir(filepath.Join(cache, "modules")); err != nil || len(found) != want {
			t.Errorf("there are %d stores of submodules, want %d: %v", len(found), want, err)
		}
	}
	for i := range 4 {
		sub := sourcetest.NewRepo(t)
		next(within(repo, sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{}).URL, sub.Commit("main", map[string]string{"a": "1"})))
		stores(min(i+1, 2))
	}
	s = open(t, git.Options{URL: server.URL, Cache: cache})
	last = sources.Snapshot{}
	next("")
	stores(1)
	repo.Commit("main", map[string]string{"own": "alone"})
	next("alone")
	stores(1)
}

// What a repository's text may not ask for is told where the submodule is read;
// all else is read.
func TestSubmodulesRefused(t *testing.T) {
	t.Parallel()
	sub := sourcetest.NewRepo(t)
	commit := sub.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{})
	elsewhere := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct{ url, commit, want string }{
		{"file://" + sub.Dir, commit, "a path on this machine"},
		{sub.Dir, commit, "a path on this machine"},
		{"ext::sh -c touch% /tmp/x", commit, "asks for a program"},
		{"-u./evil", commit, "no repository's address"},
		{"--upload-pack=touch /tmp/x", commit, "no repository's address"},
		{"git://127.0.0.1/x", commit, "proves neither who serves"},
		{"ssh://-oProxyCommand=x/y", commit, "no host"},
		{"../../../../etc", commit, "no such repository"},
		{elsewhere, commit, "host localhost is neither"},
		{"http://169.254.169.254/latest", commit, "host 169.254.169.254 is neither"},
		{server.URL, strings.Repeat("12", 20), "there is no commit"},
		{"", commit, ".gitmodules doesn't name"},
	} {
		repo := sourcetest.NewRepo(t)
		within(repo, c.url, c.commit)
		fsys := sourcetest.Await(t, open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL}), "").FS
		if data, err := fsys.ReadFile("own"); err != nil || string(data) != "own" {
			t.Errorf("%s: beside it: %q, %v", c.url, data, err)
		}
		if _, err := fsys.ReadFile("vendor/sub/a"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant it to say %q", c.url, err, c.want)
		}
		if _, err := fsys.Stat("vendor/sub"); err == nil {
			t.Errorf("%s: Stat succeeds", c.url)
		}
	}
	repo := sourcetest.NewRepo(t)
	within(repo, "../sub.git", commit)
	if _, err := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir, Cache: t.TempDir()}), "").FS.ReadFile("vendor/sub/a"); err == nil || !strings.Contains(err.Error(), "write the whole URL") {
		t.Errorf("relative to a path: %v", err)
	}
}

// Another host is asked where the credentials name it, and gets its own alone.
func TestSubmoduleOfAnotherHost(t *testing.T) {
	t.Parallel()
	sub, repo := sourcetest.NewRepo(t), sourcetest.NewRepo(t)
	commit := sub.Commit("main", map[string]string{"a": "1"})
	other := sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{})
	within(repo, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), commit)
	own := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{Username: "ada", Password: "pw"})
	for name, o := range map[string]git.Options{
		"a host":             {URL: own.URL, Auth: git.Auth{Username: "ada", PasswordFile: file(t, "pw")}},
		"a path, as it lies": {URL: repo.Dir},
	} {
		o.Credentials, o.Cache = knowing(t, "hosts: {localhost: {}}"), t.TempDir()
		if data, err := sourcetest.Await(t, open(t, o), "").FS.ReadFile("vendor/sub/a"); err != nil || string(data) != "1" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, h := range other.Headers() {
		if got := h.Get("Authorization"); got != "" {
			t.Errorf("the other host got %q", got)
		}
	}
}

// A submodule's host that doesn't answer is no text's fault: it is tried again.
func TestSubmoduleHostGoesAndComesBack(t *testing.T) {
	t.Parallel()
	sub, repo := sourcetest.NewRepo(t), sourcetest.NewRepo(t)
	commit := sub.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeHTTP(t, sub, sourcetest.HTTPOptions{})
	within(repo, server.URL, commit)
	server.Down()
	s := open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL})
	refused(t, s, sources.Snapshot{}, sources.ErrUnavailable, "the submodule vendor/sub")
	server.Up()
	if data, err := sourcetest.Await(t, s, "").FS.ReadFile("vendor/sub/a"); err != nil || string(data) != "1" {
		t.Errorf("after it came back: %q, %v", data, err)
	}
}

// A repository within itself, over and over, ends at the limit.
func TestSubmodulesWithoutEnd(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Run("config", "uploadpack.allowReachableSHA1InWant", "true")
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	commit := repo.Commit("main", map[string]string{"a": "0"})
	for range git.MaxModuleNesting + 2 {
		commit = within(repo, server.URL, commit)
	}
	fsys := sourcetest.Await(t, open(t, git.Options{URL: server.URL}), "").FS
	at := strings.Repeat("vendor/sub/", git.MaxModuleNesting)
	if data, err := fsys.ReadFile(at + "own"); err != nil || string(data) != "own" {
		t.Errorf("the deepest that is read: %q, %v", data, err)
	}
	if _, err := fsys.ReadFile(at + "vendor/sub/own"); err == nil || !strings.Contains(err.Error(), "git.MaxModuleNesting") {
		t.Errorf("one deeper: %v", err)
	}
	if _, err := fsys.ReadFile("nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("beside: %v", err)
	}
}

// Whatever a .gitmodules says, it names paths inside the tree or nothing.
func FuzzModules(f *testing.F) {
	f.Add([]byte("[submodule \"x\"]\n\tpath = vendor/sub\n\turl = ../x\n"))
	f.Add([]byte("[submodule \"../../x\"]\n\tpath = ../a\n\turl = -u\n[submodule]\npath"))
	f.Add([]byte("[include]\n\tpath = /etc/passwd\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		listed, err := git.ParseModules(raw)
		for path := range listed {
			if err != nil || strings.HasPrefix(path, "/") || strings.HasPrefix(path, "..") {
				t.Errorf("%q, %v", path, err)
			}
		}
	})
}

// Whatever claims to be a pack, looking through it ends, soon and without a crash.
func FuzzPack(f *testing.F) {
	_, objects := oneCommit("hello")
	f.Add(packOf(3, objects...))
	f.Add(packOf(1<<31, objects...))
	f.Add(packOf(4, append(objects, again(objects[2], 3))...))
	f.Fuzz(func(t *testing.T, raw []byte) { _ = git.CheckPack(raw) })
}
