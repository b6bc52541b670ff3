package git_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A tag, annotated or not, is followed by its short name; one that was moved is
// noticed and told.
func TestTagMoves(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		repo := sourcetest.NewRepo(t)
		one := repo.Commit("main", map[string]string{"a": "1"})
		two := repo.Commit("main", map[string]string{"a": "2"})
		repo.Run("tag", "-a", "-m", "one", "v1", one)
		url := repo.Dir
		if remote {
			url = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
		}
		var said syncBuffer
		s := open(t, git.Options{URL: url, Tag: "v1", Logger: slog.New(slog.NewTextHandler(&said, nil))})
		first := sourcetest.Await(t, s, "")
		if string(first.Revision) != "refs/tags/v1@sha1:"+one {
			t.Errorf("revision %s, want tag v1 at %s", first.Revision, one)
		}
		if strings.Contains(said.String(), "moved") {
			t.Errorf("nothing has moved yet: %s", said.String())
		}
		repo.Run("tag", "-f", "v1", two)
		moved := sourcetest.Await(t, s, first.Revision)
		if string(moved.Revision) != "refs/tags/v1@sha1:"+two || sourcetest.Contents(t, moved.FS)["a"] != "2" {
			t.Errorf("after the tag moved: %s", moved.Revision)
		}
		if !strings.Contains(said.String(), "found a tag moved") {
			t.Errorf("nobody was told that the tag moved: %s", said.String())
		}
		repo.Run("tag", "-d", "v1")
		refused(t, s, moved, sources.ErrNotFound, "no tag v1")
	}
}

// Of a range of versions the highest tag is followed, also when it goes.
func TestSemver(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		repo := sourcetest.NewRepo(t)
		one := repo.Commit("main", map[string]string{"a": "1"})
		repo.Run("tag", "v1.9.0", one)
		repo.Run("tag", "v2.0.0", one)
		url := repo.Dir
		if remote {
			url = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
		}
		s := open(t, git.Options{URL: url, Semver: "1.x"})
		first := sourcetest.Await(t, s, "")
		if string(first.Revision) != "refs/tags/v1.9.0@sha1:"+one {
			t.Errorf("revision %s, want v1.9.0", first.Revision)
		}
		two := repo.Commit("main", map[string]string{"a": "2"})
		repo.Run("tag", "-a", "-m", "ten", "v1.10.0", two)
		repo.Run("tag", "v1.11.0-rc.1", two)
		second := sourcetest.Await(t, s, first.Revision)
		if string(second.Revision) != "refs/tags/v1.10.0@sha1:"+two {
			t.Errorf("revision %s, want v1.10.0", second.Revision)
		}
		repo.Run("tag", "-d", "v1.9.0")
		repo.Run("tag", "-d", "v1.10.0")
		refused(t, s, second, sources.ErrNotFound, `"1.x"`)
	}
}
