package overlay_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

// A commit that adds or removes a directory that a set finds touches the root's
// render; one inside such a directory doesn't.
func TestSetReadsListings(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"tandem/set.yaml": "apiVersion: tandem.dev/v1\nkind: ApplicationSet\nmetadata: {name: s}\nspec: {paths: [apps/*/prod], template: {metadata: {name: \"{1}\"}}}\n",
		"apps/a/prod/x":   "", "apps/b/dev/x": "", "other/x": "",
	}
	root := state.Application{Name: state.RootApp, Path: "tandem"}
	res, err := renderer().Render(t.Context(), rendertest.FromFiles(files).Snapshot(), root)
	if err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	for change, want := range map[string]bool{
		"apps/a/prod/y": true, "apps/a/prod/z/y": true, "other/y": true, "apps/b/prod/x": false, "apps/c/prod/x": false, "apps/b/y": false,
	} {
		other := maps.Clone(files)
		other[change] = "new"
		tree := rendertest.FromFiles(other)
		if got := render.Unchanged(tree, res.Manifest.Reads); got != want {
			t.Errorf("with %s: unchanged is %v, want %v", change, got, want)
		}
		again, err := renderer().Render(t.Context(), tree.Snapshot(), root)
		if err != nil {
			t.Fatal(err)
		}
		if same := cmp.Equal(names(again.Apps), names(res.Apps)); want && !same {
			t.Errorf("with %s: %v, before %v, and nobody noticed", change, names(again.Apps), names(res.Apps))
		}
	}
	gone := maps.Clone(files)
	delete(gone, "apps/a/prod/x")
	gone["apps/a/dev/x"] = ""
	if render.Unchanged(rendertest.FromFiles(gone), res.Manifest.Reads) {
		t.Error("apps/a/prod went, and nobody noticed")
	}
}

func names(apps []state.Application) []string {
	var out []string
	for i := range apps {
		out = append(out, string(apps[i].Name))
	}
	return slices.Sorted(slices.Values(out))
}
