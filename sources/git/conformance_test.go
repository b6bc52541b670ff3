package git_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

func open(t *testing.T, options git.Options) *git.Source {
	t.Helper()
	if options.Cache == "" {
		options.Cache = filepath.Join(t.TempDir(), "cache")
	}
	if options.Interval == 0 {
		options.Interval = 30 * time.Millisecond
	}
	s, err := git.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(*testing.T, *sourcetest.Repo) sources.Source{
		"path": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			return open(t, git.Options{URL: repo.Dir})
		},
		"http": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			return open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL})
		},
		"http with filter": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			repo.Run("config", "uploadpack.allowFilter", "true")
			return open(t, git.Options{URL: sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL})
		},
		"https": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{TLS: true, Username: "ada", Password: "pw"})
			return open(t, git.Options{URL: server.URL, Auth: git.Auth{CAFile: server.CAFile, Username: "ada", PasswordFile: file(t, "pw\n")}})
		},
		"ssh": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			server := sourcetest.ServeSSH(t, repo)
			return open(t, git.Options{URL: server.URL, Ref: "main", Auth: git.Auth{SSHKeyFile: server.KeyFile, KnownHostsFile: server.KnownHostsFile}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, create)
		})
	}
}
