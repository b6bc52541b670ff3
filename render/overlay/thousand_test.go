package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

// BenchmarkThousand is an application of 1,000 objects: kustomize alone, and all
// of a render.
func BenchmarkThousand(b *testing.B) {
	files := map[string]string{"kustomization.yaml": "namespace: shop\nlabels:\n- {pairs: {env: prod}, includeSelectors: false}\nresources:\n"}
	for n := range 1000 {
		name := fmt.Sprintf("web-%04d", n)
		files["kustomization.yaml"] += "- " + name + ".yaml\n"
		files[name+".yaml"] = strings.ReplaceAll(thousandth, "name: web", "name: "+name)
	}
	tree := rendertest.FromFiles(files)
	b.Run("kustomize", func(b *testing.B) {
		for b.Loop() {
			r := newRun(tree, ".")
			w := &walker{view: newView(b.Context(), tree, r.trace), root: ".", index: &index{}, sorts: true}
			m, err := w.kustomize()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := m.AsYaml(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("render", func(b *testing.B) {
		for b.Loop() {
			if res := mustRender(b, tree, state.Application{Name: "app"}); len(res.Problems) > 0 {
				b.Fatal(res.Problems)
			}
		}
	})
}

const thousandth = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      os: {name: linux}
      containers: [{name: web, image: bench.example/web:1}]
`
