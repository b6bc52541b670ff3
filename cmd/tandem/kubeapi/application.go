package kubeapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (a *api) scanApplications(s *scan) {
	for _, app := range report.Applications(s.state, a.Controller.Words) {
		declared := s.state.Apps[app.Name].Declared
		k := key{"", string(app.Name)}
		uid := string(uidOf(s.state, state.Ref{Kind: "Application", Name: string(app.Name)}, declared))
		raw := mustJSON(app)
		f := fingerStart.str(string(raw))
		if !s.same(k, uid, f) {
			s.put(k, uid, f, application(s.state.Apps[app.Name], &app, uid))
		}
	}
}

// application is what kubectl shows; all values are of the types that
// unstructured objects may hold.
func application(a *state.App, app *report.Application, uid string) *unstructured.Unstructured {
	source := map[string]any{}
	for k, v := range map[string]string{"repo": a.Spec.Source.Repo, "ref": a.Spec.Source.Ref, "commit": a.Spec.Source.Commit} {
		if v != "" {
			source[k] = v
		}
	}
	spec := map[string]any{"source": source, "path": a.Spec.Path}
	if a.Spec.Namespace != "" {
		spec["namespace"] = a.Spec.Namespace
	}
	if a.Spec.Suspend.On {
		spec["suspend"] = map[string]any{"reason": app.SuspendReason}
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"spec": spec,
		"status": map[string]any{
			"revision": string(app.Revision), "state": app.State, "pods": app.Pods.String(), "linux": app.Linux.String(), "windows": app.Windows.String(),
		},
	}}
	u.SetName(string(app.Name))
	u.SetUID(uidType(uid))
	u.SetCreationTimestamp(metav1.NewTime(a.Declared.Time()))
	if a.Spec.At.Path != "" {
		u.SetAnnotations(map[string]string{"tandem.dev/origin": a.Spec.At.String()})
	}
	return u
}

func applicationColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Revision", "State", "Pods", "Linux", "Windows", "Age", "+Repo", "+Path")
}

func applicationRow(o object, now time.Time) []any {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	text := func(path ...string) string {
		s, _, err := unstructured.NestedString(u.Object, path...)
		if err != nil {
			return ""
		}
		return s
	}
	return []any{
		u.GetName(), orNone(state.Revision(text("status", "revision")).Short()), text("status", "state"), text("status", "pods"),
		text("status", "linux"), text("status", "windows"), age(u.GetCreationTimestamp(), now), orNone(text("spec", "source", "repo")), text("spec", "path"),
	}
}
