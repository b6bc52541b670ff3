package git_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// pushable serves a repository in every way that there is.
func pushable(t *testing.T, visit func(t *testing.T, repo *sourcetest.Repo, options git.Options)) {
	t.Helper()
	for _, way := range []string{"path", "http"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			repo := sourcetest.NewRepo(t)
			options := git.Options{URL: repo.Dir}
			if way == "http" {
				repo.Run("config", "http.receivepack", "true")
				options.URL = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
			}
			visit(t, repo, options)
		})
	}
}

// object is a commit with a tree and parents, as git writes it.
func object(repo *sourcetest.Repo, tree, message string, parents ...string) (string, []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author T <t@example.com> 1750000000 +0000\ncommitter T <t@example.com> 1750000000 +0000\n\n%s\n", message)
	return repo.Hash("commit", b.String()), []byte(b.String())
}

func TestPush(t *testing.T) {
	t.Parallel()
	pushable(t, func(t *testing.T, repo *sourcetest.Repo, options git.Options) {
		old := repo.Commit("main", map[string]string{"a": "1"})
		repo.Reset("prod", old)
		tested := repo.Commit("main", map[string]string{"a": "2"})
		move := git.Move{Branch: "prod", Old: old, New: tested}
		for range 2 { // the second finds it done
			if err := git.Push(t.Context(), options, move); err != nil {
				t.Fatal(err)
			}
			if got := repo.Head("prod"); got != tested {
				t.Fatalf("prod is at %s, want %s", got, tested)
			}
		}
		// A rollback: another commit with the tree of the first.
		tree := repo.Run("rev-parse", old+"^{tree}")
		back, raw := object(repo, tree, "back", tested)
		if err := git.Push(t.Context(), options, git.Move{Branch: "prod", Old: tested, New: back, Object: raw}); err != nil {
			t.Fatal(err)
		}
		if got := repo.Run("rev-parse", "refs/heads/prod^{tree}"); got != tree {
			t.Errorf("prod has the tree %s, want %s", got, tree)
		}
		var moved *git.MovedError
		if err := git.Push(t.Context(), options, move); !errors.As(err, &moved) || moved.Found != back {
			t.Errorf("a push from another commit: %v, want that it moved to %s", err, back)
		}
		repo.Run("fsck", "--strict")
	})
}

// Of many who push at once, exactly one moves the branch; the others hear of it.
func TestPushAtOnce(t *testing.T) {
	t.Parallel()
	pushable(t, func(t *testing.T, repo *sourcetest.Repo, options git.Options) {
		old := repo.Commit("prod", map[string]string{"a": "1"})
		tree := repo.Run("rev-parse", old+"^{tree}")
		const rivals = 6
		errs := make([]error, rivals)
		moves := make([]git.Move, rivals)
		var all sync.WaitGroup
		for i := range rivals {
			hash, raw := object(repo, tree, fmt.Sprint("rival ", i), old)
			moves[i] = git.Move{Branch: "prod", Old: old, New: hash, Object: raw}
		}
		for i := range rivals {
			all.Go(func() { errs[i] = git.Push(t.Context(), options, moves[i]) })
		}
		all.Wait()
		won := 0
		for i, err := range errs {
			var moved *git.MovedError
			switch {
			case err == nil:
				won++
				if got := repo.Head("prod"); got != moves[i].New {
					t.Errorf("rival %d heard that it won, and prod is at %s", i, got)
				}
			case !errors.As(err, &moved):
				t.Errorf("rival %d: %v", i, err)
			}
		}
		if won != 1 {
			t.Errorf("%d rivals moved the branch, want 1", won)
		}
	})
}

func TestPushRefused(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	old := repo.Commit("main", map[string]string{"a": "1"})
	repo.Reset("prod", old)
	tested := repo.Commit("main", map[string]string{"a": "2"})
	move := git.Move{Branch: "prod", Old: old, New: tested}
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	var refused *git.RefusedError
	if err := git.Push(t.Context(), git.Options{URL: server.URL}, move); !errors.As(err, &refused) {
		t.Errorf("a server that takes no push: %v", err)
	}
	repo.Run("config", "http.receivepack", "true")
	hook := "#!/bin/sh\necho 'GL-HOOK-ERR: prod is a protected branch' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(repo.Dir, "hooks", "pre-receive"), []byte(hook), 0o755); err != nil { //nolint:gosec // hooks are programs
		t.Fatal(err)
	}
	err := git.Push(t.Context(), git.Options{URL: server.URL}, move)
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "protected branch") {
		t.Errorf("a protected branch: %v", err)
	}
	if got := repo.Head("prod"); got != old {
		t.Errorf("prod is at %s, want %s", got, old)
	}
	server.Down()
	if err := git.Push(t.Context(), git.Options{URL: server.URL}, move); !errors.Is(err, sources.ErrUnavailable) {
		t.Errorf("a server that is down: %v", err)
	}
}
