// Package open chooses the source that a person means by what the argument
// looks like.
//
//	argument ──► [ sources/open ] ──► sources/dir or sources/git
//
// In: a path, a URL or user@host:path, and what to follow there. Out: a Source.
// It refuses to know what is done with snapshots.
package open

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/dir"
	"github.com/tandem-gitops/tandem/sources/git"
)

// Spec says what to follow.
type Spec struct {
	Where    string        // a path, a URL or user@host:path
	Ref      string        // a branch; a path is then a repository, not a work tree
	Commit   string        // a whole hash, likewise
	Tag      string        // a tag's short name, likewise
	Semver   string        // a range of versions, likewise
	Cache    string        // a directory of this source's own, for what is fetched
	Interval time.Duration // between looks at a remote repository; 0 means git.DefaultInterval
	Auth     git.Auth
	// Credentials are of all hosts; those of Where's count where Auth is empty.
	Credentials git.Credentials
	Ignore      []string // paths that are no part of a directory, such as our own data
	Logger      *slog.Logger
}

// Kind is what a Where turned out to be.
type Kind uint8

// The kinds of sources.
const (
	Directory  Kind = iota + 1 // followed as it is edited
	Repository                 // on this machine, its branches are followed
	Remote                     // fetched
)

// String says it to people.
func (k Kind) String() string {
	switch k {
	case Directory:
		return "directory"
	case Repository:
		return "repository"
	case Remote:
		return "remote repository"
	default:
		return "unknown"
	}
}

// Source makes the source. A directory is followed as it is edited, also inside
// a work tree, unless a ref or commit is asked for; a bare repository and
// whatever has a host are followed by their branches.
func Source(spec Spec) (sources.Source, Kind, error) {
	kind, err := kindOf(spec)
	if err != nil {
		return nil, 0, err
	}
	if kind == Directory {
		s, err := dir.New(dir.Options{Path: localPath(spec.Where), Ignore: spec.Ignore, Logger: spec.Logger})
		if err != nil {
			return nil, 0, err
		}
		return s, kind, nil
	}
	if spec.Auth == (git.Auth{}) {
		spec.Auth = spec.Credentials.For(spec.Where)
	}
	s, err := git.New(git.Options{URL: spec.Where, Ref: spec.Ref, Commit: spec.Commit, Tag: spec.Tag, Semver: spec.Semver, Cache: spec.Cache, Interval: spec.Interval, Auth: spec.Auth, Credentials: spec.Credentials, Logger: spec.Logger})
	if err != nil {
		return nil, 0, err
	}
	return s, kind, nil
}

// localPath is the path that a file:// URL or a plain path names.
func localPath(where string) string {
	return filepath.FromSlash(strings.TrimPrefix(where, "file://"))
}

func kindOf(spec Spec) (Kind, error) {
	path := localPath(spec.Where)
	info, err := os.Stat(path)
	// What is there as a path is meant as one, even if it looks like host:path.
	if err != nil && git.Remote(spec.Where) {
		return Remote, nil
	}
	switch {
	case spec.Where == "":
		return 0, state.Problem{Cause: "no repository or directory is given", Remedy: "give a directory with manifests, or a URL such as https://git.example/shop.git"}
	case errors.Is(err, fs.ErrNotExist):
		return 0, missing(spec.Where)
	case err != nil:
		return 0, fmt.Errorf("look at %s: %w", spec.Where, err)
	case !info.IsDir():
		return 0, state.Problem{Cause: spec.Where + " is a file", Remedy: "give the directory that it lies in: " + filepath.Dir(path)}
	}
	location, err := git.Locate(path)
	found := err == nil
	if err != nil && !errors.Is(err, sources.ErrNotFound) {
		return 0, fmt.Errorf("look at %s: %w", spec.Where, err)
	}
	asked := cmp.Or(spec.Ref, spec.Commit, spec.Tag, spec.Semver)
	switch {
	case found && (asked != "" || location.WorkTree == ""):
		return Repository, nil
	case asked != "":
		return 0, state.Problem{Cause: fmt.Sprintf("%s is no Git repository, so it has no %s", spec.Where, asked), Remedy: "give the root of the repository, or leave the ref out to follow the directory as it is"}
	default:
		return Directory, nil
	}
}

// missing teaches what was probably meant by something that isn't there.
func missing(where string) error {
	host, rest, ok := strings.Cut(where, "/")
	if ok && rest != "" && strings.Contains(host, ".") && !strings.HasPrefix(host, ".") {
		return state.Problem{Cause: "there is no directory " + where, Remedy: "if it is a repository on " + host + ", give https://" + where}
	}
	return state.Problem{Cause: "there is no directory " + where, Remedy: "give the path of an existing directory or repository, or a URL such as https://git.example/shop.git"}
}
