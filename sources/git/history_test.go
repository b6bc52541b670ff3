package git_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// Which commit follows from which is known for repositories here and elsewhere,
// whether or not the server can leave files out, also after a forced push.
func TestHistory(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"path", "server", "server with filters"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			repo := sourcetest.NewRepo(t)
			one := repo.Commit("main", map[string]string{"a": "1"})
			two := repo.Commit("main", map[string]string{"a": "2"})
			repo.Reset("side", one)
			side := repo.Commit("side", map[string]string{"b": "1"})
			merge := repo.Object("commit", "tree "+repo.Run("rev-parse", two+"^{tree}")+"\nparent "+two+"\nparent "+side+"\nauthor A <a@b> 9 +0000\ncommitter A <a@b> 9 +0000\n\nmerge\n")
			repo.Reset("main", merge)
			o := git.Options{URL: repo.Dir, Ref: "main"}
			if how != "path" {
				o.URL = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
				if how == "server with filters" {
					repo.Run("config", "uploadpack.allowFilter", "true")
				}
			}
			s := open(t, o)
			sourcetest.Await(t, s, "")
			descends := func(commit, from string, want bool) {
				t.Helper()
				got, err := s.Descends(t.Context(), commit, from)
				if err != nil || got != want {
					t.Errorf("%.7s descends from %.7s: %v, %v; want %v", commit, from, got, err, want)
				}
			}
			since := func(commit, known string, want ...string) {
				t.Helper()
				got := map[string]bool{}
				err := s.Since(t.Context(), commit, known, func(hash string, raw []byte) error {
					if !strings.HasPrefix(string(raw), "tree ") {
						t.Errorf("%s: %q are no commit's bytes", hash, raw)
					}
					got[hash] = true
					return nil
				})
				slices.Sort(want)
				if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" || err != nil {
					t.Errorf("since %.7s: %v %s", known, err, diff)
				}
			}
			descends(merge, one, true)
			descends(merge, side, true)
			descends(merge, merge, true)
			descends(two, side, false)
			descends(merge, strings.Repeat("ab", 20), false)
			since(merge, "", one, two, side, merge)
			since(merge, two, side, merge)
			since(merge, side, two, merge)
			// Forced to something that was there before, and to something else.
			repo.Reset("main", two)
			descends(two, merge, false)
			repo.Reset("main", one)
			other := repo.Commit("main", map[string]string{"a": "3"})
			descends(other, two, false)
			descends(other, one, true)
			stop := errors.New("stop")
			if err := s.Since(t.Context(), other, "", func(string, []byte) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("a visitor's error: %v", err)
			}
		})
	}
}

// A clone without history doesn't pretend to know it.
func TestHistoryOfAShallowClone(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	one := repo.Commit("main", map[string]string{"a": "1"})
	repo.Commit("main", map[string]string{"a": "2"})
	head := repo.Commit("main", map[string]string{"a": "3"})
	clone := t.TempDir()
	repo.Run("clone", "-q", "--bare", "--depth=1", "file://"+repo.Dir, clone)
	if _, err := open(t, git.Options{URL: clone}).Descends(t.Context(), head, one); !errors.Is(err, sources.ErrNotFound) {
		t.Errorf("%v, want to hear that it isn't there", err)
	}
}
