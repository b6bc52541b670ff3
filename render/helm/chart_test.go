package helm_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"sigs.k8s.io/yaml"

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

// A chart renders to what the helm command itself prints for it.
func TestAsHelmTemplate(t *testing.T) {
	created, err := chartutil.Create("web", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shop := filepath.Join(unpack(t, "../testdata/chart.txtar"), "chart")
	if err := os.Remove(filepath.Join(shop, "README.md")); err != nil { // .helmignore names it
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"the created chart": created, "a chart with a dependency": shop} {
		t.Run(name, func(t *testing.T) {
			values := filepath.Join(t.TempDir(), "values.yaml")
			text := "replicas: 2\nreplicaCount: 3\ningress: {enabled: true}\nautoscaling: {enabled: true}\n"
			if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), helmCommand(t), "template", "rel", dir, "--namespace", "prod", "--values", values)
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
			want, err := cmd.Output()
			if err != nil {
				t.Fatalf("helm template: %v\n%s", err, want)
			}
			docs, _, err := helm.Render(t.Context(), files(t, dir), helm.Options{Release: "rel", Namespace: "prod", Values: []helm.File{{Name: "values.yaml", Data: []byte(text)}}})
			if err != nil {
				t.Fatal(err)
			}
			var have strings.Builder
			for _, d := range docs {
				for _, part := range documents(string(d.YAML)) {
					have.WriteString("---\n" + part + "\n")
				}
			}
			if diff := cmp.Diff(normal(t, string(want)), normal(t, have.String())); diff != "" {
				t.Errorf("differs from helm template (-helm +ours):\n%s", diff)
			}
		})
	}
}

// helmCommand is the pinned helm of .config/go.mod.
func helmCommand(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", "helm")
	cmd.Dir = "../../.config"
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// unpack writes an archive of testdata into a directory.
func unpack(t *testing.T, file string) string {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var separator = regexp.MustCompile(`(?m)^---[^\n]*\n`)

func documents(text string) []string { return separator.Split(text, -1) }

// normal is a stream of documents as sorted JSON: their order has no meaning.
func normal(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	for _, doc := range documents(text) {
		var v any
		if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if v == nil {
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(raw))
	}
	slices.Sort(out)
	return out
}
