package report

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// kinds are the ways to name a kind, as with kubectl. They are made once: a filter
// asks for them with every record.
var kinds = sync.OnceValue(func() map[string]string { //nolint:gochecknoglobals // a table
	return map[string]string{
		"deploy": "Deployment", "deployment": "Deployment", "deployments": "Deployment",
		"sts": "StatefulSet", "statefulset": "StatefulSet", "statefulsets": "StatefulSet",
		"ds": "DaemonSet", "daemonset": "DaemonSet", "daemonsets": "DaemonSet", "job": "Job", "jobs": "Job",
		"pdb": "PodDisruptionBudget", "poddisruptionbudget": "PodDisruptionBudget", "poddisruptionbudgets": "PodDisruptionBudget",
		"pc": "PriorityClass", "priorityclass": "PriorityClass", "priorityclasses": "PriorityClass",
		"cj": "CronJob", "cronjob": "CronJob", "cronjobs": "CronJob",
		"po": "Pod", "pod": "Pod", "pods": "Pod", "no": "Node", "node": "Node", "nodes": "Node",
		"app": "Application", "application": "Application", "applications": "Application",
		"svc": "Service", "service": "Service", "services": "Service", "cm": "ConfigMap", "configmap": "ConfigMap", "configmaps": "ConfigMap",
		"secret": "Secret", "secrets": "Secret", "ns": "Namespace", "namespace": "Namespace", "namespaces": "Namespace",
		"pvc": state.ClaimKind, "persistentvolumeclaim": state.ClaimKind, "persistentvolumeclaims": state.ClaimKind,
	}
})

// A NameError says why a name names no object, or several.
type NameError struct{ text string }

func (e *NameError) Error() string { return e.text }

func nameError(format string, args ...any) error {
	return &NameError{fmt.Sprintf(format, args...)}
}

// Find reads an object's name as people write it: deploy/web, db-2, node/win-1.
// With no namespace, the one namespace in which there is such an object.
func Find(s *state.State, name, namespace string) (state.Ref, error) {
	short, rest, ok := strings.Cut(name, "/")
	if !ok {
		return findOne(s, state.Ref{Kind: "Pod", Namespace: namespace, Name: name})
	}
	kind, known := kinds()[strings.ToLower(short)]
	if !known || rest == "" {
		return state.Ref{}, nameError("object %q: want KIND/NAME with a kind such as deploy, sts, pod, node or app", name)
	}
	ref := state.Ref{Kind: kind, Namespace: namespace, Name: rest}
	if kind == "Node" || kind == "Application" || kind == "Namespace" || kind == "PriorityClass" {
		ref.Namespace = ""
	}
	return findOne(s, ref)
}

func findOne(s *state.State, ref state.Ref) (state.Ref, error) {
	var found []state.Ref
	fits := func(r state.Ref) bool {
		return r.Kind == ref.Kind && r.Name == ref.Name && (ref.Namespace == "" || r.Namespace == ref.Namespace)
	}
	switch ref.Kind {
	case "Pod":
		for k := range s.ByName {
			if fits(podRef(k)) {
				found = append(found, podRef(k))
			}
		}
	case "Node":
		if s.Nodes[state.NodeName(ref.Name)] != nil {
			found = append(found, ref)
		}
	case "Application":
		if s.Apps[state.AppName(ref.Name)] != nil {
			found = append(found, ref)
		}
	default:
		for r := range s.Objects {
			if fits(r) {
				found = append(found, r)
			}
		}
		for r, w := range s.Workloads {
			if w.Parent != nil && s.Objects[r] == nil && fits(r) {
				found = append(found, r) // a CronJob's: it is in no text
			}
		}
		for r := range s.Claims {
			if fits(r) && s.Objects[r] == nil {
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, state.Ref.Compare)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return ref, nameError("there is no %s", ref)
	default:
		var in []string
		for _, r := range found {
			in = append(in, r.Namespace)
		}
		return ref, nameError("%s is in several namespaces (%s): name one with -n", Short(ref), strings.Join(in, ", "))
	}
}
