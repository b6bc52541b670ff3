package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/sources"
)

var errTooLarge = errors.New("too large")

// trace remembers what was read, or looked for and absent, by its real path.
type trace struct {
	reads map[string]string
	bytes int64
}

func (t *trace) sorted() []state.Read {
	out := make([]state.Read, 0, len(t.reads))
	for _, p := range slices.Sorted(maps.Keys(t.reads)) {
		out = append(out, state.Read{Path: p, Blob: t.reads[p]})
	}
	return out
}

// view is the tree as one operating system's render sees it: below each pair,
// from/ shows what is in to/. It is read-only, has its root at "/", and is the
// only file system that kustomize sees.
type view struct {
	ctx       context.Context //nolint:containedctx // kustomize's file system has no context of its own; a view lives for one render
	tree      sources.Tree
	os        state.OS // whose render; AnyOS until it is known
	from, to  string
	pairs     map[string]bool
	trace     *trace
	files     map[string]bool   // virtual paths that were read
	overrides map[string][]byte // what kustomize reads in place of a file, by virtual path
	made      map[string][]byte // files that kustomize reads and the tree hasn't, by virtual path
}

func newView(ctx context.Context, tree sources.Tree, t *trace) *view {
	return &view{ctx: ctx, tree: tree, trace: t, pairs: map[string]bool{}, files: map[string]bool{}, overrides: map[string][]byte{}, made: map[string][]byte{}}
}

// clean turns a path of kustomize ("/base/web.yaml") into one of the tree.
func clean(p string) string {
	p = filepath.ToSlash(strings.TrimPrefix(p, filepath.VolumeName(p)))
	p = path.Clean("/" + p)[1:]
	if p == "" {
		return "."
	}
	return p
}

// real is where a virtual path lies in the tree.
func (v *view) real(virtual string) string {
	if len(v.pairs) == 0 {
		return virtual
	}
	parts := strings.Split(virtual, "/")
	dir := "."
	for i, part := range parts {
		if part == v.from && v.pairs[dir] {
			parts[i] = v.to
		}
		dir = path.Join(dir, part)
	}
	return strings.Join(parts, "/")
}

// stat says what lies at a virtual path; an absent one is remembered.
func (v *view) stat(virtual string) (fs.FileInfo, error) {
	real := v.real(virtual)
	info, err := v.tree.Stat(real)
	if errors.Is(err, fs.ErrNotExist) {
		v.trace.reads[real] = ""
	}
	return info, err
}

func (v *view) isDir(virtual string) bool {
	info, err := v.stat(virtual)
	return err == nil && info.IsDir()
}

func (v *view) isFile(virtual string) bool {
	info, err := v.stat(virtual)
	return err == nil && !info.IsDir()
}

// read returns a file's content as it is in the tree.
func (v *view) read(virtual string) ([]byte, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	info, err := v.stat(virtual)
	if err != nil {
		return nil, err
	}
	real := v.real(virtual)
	if info.IsDir() {
		return nil, fmt.Errorf("read %s: is a directory", real)
	}
	if info.Size() > MaxFileBytes {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", errTooLarge, real, info.Size(), MaxFileBytes)
	}
	if _, known := v.trace.reads[real]; !known {
		v.trace.bytes += info.Size()
	}
	if v.trace.bytes > MaxReadBytes {
		return nil, fmt.Errorf("%w: the files of this render have more than %d bytes", errTooLarge, MaxReadBytes)
	}
	raw, err := v.tree.ReadFile(real)
	if err != nil {
		return nil, err
	}
	v.trace.reads[real] = v.tree.Blob(real)
	v.files[virtual] = true
	return raw, nil
}

// list returns the names in a directory; the listing itself is a read.
func (v *view) list(virtual string) ([]fs.DirEntry, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	real := v.real(virtual)
	entries, err := v.tree.ReadDir(real)
	if err != nil {
		return nil, err
	}
	v.trace.reads[real+"/"] = render.Listing(entries)
	v.files[virtual+"/."] = true
	return entries, nil
}

// kustomizeFS is a view with the methods that kustomize wants.
type kustomizeFS struct{ *view }

var errReadOnly = errors.New("the tree is read-only")

func (kustomizeFS) Create(string) (filesys.File, error)      { return nil, errReadOnly }
func (kustomizeFS) Mkdir(string) error                       { return errReadOnly }
func (kustomizeFS) MkdirAll(string) error                    { return errReadOnly }
func (kustomizeFS) RemoveAll(string) error                   { return errReadOnly }
func (kustomizeFS) WriteFile(string, []byte) error           { return errReadOnly }
func (kustomizeFS) Open(string) (filesys.File, error)        { return nil, errReadOnly }
func (kustomizeFS) Glob(string) ([]string, error)            { return nil, nil }
func (kustomizeFS) Walk(_ string, _ filepath.WalkFunc) error { return errReadOnly }

// isMade says whether a path is a directory of made files.
func (k kustomizeFS) isMade(virtual string) bool {
	return path.Base(virtual) == chartsDir && k.made[path.Join(virtual, kustomizationNames()[0])] != nil
}

func (k kustomizeFS) IsDir(p string) bool { return k.isMade(clean(p)) || k.isDir(clean(p)) }

func (k kustomizeFS) Exists(p string) bool {
	if k.made[clean(p)] != nil || k.isMade(clean(p)) {
		return true
	}
	_, err := k.stat(clean(p))
	return err == nil
}

func (k kustomizeFS) ReadDir(p string) ([]string, error) {
	entries, err := k.list(clean(p))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (k kustomizeFS) ReadFile(p string) ([]byte, error) {
	if raw := k.made[clean(p)]; raw != nil {
		return raw, nil
	}
	raw, err := k.read(clean(p))
	if o, ok := k.overrides[clean(p)]; ok && err == nil {
		return o, nil
	}
	return raw, err
}

func (k kustomizeFS) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	virtual := clean(p)
	abs := filepath.FromSlash(path.Join("/", virtual))
	switch {
	case k.isMade(virtual):
		return filesys.ConfirmedDir(abs), "", nil
	case k.made[virtual] != nil:
		return filesys.ConfirmedDir(filepath.Dir(abs)), filepath.Base(abs), nil
	}
	info, err := k.stat(virtual)
	if err != nil {
		return "", "", fmt.Errorf("'%s' doesn't exist", p)
	}
	if info.IsDir() {
		return filesys.ConfirmedDir(abs), "", nil
	}
	return filesys.ConfirmedDir(filepath.Dir(abs)), filepath.Base(abs), nil
}
