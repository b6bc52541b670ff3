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

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused runs Next once and wants an error of a class that names what it should.
func refused(t *testing.T, s sources.Source, last sources.Snapshot, class error, words ...string) {
	t.Helper()
	_, err := s.Next(t.Context(), last.Revision)
	if !errors.Is(err, class) || !errors.Is(err, sources.ErrUnavailable) {
		t.Fatalf("Next: %v, want the classes %v and %v", err, class, sources.ErrUnavailable)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Next: %v\nwant it to say %q", err, w)
		}
	}
}

func TestCommit(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	parent := repo.Commit("main", map[string]string{"a": "1"})
	hash := repo.Commit("main", map[string]string{"a": "2"})
	got := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "")
	if want := "main@sha1:" + hash; string(got.Revision) != want {
		t.Errorf("revision %s, want %s", got.Revision, want)
	}
	if want := "main@" + hash[:7]; got.Label != want {
		t.Errorf("label %s, want %s", got.Label, want)
	}
	c := got.Commit
	if c.Hash != hash || c.Author.Name != "Ada" || c.Committer.Email != "grace@example.com" || !strings.HasPrefix(c.Message, "change 1 files\n\nAll") {
		t.Errorf("commit %+v", c)
	}
	if diff := cmp.Diff([]string{parent}, c.Parents); diff != "" {
		t.Error(diff)
	}
	if c.Committer.When.Unix()-c.Author.When.Unix() != 5 {
		t.Errorf("times %v and %v", c.Author.When, c.Committer.When)
	}
}

func TestSignatureIsRaw(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	tree := repo.Object("tree", "")
	block := "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----"
	commit := repo.Object("commit", "tree "+tree+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\ngpgsig "+strings.ReplaceAll(block, "\n", "\n ")+"\n\nhello\n")
	repo.Reset("main", commit)
	got := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "")
	if strings.TrimSpace(got.Commit.Signature) != block {
		t.Errorf("signature %q", got.Commit.Signature)
	}
}

func TestPinnedCommit(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	old := repo.Commit("main", map[string]string{"a": "1"})
	repo.Commit("main", map[string]string{"a": "2"})
	reachable := sourcetest.NewRepo(t)
	wanted := reachable.Commit("main", map[string]string{"a": "1"})
	reachable.Commit("main", map[string]string{"a": "2"})
	reachable.Run("config", "uploadpack.allowReachableSHA1InWant", "true")
	for name, o := range map[string]git.Options{
		"path":                      {URL: repo.Dir, Commit: old},
		"server that serves tips":   {URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL, Commit: old},
		"server that serves hashes": {URL: sourcetest.ServeHTTP(t, reachable, sourcetest.HTTPOptions{}).URL, Commit: wanted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, o)
			got := sourcetest.Await(t, s, "")
			if string(got.Revision) != "commit@sha1:"+o.Commit || sourcetest.Contents(t, got.FS)["a"] != "1" {
				t.Errorf("got %s", got.Revision)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.Next(ctx, got.Revision); !errors.Is(err, context.Canceled) {
				t.Errorf("Next after the only revision: %v", err)
			}
		})
	}
	missing := strings.Repeat("ab", 20)
	refused(t, open(t, git.Options{URL: repo.Dir, Commit: missing}), sources.Snapshot{}, sources.ErrNotFound, missing)
	refused(t, open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL, Commit: missing}), sources.Snapshot{}, sources.ErrNotFound, missing)
}

func TestTag(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	hash := repo.Commit("main", map[string]string{"a": "1"})
	repo.Run("tag", "-a", "-m", "one", "v1", hash)
	for _, url := range []string{repo.Dir, sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL} {
		got := sourcetest.Await(t, open(t, git.Options{URL: url, Ref: "refs/tags/v1"}), "")
		if string(got.Revision) != "refs/tags/v1@sha1:"+hash {
			t.Errorf("%s: revision %s", url, got.Revision)
		}
	}
}

// What a host keeps of a request to merge is followed by its short name.
func TestPullRequest(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	hash := repo.Commit("feature", map[string]string{"a": "2"})
	for _, ref := range []string{"pull/12/head", "merge-requests/7/head"} {
		repo.Run("update-ref", "refs/"+ref, hash)
		for _, url := range []string{repo.Dir, sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL} {
			got := sourcetest.Await(t, open(t, git.Options{URL: url, Ref: ref}), "")
			if string(got.Revision) != ref+"@sha1:"+hash {
				t.Errorf("%s of %s: revision %s", ref, url, got.Revision)
			}
		}
	}
	refused(t, open(t, git.Options{URL: repo.Dir, Ref: "pull/13/head"}), sources.Snapshot{}, sources.ErrNotFound, "refs/pull/13/head")
}

// A branch that goes is an error that says so, and no end: it may come back.
func TestBranchGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		repo := sourcetest.NewRepo(t)
		repo.Commit("other", map[string]string{"a": "1"})
		hash := repo.Commit("main", map[string]string{"a": "1"})
		url := repo.Dir
		if remote {
			url = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
		}
		s := open(t, git.Options{URL: url, Ref: "main"})
		first := sourcetest.Await(t, s, "")
		repo.Delete("main")
		refused(t, s, first, sources.ErrNotFound, "no branch main", "other")
		repo.Reset("main", hash)
		repo.Commit("main", map[string]string{"a": "2"})
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, first.Revision).FS)["a"]; got != "2" {
			t.Errorf("after it came back: %q", got)
		}
	}
}

func TestServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	web := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	shell := sourcetest.ServeSSH(t, repo)
	for name, o := range map[string]git.Options{
		"http": {URL: web.URL},
		"ssh":  {URL: shell.URL, Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: shell.KnownHostsFile}},
	} {
		server := map[string]*sourcetest.Server{"http": web, "ssh": shell}[name]
		s := open(t, o)
		first := sourcetest.Await(t, s, "")
		server.Down()
		refused(t, s, first, sources.ErrUnavailable, "refused")
		server.Up()
		repo.Commit("main", map[string]string{"a": name})
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, first.Revision).FS)["a"]; got != name {
			t.Errorf("%s: after it came back: %q", name, got)
		}
	}
}

// A transfer that breaks leaves nothing half: the next one starts from what was
// there before.
func TestInterruptedTransfer(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	web := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	shell := sourcetest.ServeSSH(t, repo)
	for name, o := range map[string]git.Options{
		"http": {URL: web.URL},
		"ssh":  {URL: shell.URL, Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: shell.KnownHostsFile}},
	} {
		server := map[string]*sourcetest.Server{"http": web, "ssh": shell}[name]
		o.Cache = t.TempDir()
		s := open(t, o)
		first := sourcetest.Await(t, s, "")
		noise := make([]byte, 1<<20)
		for i := range noise {
			noise[i] = byte(i * i >> 7 * len(name))
		}
		repo.Commit("main", map[string]string{"noise": string(noise), "a": name})
		server.Cut.Store(600)
		refused(t, s, first, sources.ErrUnavailable)
		left, err := filepath.Glob(filepath.Join(o.Cache, "*", "objects", "pack", "incoming-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left behind %v, %v", name, left, err)
		}
		server.Cut.Store(0)
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, first.Revision).FS); got["noise"] != string(noise) || got["a"] != name {
			t.Errorf("%s: after a broken transfer the files differ", name)
		}
	}
}

// A second process starts from the store of the first, and asks for no objects
// that it has; a damaged store is filled again.
func TestStoreIsKeptAndMended(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1", "d/b": "2"})
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	cache := t.TempDir()
	sourcetest.Await(t, open(t, git.Options{URL: server.URL, Cache: cache}), "")
	sourcetest.Await(t, open(t, git.Options{URL: server.URL, Cache: cache}), "")
	if n := server.Packs.Load(); n != 1 {
		t.Errorf("%d transfers, want 1", n)
	}
	packs, err := filepath.Glob(filepath.Join(cache, "*", "objects", "pack", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs %v, %v", packs, err)
	}
	data, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 12; i < len(data); i++ {
		data[i] ^= 0x55
	}
	if err := os.Chmod(packs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packs[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := sourcetest.Contents(t, sourcetest.Await(t, open(t, git.Options{URL: server.URL, Cache: cache}), "").FS)
	if diff := cmp.Diff(map[string]string{"a": "1", "d/b": "2"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	web := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{TLS: true, Username: "ada", Password: "right"})
	shell := sourcetest.ServeSSH(t, repo)
	another := sourcetest.ServeSSH(t, repo)
	none := sources.Snapshot{}
	refused(t, open(t, git.Options{URL: web.URL, Auth: git.Auth{CAFile: web.CAFile}}), none, sources.ErrDenied, "password")
	wrong := open(t, git.Options{URL: web.URL, Auth: git.Auth{CAFile: web.CAFile, Username: "ada", PasswordFile: file(t, "wrong-secret")}})
	_, err := wrong.Next(t.Context(), "")
	if !errors.Is(err, sources.ErrDenied) || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("a wrong password: %v", err)
	}
	refused(t, open(t, git.Options{URL: web.URL, Auth: git.Auth{Username: "ada", PasswordFile: file(t, "right")}}), none, sources.ErrUnavailable, "certificate")
	refused(t, open(t, git.Options{URL: shell.URL, Auth: git.Auth{SSHKeyFile: another.KeyFile, KnownHostsFile: shell.KnownHostsFile}}), none, sources.ErrDenied, "refuses the SSH key")
	refused(t, open(t, git.Options{URL: shell.URL, Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: file(t, "")}}), none, sources.ErrDenied, "not a known host", "ssh-keyscan", "SHA256:")
	line, err := os.ReadFile(another.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	host := strings.Fields(string(must(os.ReadFile(shell.KnownHostsFile))))[0]
	fields := strings.Fields(string(line))
	fields[0] = host
	refused(t, open(t, git.Options{URL: shell.URL, Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: file(t, strings.Join(fields, " ")+"\n")}}), none, sources.ErrDenied, "another key")
	refused(t, open(t, git.Options{URL: strings.TrimSuffix(shell.URL, "repo.git") + "none.git", Auth: git.Auth{SSHKeyFile: shell.KeyFile, KnownHostsFile: shell.KnownHostsFile}}), none, sources.ErrNotFound)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Credentials belong to one host: a redirect elsewhere goes without them.
func TestRedirectGetsNoCredentials(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	target := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	base := strings.TrimSuffix(target.URL, "/"+filepath.Base(repo.Dir))
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{Redirect: base})
	sourcetest.Await(t, open(t, git.Options{URL: server.URL, Auth: git.Auth{Username: "ada", PasswordFile: file(t, "secret")}}), "")
	if h := server.Headers(); len(h) == 0 || h[0].Get("Authorization") == "" {
		t.Error("the repository's own host got no credentials")
	}
	if len(target.Headers()) == 0 {
		t.Error("the redirect was not followed")
	}
	for _, h := range target.Headers() {
		if got := h.Get("Authorization"); got != "" {
			t.Errorf("another host got %q", got)
		}
	}
}

func TestHostileTrees(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	blob := repo.Object("blob", "x")
	raw := func(mode, name, hash string) string {
		b := make([]byte, 20)
		for i := range b {
			b[i] = unhex(hash[2*i])<<4 | unhex(hash[2*i+1])
		}
		return mode + " " + name + "\x00" + string(b)
	}
	names := []string{"..", ".", ".git", ".GIT", "git~1", ".git ", ".git::$INDEX_ALLOCATION", "a/b", "\xff"}
	for _, name := range names {
		tree := repo.Object("tree", raw("100644", name, blob))
		root := repo.Object("tree", raw("40000", "bad", tree)+raw("100644", "good", blob))
		repo.Reset("main", repo.Object("commit", "tree "+root+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"))
		fsys := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "").FS
		if data, err := fsys.ReadFile("good"); err != nil || string(data) != "x" {
			t.Errorf("%q: the file beside: %q, %v", name, data, err)
		}
		if list, err := fsys.ReadDir("bad"); err == nil {
			t.Errorf("%q: listed %v", name, list)
		}
	}
	deep := repo.Object("tree", raw("100644", "f", blob))
	for range 100 {
		deep = repo.Object("tree", raw("40000", "d", deep))
	}
	repo.Reset("main", repo.Object("commit", "tree "+deep+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"))
	if _, err := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "").FS.ReadDir("."); err == nil || !strings.Contains(err.Error(), "MaxDepth") {
		t.Errorf("a deep tree: %v", err)
	}
	bomb := deep[:0] + repo.Object("tree", raw("100644", "f", blob))
	for range 20 {
		var b strings.Builder
		for _, n := range []string{"0", "1", "2", "3", "4", "5", "6", "7"} {
			b.WriteString(raw("40000", n, bomb))
		}
		bomb = repo.Object("tree", b.String())
	}
	repo.Reset("main", repo.Object("commit", "tree "+bomb+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"))
	if _, err := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "").FS.ReadDir("."); err == nil || !strings.Contains(err.Error(), "MaxFiles") {
		t.Errorf("a tree of 8^20 files: %v", err)
	}
}

// A directory of very many files, and one whose listing is none, are for who
// wrote the commit to mend: they are told where they are read.
func TestHostileListings(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	blob := repo.Object("blob", "x")
	commit := func(tree string) {
		repo.Reset("main", repo.Object("commit", "tree "+tree+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"))
	}
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "100644 %08d\x00%s", i, unhexed(blob))
		}
		return repo.Object("tree", b.String())
	}
	for n, want := range map[int]string{200_000: "tree.MaxFiles", 1_000_000: "git.maxTreeObject"} {
		commit(many(n))
		for _, url := range []string{repo.Dir, sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL} {
			if _, err := sourcetest.Await(t, open(t, git.Options{URL: url}), "").FS.ReadDir("."); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d files: %v, want %s", n, err, want)
			}
		}
	}
	bad := repo.Object("tree", "100644 a\x00short")
	commit(repo.Object("tree", "40000 bad\x00"+unhexed(bad)+"100644 good\x00"+unhexed(blob)))
	fsys := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "").FS
	if data, err := fsys.ReadFile("good"); err != nil || string(data) != "x" {
		t.Errorf("beside it: %q, %v", data, err)
	}
	if _, err := fsys.ReadFile("bad/a"); err == nil || !strings.Contains(err.Error(), "commit it anew") {
		t.Errorf("in it: %v", err)
	}
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func TestSubmodule(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.CommitFiles("main", sourcetest.File{Path: "sub", Mode: sourcetest.Submodule, Data: strings.Repeat("12", 20)}, sourcetest.File{Path: "a", Mode: sourcetest.Regular, Data: "1"})
	fsys := sourcetest.Await(t, open(t, git.Options{URL: repo.Dir}), "").FS
	for _, path := range []string{"sub", "sub/x.yaml"} {
		if _, err := fsys.ReadFile(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "submodule") {
			t.Errorf("ReadFile(%s): %v", path, err)
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []git.Options{
		{},
		{URL: "-u"},
		{URL: "git://host/x", Cache: "c"},
		{URL: "ssh://host/x%00y", Cache: "c"},
		{URL: "ssh://host/x%0ay", Cache: "c"},
		{URL: "ext::sh -c x"},
		{URL: "ftp://host/x"},
		{URL: "https://"},
		{URL: "ssh://host"},
		{URL: "https://user:secret@host/x", Cache: "c"},
		{URL: "http://host/x", Cache: "c", Auth: git.Auth{PasswordEnv: "X"}},
		{URL: "https://host/x"},
		{URL: "x", Ref: "a..b"},
		{URL: "x", Ref: "-x"},
		{URL: "x", Ref: "a b"},
		{URL: "x", Ref: "a@b"},
		{URL: "x", Ref: "refs/heads/../x"},
		{URL: "x", Ref: "a\nb"},
		{URL: "x", Tag: "refs/tags/v1"},
		{URL: "x", Tag: "-v"},
		{URL: "x", Tag: "v1", Ref: "main"},
		{URL: "x", Semver: "newest"},
		{URL: "x", Semver: "1.x", Tag: "v1"},
		{URL: "x", Commit: "3f2a91c"},
		{URL: "x", Commit: strings.Repeat("a", 40), Ref: "main"},
	} {
		_, err := git.New(o)
		if err == nil {
			t.Errorf("New(%+v) succeeds", o)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("New shows a password: %v", err)
		}
	}
}

// 100 MB in a commit cost a transfer and nothing else, until somebody reads them.
func TestHundredMegabytes(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"small": "s", "huge": strings.Repeat("0123456789abcdef", 100<<20/16)})
	fsys := sourcetest.Await(t, open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL}), "").FS
	if data, err := fsys.ReadFile("small"); err != nil || string(data) != "s" {
		t.Errorf("beside it: %q, %v", data, err)
	}
	if _, err := fsys.ReadFile("huge"); err == nil || !strings.Contains(err.Error(), "huge") || !strings.Contains(err.Error(), "MaxFileSize") {
		t.Errorf("reading it: %v", err)
	}
}

// The refs of a repository on this machine are watched: without that, ten
// seconds would pass.
func TestLocalCommitIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("team/main", map[string]string{"a": "1"})
	s := open(t, git.Options{URL: repo.Dir, Ref: "team/main"})
	first := sourcetest.Await(t, s, "")
	type result struct {
		text string
		at   time.Time
	}
	seen := make(chan result, 1)
	go func() {
		snapshot, err := s.Next(t.Context(), first.Revision)
		if err != nil {
			seen <- result{text: err.Error()}
			return
		}
		data, err := snapshot.FS.ReadFile("a")
		if err != nil {
			data = []byte(err.Error())
		}
		seen <- result{text: string(data), at: time.Now()}
	}()
	repo.Commit("team/main", map[string]string{"a": "2"})
	began := time.Now()
	got := <-seen
	if took := got.at.Sub(began); got.text != "2" || took > 5*time.Second {
		t.Errorf("saw %q after %v", got.text, took)
	}
}
