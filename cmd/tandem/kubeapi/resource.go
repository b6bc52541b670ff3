package kubeapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An object is what the API shows: a type of k8s.io/api, or an Application.
type object interface {
	metav1.Object
	runtime.Object
}

// A resource is one kind of the API.
type resource struct {
	group, version    string
	plural, singular  string
	kind              string
	short, categories []string
	namespaced        bool
	verbs             []string        // for discovery
	subresources      []subresource   // for discovery
	acts              map[string]bool // "pods delete": what may be changed here, to those who may
	before            func()          // goes before scan, outside View
	scan              func(*scan)
	columns           []metav1.TableColumnDefinition
	row               func(o object, now time.Time) []any
	fields            func(o object) fields.Set // beside metadata.name and metadata.namespace
}

// A subresource is something below one object.
type subresource struct {
	name, kind string
	verbs      []string
	group      string // of its kind, where that isn't the resource's: kubectl drain evicts only where it finds policy/v1 here
	version    string
}

func (r *resource) apiVersion() string {
	if r.group == "" {
		return r.version
	}
	return r.group + "/" + r.version
}

// readVerbs is what every resource can do.
func readVerbs() []string { return []string{"get", "list", "watch"} }

// allResources are the kinds of the API, in the order of discovery.
func (a *api) allResources() []*resource { //nolint:funlen // a table
	return []*resource{
		{
			version: "v1", plural: "pods", singular: "pod", kind: "Pod", short: []string{"po"}, categories: []string{"all"}, namespaced: true,
			verbs: append(readVerbs(), "delete"),
			subresources: []subresource{
				{name: "log", kind: "Pod", verbs: []string{"get"}},
				{name: "exec", kind: "PodExecOptions", verbs: []string{"create", "get"}},
				{name: "portforward", kind: "PodPortForwardOptions", verbs: []string{"create", "get"}},
				{name: "eviction", kind: "Eviction", verbs: []string{"create"}, group: "policy", version: "v1"},
			},
			acts: map[string]bool{"pods delete": true, "pods/eviction create": true},
			scan: a.scanPods, columns: podColumns(), row: podRow, fields: podFields,
		},
		{
			version: "v1", plural: "nodes", singular: "node", kind: "Node", short: []string{"no"},
			verbs: append(readVerbs(), "patch"), acts: map[string]bool{"nodes patch": true},
			scan: a.scanNodes, columns: nodeColumns(), row: nodeRow, fields: nodeFields,
		},
		{
			version: "v1", plural: "services", singular: "service", kind: "Service", short: []string{"svc"}, categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: scanServices, columns: serviceColumns(), row: serviceRow,
		},
		{
			version: "v1", plural: "configmaps", singular: "configmap", kind: "ConfigMap", short: []string{"cm"}, namespaced: true,
			verbs: readVerbs(), scan: scanConfigMaps, columns: configMapColumns(), row: configMapRow,
		},
		{
			version: "v1", plural: "serviceaccounts", singular: "serviceaccount", kind: "ServiceAccount", short: []string{"sa"}, namespaced: true,
			verbs: readVerbs(), scan: scanServiceAccounts, columns: serviceAccountColumns(), row: serviceAccountRow,
		},
		{
			version: "v1", plural: "secrets", singular: "secret", kind: "Secret", namespaced: true,
			verbs: readVerbs(), scan: scanSecrets, columns: secretColumns(), row: secretRow, fields: secretFields,
		},
		{
			version: "v1", plural: "persistentvolumeclaims", singular: "persistentvolumeclaim", kind: state.ClaimKind, short: []string{"pvc"}, namespaced: true,
			verbs: append(readVerbs(), "delete"), acts: map[string]bool{"persistentvolumeclaims delete": true},
			scan: scanClaims, columns: claimColumns(), row: claimRow,
		},
		{
			version: "v1", plural: "namespaces", singular: "namespace", kind: "Namespace", short: []string{"ns"},
			verbs: readVerbs(), scan: scanNamespaces, columns: namespaceColumns(), row: namespaceRow,
		},
		{
			version: "v1", plural: "events", singular: "event", kind: "Event", short: []string{"ev"}, namespaced: true,
			verbs: readVerbs(), before: a.events.read, scan: a.events.scan, columns: eventColumns(), row: eventRow, fields: eventFields,
		},
		{
			group: "apps", version: "v1", plural: "deployments", singular: "deployment", kind: "Deployment", short: []string{"deploy"},
			categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: a.scanDeployments, columns: deploymentColumns(), row: deploymentRow,
		},
		{
			group: "apps", version: "v1", plural: "statefulsets", singular: "statefulset", kind: "StatefulSet", short: []string{"sts"},
			categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: a.scanStatefulSets, columns: statefulSetColumns(), row: statefulSetRow,
		},
		{
			group: "apps", version: "v1", plural: "replicasets", singular: "replicaset", kind: "ReplicaSet", short: []string{"rs"},
			categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: scanReplicaSets, columns: replicaSetColumns(), row: replicaSetRow,
		},
		{
			group: "apps", version: "v1", plural: "controllerrevisions", singular: "controllerrevision", kind: "ControllerRevision", namespaced: true,
			verbs: readVerbs(), scan: scanControllerRevisions, columns: controllerRevisionColumns(), row: controllerRevisionRow,
		},
		{
			group: "apps", version: "v1", plural: "daemonsets", singular: "daemonset", kind: "DaemonSet", short: []string{"ds"},
			categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: a.scanDaemonSets, columns: daemonSetColumns(), row: daemonSetRow,
		},
		{
			group: "batch", version: "v1", plural: "jobs", singular: "job", kind: "Job", categories: []string{"all"}, namespaced: true,
			verbs: readVerbs(), scan: a.scanJobs, columns: jobColumns(), row: jobRow,
		},
		{
			group: "batch", version: "v1", plural: "cronjobs", singular: "cronjob", kind: "CronJob", short: []string{"cj"}, categories: []string{"all"},
			namespaced: true, verbs: readVerbs(), scan: a.scanCronJobs, columns: cronJobColumns(), row: cronJobRow,
		},
		{
			group: "policy", version: "v1", plural: "poddisruptionbudgets", singular: "poddisruptionbudget", kind: "PodDisruptionBudget", short: []string{"pdb"},
			namespaced: true, verbs: readVerbs(), scan: scanDisruptionBudgets, columns: disruptionBudgetColumns(), row: disruptionBudgetRow,
		},
		{
			group: "scheduling.k8s.io", version: "v1", plural: "priorityclasses", singular: "priorityclass", kind: "PriorityClass", short: []string{"pc"},
			verbs: readVerbs(), scan: scanPriorityClasses, columns: priorityClassColumns(), row: priorityClassRow,
		},
		{
			group: "discovery.k8s.io", version: "v1", plural: "endpointslices", singular: "endpointslice", kind: "EndpointSlice", namespaced: true,
			verbs: readVerbs(), scan: scanEndpointSlices, columns: endpointSliceColumns(), row: endpointSliceRow,
		},
		{
			group: "tandem.dev", version: "v1", plural: "applications", singular: "application", kind: "Application", short: []string{"app", "apps"},
			verbs: readVerbs(), scan: a.scanApplications, columns: applicationColumns(), row: applicationRow,
		},
	}
}

// A key names an object within its resource.
type key struct{ namespace, name string }

// A finger tells two contents apart without building them: FNV-1a over what
// an object is built from.
type finger uint64

const fingerStart finger = 14695981039346656037

func (f finger) num(n uint64) finger {
	for range 8 {
		f = (f ^ finger(n&0xff)) * 1099511628211
		n >>= 8
	}
	return f
}

func (f finger) str(s string) finger {
	for i := range len(s) {
		f = (f ^ finger(s[i])) * 1099511628211
	}
	return f.num(uint64(len(s)))
}

func (f finger) flag(b bool) finger {
	if b {
		return f.num(1)
	}
	return f.num(2)
}

func (f finger) at(i state.Instant) finger { return f.num(uint64(i.Wall)) }
