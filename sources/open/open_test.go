package open_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/sources/open"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

func TestSource(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"deploy/a": "1"})
	tree := filepath.Join(t.TempDir(), "tree")
	repo.Run("clone", "--quiet", repo.Dir, tree)
	plain := t.TempDir()
	file := filepath.Join(plain, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec open.Spec
		want open.Kind
		says string
	}{
		{open.Spec{Where: plain}, open.Directory, ""},
		{open.Spec{Where: tree}, open.Directory, ""},
		{open.Spec{Where: filepath.Join(tree, "deploy")}, open.Directory, ""},
		{open.Spec{Where: tree, Ref: "main"}, open.Repository, ""},
		{open.Spec{Where: repo.Dir}, open.Repository, ""},
		{open.Spec{Where: "file://" + repo.Dir}, open.Repository, ""},
		{open.Spec{Where: "file://" + plain}, open.Directory, ""},
		{open.Spec{Where: "https://git.example/shop.git", Cache: plain}, open.Remote, ""},
		{open.Spec{Where: "git@git.example:shop.git", Cache: plain}, open.Remote, ""},
		{open.Spec{Where: "ssh://git@git.example:2222/shop.git", Cache: plain}, open.Remote, ""},
		{open.Spec{}, 0, "give a directory"},
		{open.Spec{Where: file}, 0, "give the directory that it lies in: " + plain},
		{open.Spec{Where: filepath.Join(plain, "none")}, 0, "there is no directory"},
		{open.Spec{Where: "git.example/team/shop"}, 0, "https://git.example/team/shop"},
		{open.Spec{Where: plain, Ref: "main"}, 0, "no Git repository"},
		{open.Spec{Where: "git://git.example/shop"}, 0, "use https://"},
	} {
		s, kind, err := open.Source(c.spec)
		switch {
		case c.says == "" && (err != nil || s == nil || kind != c.want):
			t.Errorf("Source(%+v) = %v, %v, want %v", c.spec, kind, err, c.want)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("Source(%+v): %v, want it to say %q", c.spec, err, c.says)
		}
		if err == nil {
			if k := kind.String(); k == "unknown" {
				t.Errorf("kind %d has no name", kind)
			}
		}
	}
	for _, where := range []string{tree, repo.Dir} {
		s, _, err := open.Source(open.Spec{Where: where})
		if err != nil {
			t.Fatal(err)
		}
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, "").FS)["deploy/a"]; got != "1" {
			t.Errorf("%s: read %q", where, got)
		}
	}
}
