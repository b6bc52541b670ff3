package helm_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"

	"github.com/tandem-gitops/tandem/render/helm"
)

// files are those of a chart on disk.
func files(t *testing.T, dir string) []helm.File {
	t.Helper()
	var out []helm.File
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		out = append(out, helm.File{Name: name, Data: raw})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The chart that `helm create` makes is what most charts began as: it renders,
// each time to the same bytes.
func TestTheChartThatHelmCreates(t *testing.T) {
	dir, err := chartutil.Create("web", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	chart := files(t, dir)
	values := []helm.File{{Name: "values.prod.yaml", Data: []byte("replicaCount: 3\nimage: {tag: 1.4.0}\n")}}
	var first string
	for range 3 {
		docs, _, err := helm.Render(t.Context(), chart, helm.Options{Release: "shop", Namespace: "prod", Values: values})
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, d := range docs {
			all.WriteString("# " + d.File + "\n")
			all.Write(d.YAML)
		}
		if first == "" {
			first = all.String()
		}
		if all.String() != first {
			t.Fatalf("another render gave other bytes:\n%s\nand\n%s", first, all.String())
		}
	}
	for _, want := range []string{"# templates/deployment.yaml", "name: shop-web\n", "replicas: 3\n", `image: "nginx:1.4.0"`, "# templates/service.yaml", "kind: ServiceAccount"} {
		if !strings.Contains(first, want) {
			t.Errorf("the render lacks %q:\n%s", want, first)
		}
	}
}
