package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/refs"
)

// A Location is where the parts of a repository lie.
type Location struct {
	GitDir    string // has HEAD
	CommonDir string // has refs and objects; differs from GitDir in added work trees
	WorkTree  string // empty for a bare repository
}

// Locate finds the repository whose root path is: a work tree with a .git in it,
// or a bare repository. It doesn't look into parents. The error is an
// ErrNotFound where path is no repository.
func Locate(path string) (Location, error) {
	if isGitDir(path) {
		return located(path, "")
	}
	dot := filepath.Join(path, ".git")
	info, err := os.Stat(dot)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Location{}, fmt.Errorf("%s is no Git repository: %w", path, sources.ErrNotFound)
	case err != nil:
		return Location{}, err
	case info.IsDir():
		return located(dot, path)
	}
	text, err := os.ReadFile(dot)
	if err != nil {
		return Location{}, err
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
	if !ok {
		return Location{}, fmt.Errorf("%s names no repository: %w", dot, sources.ErrNotFound)
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(path, dir)
	}
	return located(dir, path)
}

// isGitDir goes by what Git itself looks for.
func isGitDir(path string) bool {
	if _, err := os.Stat(filepath.Join(path, "HEAD")); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(path, "commondir")); err == nil {
		return true
	}
	objects, err := os.Stat(filepath.Join(path, "objects"))
	if err != nil || !objects.IsDir() {
		return false
	}
	refs, err := os.Stat(filepath.Join(path, "refs"))
	return err == nil && refs.IsDir()
}

func located(gitDir, workTree string) (Location, error) {
	l := Location{GitDir: gitDir, CommonDir: gitDir, WorkTree: workTree}
	text, err := os.ReadFile(filepath.Join(gitDir, "commondir"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Location{}, err
	default:
		l.CommonDir = strings.TrimSpace(string(text))
		if !filepath.IsAbs(l.CommonDir) {
			l.CommonDir = filepath.Join(gitDir, l.CommonDir)
		}
	}
	if !isGitDir(l.CommonDir) {
		return Location{}, fmt.Errorf("%s is no Git repository: %w", l.CommonDir, sources.ErrNotFound)
	}
	return l, nil
}

// open opens the repository's own files.
func (l Location) open() (*filesystem.Storage, error) {
	root := osfs.New(l.GitDir)
	if l.CommonDir != l.GitDir {
		root = dotgit.NewRepositoryFilesystem(osfs.New(l.GitDir), osfs.New(l.CommonDir))
	}
	storage := filesystem.NewStorage(root, cache.NewObjectLRU(objectCache))
	return storage, checkFormat(storage)
}

// checkFormat refuses the repository formats that can't be read, by name.
func checkFormat(storage *filesystem.Storage) error {
	config, err := storage.Config()
	if err != nil {
		return fmt.Errorf("read the repository's config: %w", err)
	}
	if config.Raw == nil || !config.Raw.HasSection("extensions") {
		return nil
	}
	known := []string{"noop", "noop-v1", "partialclone", "worktreeconfig", "preciousobjects", "relativeworktrees"}
	for _, option := range config.Raw.Section("extensions").Options {
		key, value := strings.ToLower(option.Key), strings.ToLower(option.Value)
		switch {
		case slices.Contains(known, key), key == "objectformat" && value == "sha1", key == "refstorage" && value == "files":
		default:
			return fmt.Errorf("the repository's format has the extension %s=%s, which is not supported: use a repository with SHA-1 objects and refs in files", key, value)
		}
	}
	return nil
}

// localOrigin reads a repository on this machine where it lies.
type localOrigin struct {
	path    string
	options *Options
	objects *objects
}

func (o *localOrigin) look(context.Context) (found, error) {
	l, err := Locate(o.path)
	if err != nil {
		return found{}, err
	}
	storage, err := l.open()
	if err != nil {
		return found{}, err
	}
	hash, ref, err := o.resolve(storage)
	if err != nil {
		return found{}, err
	}
	if o.objects == nil {
		o.objects, err = openObjects(l.open, l.CommonDir)
		if err != nil {
			return found{}, err
		}
	}
	commit, err := o.objects.peel(hash)
	if err != nil {
		return found{}, err
	}
	return found{hash: commit, ref: ref, objects: o.objects}, nil
}

func (o *localOrigin) forget() error {
	o.objects = nil
	return nil
}

func (o *localOrigin) resolve(storage *filesystem.Storage) (plumbing.Hash, string, error) {
	if o.options.Commit != "" {
		return plumbing.NewHash(o.options.Commit), "", nil
	}
	var names []string
	if o.options.Semver != "" {
		names = refNames(storage)
	}
	full, err := o.options.name(names)
	if err != nil {
		return plumbing.ZeroHash, "", err
	}
	name := plumbing.ReferenceName(full)
	if full == "" {
		head, err := storage.Reference(plumbing.HEAD)
		if err != nil {
			return plumbing.ZeroHash, "", fmt.Errorf("read HEAD: %w", err)
		}
		if head.Type() != plumbing.SymbolicReference {
			return plumbing.ZeroHash, "", fmt.Errorf("HEAD is at commit %s and on no branch: name a branch or a commit: %w", head.Hash(), sources.ErrNotFound)
		}
		name = head.Target()
	}
	ref, err := storer.ResolveReference(storage, name)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return plumbing.ZeroHash, "", noSuchRef(name.String(), refNames(storage))
	}
	if err != nil {
		return plumbing.ZeroHash, "", fmt.Errorf("read %s: %w", name, err)
	}
	return ref.Hash(), name.String(), nil
}

// refNames lists the refs; one that can't be read is no name that is missed.
func refNames(storage *filesystem.Storage) []string {
	var names []string
	if all, err := storage.IterReferences(); err == nil {
		_ = all.ForEach(func(r *plumbing.Reference) error {
			names = append(names, r.Name().String())
			return nil
		})
	}
	return names
}

// noSuchRef says which branches there are instead.
func noSuchRef(full string, names []string) error {
	var branches []string
	for _, n := range names {
		if short, ok := strings.CutPrefix(n, "refs/heads/"); ok {
			branches = append(branches, short)
		}
	}
	slices.Sort(branches)
	what := "branch " + shortName(full)
	if tag, ok := strings.CutPrefix(full, refs.Tags); ok {
		return fmt.Errorf("there is no tag %s: push it, or follow another: %w", tag, sources.ErrNotFound)
	}
	if !strings.HasPrefix(full, "refs/heads/") {
		what = full
	}
	const most = 5
	switch {
	case len(branches) == 0:
		return fmt.Errorf("there is no %s, nor any other branch: push it: %w", what, sources.ErrNotFound)
	case len(branches) > most:
		return fmt.Errorf("there is no %s: push it, or follow another (%s and %d more): %w", what, strings.Join(branches[:most], ", "), len(branches)-most, sources.ErrNotFound)
	default:
		return fmt.Errorf("there is no %s: push it, or follow another (%s): %w", what, strings.Join(branches, ", "), sources.ErrNotFound)
	}
}
