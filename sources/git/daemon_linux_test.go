package git_test

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// daemons are real servers of a repository, and how each is followed.
func daemons(t *testing.T, repo *sourcetest.Repo) map[*sourcetest.Daemon]git.Options {
	t.Helper()
	plain, shell := sourcetest.ServeDaemon(t, repo), sourcetest.ServeSSHD(t, repo)
	return map[*sourcetest.Daemon]git.Options{
		plain:        {URL: plain.URL},
		shell.Daemon: {URL: shell.URL, Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: shell.KnownHostsFile}},
	}
}

// noise is a text that no pack makes small.
func noise(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a seed, not a secret
	raw := make([]byte, 200_000)
	for i := range raw {
		raw[i] = byte('a' + r.IntN(26))
	}
	return string(raw)
}

// TestKilledInTransfer: a server is killed while it sends objects, stays away, and
// comes back: nothing half is left, and the next look gets all.
func TestKilledInTransfer(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	n := uint64(0)
	for server, o := range daemons(t, repo) {
		n++
		o.Cache = t.TempDir()
		s := open(t, o)
		first := sourcetest.Await(t, s, "")
		server.Stall()
		repo.Commit("main", map[string]string{"noise": noise(n)})
		broke := make(chan error, 1)
		go func() {
			_, err := s.Next(t.Context(), first.Revision)
			broke <- err
		}()
		for end := time.Now().Add(time.Minute); !server.Stalled(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: no transfer began", server.URL)
			}
		}
		server.Down()
		if err := <-broke; !errors.Is(err, sources.ErrUnavailable) {
			t.Fatalf("%s: killed in a transfer: %v", server.URL, err)
		}
		left, err := filepath.Glob(filepath.Join(o.Cache, "*", "objects", "pack", "incoming-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left behind %v, %v", server.URL, left, err)
		}
		refused(t, s, first, sources.ErrUnavailable, "refused")
		server.Well()
		server.Up()
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, first.Revision).FS); got["noise"] != noise(n) || got["a"] != "1" {
			t.Errorf("%s: after the server was killed the files differ", server.URL)
		}
	}
}

// TestSlowDaemons: a server that sends little by little is waited for, one that
// stands still is given up.
func TestSlowDaemons(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1", "noise": noise(1)})
	for server, o := range daemons(t, repo) {
		o.SetIdle(time.Second) // a second and a half are 15 times nothing for a tenth
		server.Slow()
		if got := sourcetest.Contents(t, sourcetest.Await(t, open(t, o), "").FS)["noise"]; got != noise(1) {
			t.Errorf("%s: slowly came something else", server.URL)
		}
		server.Well()
		server.Stall()
		s := open(t, o)
		began := time.Now()
		refused(t, s, sources.Snapshot{}, sources.ErrUnavailable, "the transfer broke after")
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: given up after %s", server.URL, took)
		}
		server.Well()
		sourcetest.Await(t, s, "")
	}
}

// TestGitProtocol: git:// proves nothing, so it is spoken with this machine, and
// with hosts that the credentials trust by name; nothing is pushed over it.
func TestGitProtocol(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	first := repo.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeDaemon(t, repo)
	refused(t, open(t, git.Options{URL: strings.TrimSuffix(server.URL, "repo.git") + "none.git"}), sources.Snapshot{}, sources.ErrNotFound, "the server says", "none.git")

	var problem state.Problem
	elsewhere := git.Options{URL: "git://git.example/x.git", Cache: t.TempDir()}
	if _, err := git.New(elsewhere); !errors.As(err, &problem) || !strings.Contains(problem.Remedy, "gitProtocol: true") {
		t.Errorf("git:// to a host that nobody trusts: %v", err)
	}
	trusted, err := git.ParseCredentials([]byte("hosts: {git.example: {gitProtocol: true}}"), "/")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Auth = trusted.For(elsewhere.URL)
	if _, err := git.New(elsewhere); err != nil {
		t.Errorf("git:// to a host that the credentials trust: %v", err)
	}
	if elsewhere.Auth = trusted.For("git://git.other.example/x.git"); elsewhere.Auth.GitProtocol {
		t.Error("another host is trusted along with it")
	}
	for _, url := range []string{"git://", "git://host", "git://user@host/x", "git://127.0.0.1/x%00host=other", "git://127.0.0.1/x%0a"} {
		if _, err := git.New(git.Options{URL: url, Cache: t.TempDir()}); !errors.As(err, &problem) {
			t.Errorf("%s: %v", url, err)
		}
	}
	var no *git.RefusedError
	if err := git.Push(t.Context(), git.Options{URL: server.URL}, git.Move{Branch: "main", Old: first, New: strings.Repeat("12", 20)}); !errors.As(err, &no) || !strings.Contains(err.Error(), "git://") {
		t.Errorf("push: %v", err)
	}
}

// TestSubmodulesOfDaemons: a submodule may be beside its repository on the same
// daemon. A repository that was read over what proves something may not name
// git://, but where the credentials trust the host.
func TestSubmodulesOfDaemons(t *testing.T) {
	t.Parallel()
	sub := sourcetest.NewRepo(t)
	commit := sub.Commit("main", map[string]string{"a": "1"})
	repo := sourcetest.NewRepo(t)
	server := sourcetest.ServeDaemon(t, sub)
	within(repo, server.URL, commit)
	outer, web := sourcetest.ServeDaemon(t, repo), sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	for url, o := range map[string]git.Options{
		"from git://":          {URL: outer.URL},
		"from http, trusted":   {URL: web.URL, Credentials: must(git.ParseCredentials([]byte("hosts: {127.0.0.1: {gitProtocol: true}}"), "/"))},
		"from http, untrusted": {URL: web.URL},
	} {
		data, err := sourcetest.Await(t, open(t, o), "").FS.ReadFile("vendor/sub/a")
		if strings.HasSuffix(url, "untrusted") {
			if err == nil || !strings.Contains(err.Error(), "proves neither who serves") {
				t.Errorf("%s: %q, %v", url, data, err)
			}
		} else if err != nil || string(data) != "1" {
			t.Errorf("%s: %q, %v", url, data, err)
		}
	}
}
