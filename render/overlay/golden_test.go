package overlay_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

var update = flag.Bool("update", false, "write what renders give into testdata")

const testdata = "../testdata"

// TestGolden renders each archive of ../testdata: a tree in; out/objects,
// out/linux, out/windows, out/problems and out/warnings out. The archive's
// comment may have lines "path: DIR", "app: NAME", "namespace: NS",
// "variants: linux windows", "substitute: NAME=VALUE", "values: FILE",
// "ignore: KIND" and "example: DIR", a tree to start from.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testdata, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives in %s: %v", testdata, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want := split(archive)
			got := outcome(t, in)
			if *update {
				in.Files = append(in.Files, got...)
				if err := os.WriteFile(file, txtar.Format(in), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(&txtar.Archive{Files: want})), string(txtar.Format(&txtar.Archive{Files: got}))); diff != "" {
				t.Errorf("render differs from the archive (-archive +render); go test -update writes it:\n%s", diff)
			}
		})
	}
}

func split(a *txtar.Archive) (in *txtar.Archive, out []txtar.File) {
	in = &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "out/") {
			out = append(out, f)
			continue
		}
		in.Files = append(in.Files, f)
	}
	return in, out
}

// application reads the directives of an archive's comment.
func application(t *testing.T, in *txtar.Archive) (state.Application, rendertest.Tree) {
	t.Helper()
	app := state.Application{Name: "test", At: state.Origin{Path: "tandem/applications.yaml", Line: 4}}
	tree := rendertest.FromFiles(nil)
	for line := range strings.Lines(string(in.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "path":
			app.Path = value
		case "app":
			app.Name = state.AppName(value)
		case "substitute":
			name, text, _ := strings.Cut(value, "=")
			if app.Substitute == nil {
				app.Substitute = map[string]string{}
			}
			app.Substitute[name] = text
		case "namespace":
			app.Namespace = value
		case "values":
			app.Helm.ValueFiles = append(app.Helm.ValueFiles, value)
		case "ignore":
			app.IgnoreKinds = append(app.IgnoreKinds, value)
		case "variants":
			for os := range strings.FieldsSeq(value) {
				app.Variants = append(app.Variants, state.OS(os))
			}
		case "example":
			var err error
			if tree, err = rendertest.FromFS(os.DirFS(filepath.Join("..", "..", "examples", value))); err != nil {
				t.Fatal(err)
			}
		}
	}
	maps.Copy(tree.MapFS, rendertest.FromArchive(in).MapFS)
	return app, tree
}

func renderer() render.Renderer { return overlay.New(overlay.Options{Tokens: rendertest.Tokens{}}) }

func outcome(t *testing.T, in *txtar.Archive) []txtar.File {
	t.Helper()
	app, tree := application(t, in)
	res, err := renderer().Render(t.Context(), tree.Snapshot(), app)
	if err != nil {
		t.Fatal(err)
	}
	var out []txtar.File
	add := func(name string, data []byte) {
		if len(data) > 0 {
			out = append(out, txtar.File{Name: "out/" + name, Data: data})
		}
	}
	add("problems", problems(res.Problems))
	var apps bytes.Buffer
	for _, a := range res.Apps {
		said, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&apps, "%s\n", said)
	}
	add("applications", apps.Bytes())
	var pipelines bytes.Buffer
	for _, p := range res.Pipelines {
		said, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&pipelines, "%s\n", said)
	}
	add("pipelines", pipelines.Bytes())
	add("access", access(res.Access))
	if res.Manifest == nil {
		return out
	}
	var objects bytes.Buffer
	for _, p := range res.Manifest.Pairs {
		fmt.Fprintf(&objects, "pair %s\n", p)
	}
	for _, o := range res.Manifest.Objects {
		fmt.Fprint(&objects, o.Ref)
		for _, v := range o.Variants {
			name := string(v.OS)
			if v.OS == state.AnyOS {
				name = "any"
			}
			fmt.Fprintf(&objects, ", %s from %s", name, v.Origin)
		}
		fmt.Fprintln(&objects)
	}
	add("objects", objects.Bytes())
	add("warnings", problems(res.Manifest.Warnings))
	if bytes.Contains(in.Comment, []byte("show: yaml")) {
		for _, os := range []state.OS{state.Linux, state.Windows} {
			raw, err := manifest.YAML(res.Manifest, os)
			if err != nil {
				t.Fatal(err)
			}
			add(string(os), raw)
		}
	}
	return out
}

func problems(ps []state.Problem) []byte {
	var b bytes.Buffer
	for _, p := range ps {
		fmt.Fprintf(&b, "%s\n", p.Error())
	}
	return b.Bytes()
}

// access is who may do what, with the names that no record has.
func access(a *state.Access) []byte {
	var b bytes.Buffer
	if a == nil {
		return nil
	}
	for _, g := range a.Groups {
		fmt.Fprintf(&b, "group %s: %s\n", g.Name, strings.Join(g.Names, " "))
	}
	for _, g := range a.Grants {
		fmt.Fprintf(&b, "%s: users %v, groups %v, applications %v\n", g.Role, g.Names, g.Groups, g.Apps)
	}
	fmt.Fprintf(&b, "at %s\n", a.At)
	return b.Bytes()
}
