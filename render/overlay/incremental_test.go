package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// TestIncrementalIsFull: commits of every sort to a mono-repo. An application
// whose reads a commit doesn't touch is what a full render gives; one that is
// rendered again had a file that it read changed, added or taken away.
func TestIncrementalIsFull(t *testing.T) {
	const apps = 24
	commits := hosttest.Soak(60, 1000)
	r := rand.New(rand.NewPCG(6, 6)) //nolint:gosec // a seed, not a secret
	files := map[string]string{"shared/kustomization.yaml": "resources: [policy.yaml]\n", "shared/policy.yaml": strings.Replace(configMap, "name: c", "name: policy", 1)}
	for n := range apps {
		app := fmt.Sprintf("apps/a%02d", n)
		files[app+"/base/kustomization.yaml"] = "resources: [cm.yaml]\n"
		files[app+"/base/cm.yaml"] = configMap
		files[app+"/prod/kustomization.yaml"] = "resources: [../base, ../../../shared]\nconfigMapGenerator: [{name: g, files: [s.ini]}]\n"
		files[app+"/prod/s.ini"] = fmt.Sprintf("n=%d\n", n)
		files[app+"/plain/cm.yaml"] = configMap
	}
	paths := []string{}
	for n := range apps {
		paths = append(paths, fmt.Sprintf("apps/a%02d/prod", n), fmt.Sprintf("apps/a%02d/plain", n))
	}
	full := func(tree rendertest.Tree, at string) *render.Result {
		res := mustRender(t, tree, state.Application{Name: "app", Path: at})
		return &res
	}
	was := map[string]*render.Result{}
	tree := rendertest.FromFiles(files)
	for _, p := range paths {
		was[p] = full(tree, p)
	}
	rendered, kept := 0, 0
	for i := range commits {
		before := maps.Clone(files)
		said := randomCommit(r, files, i)
		tree := rendertest.FromFiles(files)
		for _, p := range paths {
			old := was[p]
			if old.Manifest == nil || !render.Unchanged(tree, old.Manifest.Reads) {
				if old.Manifest != nil && !touched(before, files, old.Manifest.Reads) {
					t.Errorf("commit %d (%s): %s is rendered again for nothing", i, said, p)
				}
				was[p] = full(tree, p)
				rendered++
				continue
			}
			kept++
			now := full(tree, p)
			if now.Manifest == nil || !bytes.Equal(encoded(t, now.Manifest), encoded(t, old.Manifest)) {
				t.Errorf("commit %d (%s): %s should have been rendered again", i, said, p)
			}
		}
	}
	if rendered == 0 || kept < commits*apps {
		t.Errorf("%d renders, %d kept: these commits try nothing", rendered, kept)
	}
}

func encoded(t *testing.T, m *state.Manifest) []byte {
	t.Helper()
	raw, err := manifest.Encode(m, rendertest.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// randomCommit changes files as people do, and says how.
func randomCommit(r *rand.Rand, files map[string]string, i int) string {
	names := slices.Sorted(maps.Keys(files))
	name := names[r.IntN(len(names))]
	app := fmt.Sprintf("apps/a%02d", r.IntN(24))
	switch r.IntN(10) {
	case 0:
		files[app+"/README.md"] = fmt.Sprint(i)
		return "a file that nobody reads, " + app
	case 1:
		files[app+"/plain/new.yaml"] = strings.Replace(configMap, "name: c", fmt.Sprintf("name: c%d", i), 1)
		return "a file beside others, " + app
	case 2:
		delete(files, app+"/plain/new.yaml")
		return "a file taken away, " + app
	case 3:
		files[app+"/plain/kustomization.yaml"] = "resources: [cm.yaml]\n"
		return "a kustomization where there was none, " + app
	case 4:
		delete(files, app+"/plain/kustomization.yaml")
		return "no kustomization any more, " + app
	case 5:
		files[app+"/prod/linux/a.yaml"], files[app+"/prod/windows/a.yaml"] = configMap, configMap
		return "a pair that nobody names, " + app
	case 6:
		files["shared/policy.yaml"] = strings.Replace(configMap, "name: c", fmt.Sprintf("name: policy%d", i), 1)
		return "what all share"
	case 7:
		if data, ok := files[name]; ok && strings.HasSuffix(name, "s.ini") {
			delete(files, name)
			files[path.Dir(name)+"/t.ini"] = data
		}
		return "a rename, " + name
	default:
		if strings.HasSuffix(name, ".ini") {
			files[name] = fmt.Sprintf("i=%d\n", i)
		} else if strings.HasSuffix(name, "cm.yaml") {
			files[name] = strings.Replace(configMap, "a: b", fmt.Sprintf("a: b%d", i), 1)
		}
		return "a change, " + name
	}
}

// touched says by the files alone whether a commit changed what was read.
func touched(before, now map[string]string, reads []state.Read) bool {
	there := func(files map[string]string, dir string) string {
		var names []string
		for name := range files {
			if rest, ok := strings.CutPrefix(name, dir); ok {
				first, _, below := strings.Cut(rest, "/")
				names = append(names, fmt.Sprint(first, below))
			}
		}
		slices.Sort(names)
		return strings.Join(slices.Compact(names), " ")
	}
	for _, r := range reads {
		if strings.HasSuffix(r.Path, "/") {
			if there(before, r.Path) != there(now, r.Path) {
				return true
			}
			continue
		}
		was, had := before[r.Path]
		is, has := now[r.Path]
		if had != has || was != is || there(before, r.Path+"/") == "" != (there(now, r.Path+"/") == "") {
			return true
		}
	}
	return false
}
