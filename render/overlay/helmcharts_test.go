package overlay

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

// kustomizeWithHelm is `kustomize build --enable-helm` of a directory on disk,
// with the helm command that .config/go.mod pins.
func kustomizeWithHelm(t *testing.T, helm, dir string) (resmap.ResMap, error) {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.PluginConfig = types.DisabledPluginConfig()
	options.PluginConfig.HelmConfig = types.HelmConfig{Enabled: true, Command: helm}
	return krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
}

// canonical are objects as sorted JSON: their order has no meaning.
func canonical(t *testing.T, m resmap.ResMap) []string {
	t.Helper()
	var out []string
	for _, r := range m.Resources() {
		raw, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		if raw, err = json.MarshalIndent(v, "", " "); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(raw))
	}
	slices.Sort(out)
	return out
}

// TestHelmChartsAsKustomize: charts that a kustomization names become what
// kustomize makes of them with the helm command.
func TestHelmChartsAsKustomize(t *testing.T) {
	archive, err := txtar.ParseFile("../testdata/helm-charts.txtar")
	if err != nil {
		t.Fatal(err)
	}
	archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "out/") })
	tree := rendertest.FromArchive(archive)
	dir := t.TempDir()
	for name, f := range tree.MapFS {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", "helm")
	cmd.Dir = "../../.config"
	helm, err := cmd.Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	tried := 0
	for name := range tree.MapFS {
		if filepath.Base(name) != "kustomization.yaml" || name == "kustomization.yaml" || strings.Contains(string(tree.MapFS[name].Data), "kind: Component") {
			continue
		}
		tried++
		at := filepath.ToSlash(filepath.Dir(name))
		t.Run(at, func(t *testing.T) {
			r := newRun(tree, at)
			w := r.read(newView(t.Context(), tree, r.trace))
			if len(w.problems) > 0 {
				t.Fatalf("problems: %v", w.problems)
			}
			ours, err := w.kustomize()
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := kustomizeWithHelm(t, strings.TrimSpace(string(helm)), filepath.Join(dir, filepath.FromSlash(at)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(canonical(t, theirs), canonical(t, ours)); diff != "" {
				t.Errorf("differs from kustomize build --enable-helm (-kustomize +ours):\n%s", diff)
			}
		})
	}
	if tried < 8 {
		t.Errorf("%d kustomizations were tried", tried)
	}
}

// A base whose chart takes the namespace of who names it is one thing for each.
func TestHelmChartForTwoNamespaces(t *testing.T) {
	tree := rendertest.FromFiles(map[string]string{
		"kustomization.yaml":             "resources: [a, b]\n",
		"a/kustomization.yaml":           "namespace: a\nresources: [../base]\nnamePrefix: a-\n",
		"b/kustomization.yaml":           "namespace: b\nresources: [../base]\nnamePrefix: b-\n",
		"base/kustomization.yaml":        "helmCharts: [{name: c, releaseName: c}]\n",
		"base/charts/c/Chart.yaml":       "apiVersion: v2\nname: c\nversion: 1.0.0\n",
		"base/charts/c/values.yaml":      "a: b\n",
		"base/charts/c/templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: {{ .Release.Namespace }}}\n",
	})
	res := mustRender(t, tree, state.Application{Name: "app", Path: "."})
	if len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Remedy, "namespace into the entries") {
		t.Errorf("problems: %v", res.Problems)
	}
}
