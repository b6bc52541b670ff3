package overlay_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// What variables become in the archive substitute.txtar: the golden test shows
// only where objects come from.
func TestSubstitutedValues(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile(filepath.Join(testdata, "substitute.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	in, _ := split(archive)
	app, tree := application(t, in)
	app.Substitute["evil"] = "x\n  b: y"
	res, err := renderer().Render(t.Context(), tree.Snapshot(), app)
	if err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	config := func(name string) map[string]string {
		o := res.Manifest.Find(state.Ref{Kind: "ConfigMap", Namespace: "default", Name: name})
		return o.First().(*corev1.ConfigMap).Data //nolint:forcetypeassert // the kind is asked for
	}
	if diff := cmp.Diff(map[string]string{"a": "x\n  b: y", "web.conf": "listen 8080\nroot /srv\n"}, config("cm")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "${not_ours}"}, config("raw")); diff != "" {
		t.Error(diff)
	}
	d, ok := res.Manifest.Find(state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}).First().(*appsv1.Deployment)
	if !ok {
		t.Fatal("no Deployment")
	}
	c := d.Spec.Template.Spec.Containers[0]
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	if diff := cmp.Diff(map[string]string{"PORT": "8080", "FLAG": "on", "HOST": "WEB.example", "SHELL": "${HOME}/$HOME/$(PORT)"}, env); diff != "" {
		t.Error(diff)
	}
	if *d.Spec.Replicas != 3 || c.Image != "shop.example/web:1.4.0" || c.Ports[0].ContainerPort != 8080 {
		t.Errorf("replicas %d, image %s, port %d", *d.Spec.Replicas, c.Image, c.Ports[0].ContainerPort)
	}
	before := res.Manifest.Digest
	app.Substitute = nil
	res, err = renderer().Render(t.Context(), tree.Snapshot(), app)
	if err != nil || len(res.Problems) == 0 {
		t.Errorf("without variables ${replicas} is no number, and yet: %v, %v", res.Problems, err)
	}
	app.Substitute = map[string]string{"replicas": "4", "port": "8080", "tag": "1.4.0", "flag": "on", "name": "web", "evil": "x"}
	if res, err = renderer().Render(t.Context(), tree.Snapshot(), app); err != nil || res.Manifest == nil || res.Manifest.Digest == before {
		t.Errorf("other values must give another digest: %v, %v", res.Problems, err)
	}
}
