package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/sources"
)

func example(t testing.TB, name string) rendertest.Tree {
	t.Helper()
	tree, err := rendertest.FromFS(os.DirFS("../../examples/" + name))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func newRun(tree sources.Tree, path string) *run {
	snap := sources.Snapshot{Revision: "main@sha1:3f2a91c", FS: tree}
	return &run{options: Options{Tokens: rendertest.Tokens{}}, snap: snap, app: state.Application{Name: "test", Path: path}, path: path, trace: &trace{reads: map[string]string{}}}
}

// plainKustomize is `kustomize build`, on a file system of kustomize's own.
func plainKustomize(t *testing.T, tree rendertest.Tree, path string, move func(string) string) string {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	for name, f := range tree.MapFS {
		if to := move(name); to != "" {
			if err := disk.WriteFile("/"+to, f.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionUnspecified
	m, err := krusty.MakeKustomizer(options).Run(disk, "/"+path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestSameBytesAsKustomize: what the files name is `kustomize build` byte for
// byte; the other OS is the same build after `mv windows linux` in each pair.
func TestSameBytesAsKustomize(t *testing.T) {
	for _, c := range []struct{ example, path string }{
		{"shop", "dev"}, {"shop", "staging"}, {"shop", "prod"}, {"shop", "prod-mixed-db"}, {"mono", "apps/pay/prod"}, {"mono", "apps/cart/prod"},
	} {
		t.Run(c.example+"/"+c.path, func(t *testing.T) {
			tree := example(t, c.example)
			r := newRun(tree, c.path)
			first := r.read(newView(t.Context(), tree, r.trace))
			second, pairs, _ := r.other(first)
			if second == nil || len(r.problems)+len(first.problems)+len(second.problems) > 0 {
				t.Fatalf("no second render, or problems: %v %v", r.problems, first.problems)
			}
			for _, w := range []*walker{first, second} {
				w.sorts = true // as kustomize build does
				m, err := w.kustomize()
				if err != nil {
					t.Fatal(err)
				}
				got, err := m.AsYaml()
				if err != nil {
					t.Fatal(err)
				}
				move := func(name string) string { return name }
				if w == second {
					move = func(name string) string {
						for dir := range pairs {
							if strings.HasPrefix(name, dir+"/linux/") {
								return ""
							}
							name = strings.Replace(name, dir+"/windows/", dir+"/linux/", 1)
						}
						return name
					}
				}
				if diff := cmp.Diff(plainKustomize(t, tree, c.path, move), string(got)); diff != "" {
					t.Errorf("bytes differ (-kustomize +render):\n%s", diff)
				}
			}
		})
	}
}

// TestDeprecatedAsKustomize: deprecated fields mean what kustomize makes of them,
// also where the order of what they do shows.
func TestDeprecatedAsKustomize(t *testing.T) {
	archive, err := txtar.ParseFile("../testdata/deprecated.txtar")
	if err != nil {
		t.Fatal(err)
	}
	archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "out/") })
	tree := rendertest.FromArchive(archive)
	r := newRun(tree, ".")
	w := r.read(newView(t.Context(), tree, r.trace))
	w.sorts = true // as kustomize build does
	m, err := w.kustomize()
	if err != nil || len(w.problems) > 0 {
		t.Fatal(err, w.problems)
	}
	got, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plainKustomize(t, tree, "", func(name string) string { return name }), string(got)); diff != "" {
		t.Errorf("bytes differ (-kustomize +render):\n%s", diff)
	}
}

func mustRender(t testing.TB, tree sources.Tree, app state.Application) render.Result {
	t.Helper()
	res, err := New(Options{Tokens: rendertest.Tokens{}}).Render(t.Context(), sources.Snapshot{Revision: "main@sha1:3f2a91c", FS: tree}, app)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func encode(t testing.TB, m *state.Manifest) []byte {
	t.Helper()
	raw, err := manifest.Encode(m, rendertest.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSameTreeSameBytes(t *testing.T) {
	tree := example(t, "shop")
	tree.MapFS["prod/s.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: swordfish}\n")}
	tree.MapFS["prod/kustomization.yaml"].Data = bytes.Replace(tree.MapFS["prod/kustomization.yaml"].Data, []byte("resources: [../base]"), []byte("resources: [../base, s.yaml]"), 1)
	app := state.Application{Name: "shop", Path: "prod"}
	first := mustRender(t, tree, app)
	if first.Manifest == nil {
		t.Fatalf("problems: %v", first.Problems)
	}
	raw := encode(t, first.Manifest)
	if bytes.Contains(raw, []byte("swordfish")) || bytes.Contains(raw, []byte("c3dvcmRmaXNo")) {
		t.Error("the stored form holds a secret in clear")
	}
	for range 5 {
		again := mustRender(t, tree, app)
		if !bytes.Equal(raw, encode(t, again.Manifest)) || again.Manifest.Digest != first.Manifest.Digest {
			t.Fatal("the same tree gave other bytes")
		}
	}
	back, err := manifest.DecodeManifest(raw, rendertest.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest != first.Manifest.Digest || !bytes.Equal(raw, encode(t, back)) {
		t.Error("decoding the stored form gives another manifest")
	}
	tree.MapFS["prod/s.yaml"].Data = bytes.Replace(tree.MapFS["prod/s.yaml"].Data, []byte("swordfish"), []byte("guppy"), 1)
	if mustRender(t, tree, app).Manifest.Digest == first.Manifest.Digest {
		t.Error("another secret value gave the same digest")
	}
}

// TestReads: a tree that changes where the render looked, or looked in vain,
// must render again; any other change must not.
func TestReads(t *testing.T) {
	tree := example(t, "shop")
	delete(tree.MapFS, "prod/windows/kustomization.yaml")
	reads := mustRender(t, tree, state.Application{Name: "shop", Path: "prod"}).Manifest.Reads
	if !render.Unchanged(tree, reads) {
		t.Fatal("the very tree counts as changed")
	}
	unread, err := render.Unread(tree, reads)
	if err != nil || !slices.Contains(unread, "staging/kustomization.yaml") || slices.Contains(unread, "prod/kustomization.yaml") || slices.Contains(unread, "base/linux/kustomization.yaml") {
		t.Errorf("kustomizations that prod does not read: %v, %v", unread, err)
	}
	tree.MapFS["staging/x.yaml"] = &fstest.MapFile{Data: []byte("x")}
	if !render.Unchanged(tree, reads) {
		t.Error("a file that prod does not read counts")
	}
	for _, name := range []string{"prod/windows/kustomization.yaml", "prod/kustomization.yml", "base/Kustomization"} {
		tree.MapFS[name] = &fstest.MapFile{Data: []byte("x")}
		if render.Unchanged(tree, reads) {
			t.Errorf("adding %s does not count", name)
		}
		delete(tree.MapFS, name)
	}
	tree.MapFS["base/web.yaml"] = &fstest.MapFile{Data: []byte("x")}
	if render.Unchanged(tree, reads) {
		t.Error("a change of base/web.yaml does not count")
	}
}

// oddTree has files that a source may show: too large, or a link that leads out.
type oddTree struct{ rendertest.Tree }

func (o oddTree) Stat(name string) (fs.FileInfo, error) {
	if name == "link.yaml" {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: errors.New("the link leads out of the tree")}
	}
	return o.Tree.Stat(name)
}

func TestBadFiles(t *testing.T) {
	utf16 := []byte{0xff, 0xfe, 'a', 0, ':', 0}
	service := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
	for name, c := range map[string]struct{ content, want string }{
		"link.yaml":   {"", "leads out of the tree"},
		"large.yaml":  {strings.Repeat("#", 100<<20), "more than 4194304"},
		"binary.yaml": {"a\x00b", "not text"},
		"utf16.yaml":  {string(utf16), "UTF-16"},
		"latin.yaml":  {"a: \xe9\n", "not YAML"},
		"tag.yaml":    {"a: !!python/object x\n", "tag"},
		"one.yaml":    {service + "---\na: [\n", "not YAML"},
		"crlf.yaml":   {strings.ReplaceAll(service, "\n", "\r\n"), ""},
		"bom.yaml":    {"\xef\xbb\xbf" + service, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, kustomization := range []string{"", "resources: [" + name + "]\n"} {
				tree := rendertest.FromFiles(map[string]string{name: c.content})
				if kustomization != "" {
					tree.MapFS["kustomization.yaml"] = &fstest.MapFile{Data: []byte(kustomization)}
				}
				start := time.Now()
				res := mustRender(t, oddTree{tree}, state.Application{Name: "test"})
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("took %s", took)
				}
				switch {
				case c.want == "" && (res.Manifest == nil || len(res.Manifest.Objects) != 1):
					t.Errorf("want one object, got problems %v", res.Problems)
				case c.want != "" && (len(res.Problems) == 0 || !strings.Contains(fmt.Sprint(res.Problems), c.want)):
					t.Errorf("want a problem with %q, got %v", c.want, res.Problems)
				}
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := New(Options{Tokens: rendertest.Tokens{}}).Render(ctx, example(t, "shop").Snapshot(), state.Application{Name: "shop"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("want context.Canceled, got %v", err)
	}
}

// FuzzRender: no text crashes a render or makes it give neither a manifest nor
// a problem.
func FuzzRender(f *testing.F) {
	f.Add("resources: [a.yaml]\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	f.Add("resources: [a.yaml]\npatches: [{patch: 'a: [', target: {kind: X}}]\n", "a: &a [*a]\n")
	f.Add("configMapGenerator: [{name: c, literals: [a=b]}]\ncomponents: [.]\n", "- - -\n")
	f.Fuzz(func(t *testing.T, kustomization, file string) {
		tree := rendertest.FromFiles(map[string]string{"kustomization.yaml": kustomization, "a.yaml": file})
		res := mustRender(t, tree, state.Application{Name: state.RootApp})
		if (res.Manifest == nil) == (len(res.Problems) == 0) {
			t.Fatalf("manifest %v, problems %v", res.Manifest, res.Problems)
		}
	})
}

func BenchmarkShop(b *testing.B) {
	tree := example(b, "shop")
	for b.Loop() {
		if res := mustRender(b, tree, state.Application{Name: "shop", Path: "prod"}); res.Manifest == nil {
			b.Fatal(res.Problems)
		}
	}
}
