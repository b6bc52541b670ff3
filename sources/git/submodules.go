package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/tree"
)

// Limits of submodules.
const (
	MaxModules       = 64      // of one commit, those of submodules included
	MaxModuleNesting = 8       // submodules within submodules
	MaxModuleBytes   = MaxPack // on disk, of those of one commit
	maxModulesFile   = 1 << 20 // bytes of a .gitmodules
	modulesFile      = ".gitmodules"
)

// modules are the submodules of a Source: one store for each address.
type modules struct {
	source  *Source
	origins map[string]*module // by address
	// Of the commit that is being read, and of the one before, which somebody may
	// still render: the addresses of its submodules.
	used, before map[string]bool
	count        int // of the commit that is being read
}

// begin begins to read a commit.
func (m *modules) begin() { m.used, m.count = map[string]bool{}, 0 }

// damaged says whether the store of one of the commit's submodules was found
// damaged by who read from it.
func (m *modules) damaged() bool {
	for text := range m.used {
		if mod := m.origins[text]; mod != nil && mod.origin.store != nil && mod.origin.store.damaged.Load() {
			return true
		}
	}
	return false
}

// prune removes what neither the commit that was read nor the one before has.
func (m *modules) prune() error {
	keep := map[string]bool{}
	for _, used := range []map[string]bool{m.used, m.before} {
		for text := range used {
			keep[storeName(text)] = true
		}
	}
	m.before = m.used
	maps.DeleteFunc(m.origins, func(text string, _ *module) bool { return !keep[storeName(text)] })
	if m.source.options.Cache == "" {
		return nil
	}
	top := filepath.Join(m.source.options.Cache, "modules")
	entries, err := os.ReadDir(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(top, e.Name())))
		}
	}
	return err
}

// storeName is the directory of an address's store.
func storeName(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

type module struct {
	origin  *remoteOrigin
	dirs    map[plumbing.Hash]*tree.Dir
	objects *objects // that the files of dirs are read from
}

// graft puts the trees of submodules into a commit's tree. What the text is to
// blame for is told where somebody reads the submodule; a host that doesn't
// answer now is an error.
func (m *modules) graft(ctx context.Context, root *tree.Dir, objects *objects, from address, depth int) (*tree.Dir, error) {
	at := root.Find(modulesFile)
	if at == nil || at.Kind != tree.File {
		return root, nil
	}
	_, raw, err := objects.bytes(hashOf(at), maxModulesFile)
	if err != nil {
		return root, nil //nolint:nilerr // too long to be one: its submodules stay unread, which is told by name
	}
	listed, err := parseModules(raw)
	if err != nil {
		return root, nil //nolint:nilerr // likewise
	}
	for _, path := range slices.Sorted(maps.Keys(listed)) {
		parts := strings.Split(path, "/")
		e := root.Find(parts...)
		if e == nil || e.Kind != tree.Submodule {
			continue
		}
		grafted := *e
		dir, err := m.tree(ctx, listed[path], hashOf(e), from, depth)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			grafted = tree.Entry{Name: e.Name, Kind: tree.Directory, Hash: e.Hash, Dir: dir}
		case errors.Is(err, errModule) || errors.Is(err, sources.ErrDenied) || errors.Is(err, sources.ErrNotFound):
			grafted.Err = fmt.Errorf("the submodule %s: %w", path, err)
		default:
			return nil, fmt.Errorf("the submodule %s: %w", path, err)
		}
		root = root.Graft(grafted, parts...)
	}
	return root, nil
}

// errModule is a submodule that is not read, because of what is written.
var errModule = errors.New("is not read")

func refuseModule(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errModule}, args...)...)
}

// parseModules is what a .gitmodules names: URLs by path.
func parseModules(raw []byte) (out map[string]string, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("%s can't be read: %v", modulesFile, r)
		}
	}()
	file := config.NewModules()
	if err := file.Unmarshal(raw); err != nil {
		return nil, err
	}
	out = map[string]string{}
	for _, s := range file.Submodules {
		if s.Validate() == nil && fs.ValidPath(s.Path) && s.Path != "." {
			out[s.Path] = s.URL
		}
	}
	return out, nil
}

// tree is what a submodule has at a commit.
func (m *modules) tree(ctx context.Context, text string, hash plumbing.Hash, from address, depth int) (*tree.Dir, error) {
	if m.count++; m.count > MaxModules || depth > MaxModuleNesting {
		return nil, refuseModule("the commit has more than %d submodules, or nests them deeper than %d (limits git.MaxModules, git.MaxModuleNesting): use fewer", MaxModules, MaxModuleNesting)
	}
	a, err := m.resolve(text, from)
	if err != nil {
		return nil, err
	}
	mod, err := m.module(a)
	if err != nil {
		return nil, err
	}
	mod.origin.options.Commit = hash.String()
	f, err := mod.origin.look(ctx)
	if errors.Is(err, errDamaged) {
		if err := mod.origin.forget(); err != nil {
			return nil, err
		}
		f, err = mod.origin.look(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.text, err)
	}
	if size := m.size(); size > MaxModuleBytes {
		return nil, errors.Join(refuseModule("the submodules have %d bytes, more than %d (limit git.MaxModuleBytes): use smaller ones", size, int64(MaxModuleBytes)), mod.origin.forget())
	}
	commit, err := f.objects.commit(f.hash)
	if err != nil {
		f.objects.damaged() // which the next look finds
		return nil, fmt.Errorf("read commit %s of %s: %w", f.hash, a.text, err)
	}
	if mod.objects != f.objects { // another store: the one before goes some time
		mod.dirs, mod.objects = nil, f.objects
	}
	b := builder{objects: f.objects, store: f.objects, old: mod.dirs, dirs: map[plumbing.Hash]*tree.Dir{}}
	root, err := b.root(commit.TreeHash)
	if err != nil {
		f.objects.damaged()
		return nil, fmt.Errorf("read the tree of %s: %w", a.text, err)
	}
	mod.dirs = b.dirs
	return m.graft(ctx, root, f.objects, a, depth+1)
}

// resolve is the address of a submodule. A repository's text may name its own
// host, and hosts that who runs Tandem gave credentials for; nothing on this
// machine, and no program.
func (m *modules) resolve(text string, from address) (address, error) {
	if strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../") {
		var err error
		if text, err = relative(text, from); err != nil {
			return address{}, err
		}
	}
	a, err := parse(text)
	if err != nil {
		return address{}, refuseModule("%w", err)
	}
	switch {
	case a.scheme == local:
		return address{}, refuseModule("its URL %q is a path on this machine: name it by https:// or ssh://, or relative to a repository that has a host", text)
	case a.scheme == overHTTP && a.url.Scheme == "http" && !loopback(a.url.Hostname()) && (from.scheme != overHTTP || from.url.Scheme != "http"):
		return address{}, refuseModule("its URL %s is in clear: use https://", a.text)
	case a.scheme == overDaemon && from.scheme != overDaemon && !m.source.options.Credentials.For(text).GitProtocol:
		return address{}, refuseModule("its URL %s proves neither who serves nor what is served: use https:// or ssh://", a.text)
	case a.hostname() != from.hostname() && !m.source.options.Credentials.Knows(text):
		return address{}, refuseModule("its host %s is neither the repository's own nor named in the credentials: add an entry for it (--git-credentials)", a.hostname())
	}
	a.idle = from.idle
	return a, nil
}

// relative resolves ../other.git against a repository's address.
func relative(text string, from address) (string, error) {
	base := from.path
	if from.scheme == overHTTP {
		base = from.url.Path
	}
	if from.scheme == local {
		return "", refuseModule("its URL %q is relative, and the repository is a path on this machine: write the whole URL", text)
	}
	rooted := strings.HasPrefix(base, "/")
	joined := path.Join(base, text) // of an absolute path it never leads above the root
	if !rooted && (joined == ".." || strings.HasPrefix(joined, "../")) {
		return "", refuseModule("its URL %q leads above the host's root", text)
	}
	if from.scheme == overHTTP {
		u := url.URL{Scheme: from.url.Scheme, User: from.url.User, Host: from.url.Host, Path: joined}
		return u.String(), nil
	}
	if !rooted {
		joined = "/~/" + joined
	}
	if from.scheme == overDaemon {
		return (&url.URL{Scheme: "git", Host: from.host, Path: joined}).String(), nil
	}
	return (&url.URL{Scheme: "ssh", User: url.User(from.user), Host: from.host, Path: joined}).String(), nil
}

// module is the store of an address.
func (m *modules) module(a address) (*module, error) {
	m.used[a.text] = true
	if mod := m.origins[a.text]; mod != nil {
		return mod, nil
	}
	o := m.source.options
	if o.Cache == "" {
		return nil, refuseModule("there is no place to fetch it into: Options.Cache is empty")
	}
	auth := o.Auth
	if own := m.source.address; a.scheme != own.scheme || a.endpoint() != own.endpoint() {
		auth = o.Credentials.For(a.text)
	}
	mod := &module{origin: &remoteOrigin{
		address: a, logger: m.source.logger,
		options: &Options{URL: a.text, Cache: filepath.Join(o.Cache, "modules", storeName(a.text)), Auth: auth, Logger: o.Logger},
	}}
	if err := mod.origin.options.check(a); err != nil {
		return nil, refuseModule("%w", err)
	}
	m.origins[a.text] = mod
	return mod, nil
}

// size is what the stores of the commit's submodules take, in bytes.
func (m *modules) size() int64 {
	var sum int64
	for text := range m.used {
		_ = filepath.WalkDir(filepath.Join(m.source.options.Cache, "modules", storeName(text)), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // what is gone takes nothing
			}
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
			return nil
		})
	}
	return sum
}
