package manifest

import (
	"reflect"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// dishonoured says of a field that nothing honours what there is to say, and
// whether its value is read all the same.
func (c *checker) dishonoured(t reflect.Type, class fieldClass, f *Field, p Path) (read bool) {
	server := t == reflect.TypeFor[metav1.ObjectMeta]() || f.Key == "status"
	switch {
	case asksNothing(t, f):
		return class == noted && !server
	case class == noted:
		cause, remedy := noteOf(t, f.Key)
		c.notes = append(c.notes, state.Problem{Object: c.object, Field: p.String(), At: c.place(p, f.Value), Cause: cause, Remedy: remedy})
		return !server // of what a cluster writes no two writings mean different things
	}
	cause, remedy := refusedField(t, f.Key)
	c.fail(p, f.Value, cause, remedy)
	c.refused++
	return false
}

// noteOf says why a field has no effect, and what to do for one.
func noteOf(t reflect.Type, name string) (cause, remedy string) {
	const ignored = "has no effect: "
	switch {
	case name == "status", t == reflect.TypeFor[metav1.ObjectMeta]():
		return ignored + "it is written by a cluster", "remove it"
	case name == "automountServiceAccountToken":
		return ignored + "there are no tokens, since there is no Kubernetes API server inside", "remove it, or write false"
	case name == "resizePolicy":
		return ignored + "where resources change, the pod is replaced", "remove it"
	case name == "fsGroupChangePolicy":
		return ignored + "a volume is given to the group once, when it isn't the group's yet", "remove it"
	case name == "immutable":
		return ignored + "what Git says next is applied", "remove it, or give each version a name, as kustomize's generators do"
	case name == "trafficDistribution":
		return ignored + "every ready pod has the same share of the connections", "remove it, or write internalTrafficPolicy: Local"
	case name == "appProtocol":
		return ignored + "connections are passed on as they are", "remove it, or leave it for those who read it"
	case name == "finalizers":
		return ignored + "a namespace is pruned when it is taken out of Git", "remove it"
	}
	return ignored + "nothing reads it", "remove it"
}

// asksNothing says whether a value of a field that is not honoured is what
// Kubernetes does without it, as charts often write.
func asksNothing(t reflect.Type, f *Field) bool {
	v := f.Value
	switch t {
	case reflect.TypeFor[corev1.PodSpec]():
		if f.Key == "hostUsers" {
			return v.Kind == Bool && strings.EqualFold(v.Text, "true")
		}
	case reflect.TypeFor[corev1.ServiceSpec]():
		if f.Key == "allocateLoadBalancerNodePorts" {
			return false
		}
	case reflect.TypeFor[corev1.NamespaceSpec]():
		if len(v.Items) == 1 && v.Items[0].Text == string(corev1.FinalizerKubernetes) {
			return true
		}
	}
	if f.Key == "status" {
		return empty(v)
	}
	switch v.Kind {
	case Bool:
		return strings.EqualFold(v.Text, "false")
	case Int:
		return v.Text == "0"
	case String:
		return v.Text == "" || slices.Contains(defaultWords(t, f.Key), v.Text)
	case List:
		return len(v.Items) == 0
	case Map:
		return len(v.Fields) == 0 && (jsonFields(t)[f.Key].Kind() == reflect.Map || f.Key == "seLinuxOptions")
	case Null, Float:
	}
	return false
}

// defaultWords are what Kubernetes takes where such a field is left out.
func defaultWords(t reflect.Type, name string) []string {
	switch t {
	case reflect.TypeFor[corev1.PodSecurityContext]():
		if name == "fsGroupChangePolicy" {
			return []string{string(corev1.FSGroupChangeAlways)}
		}
		if name == "supplementalGroupsPolicy" {
			return []string{string(corev1.SupplementalGroupsPolicyMerge)}
		}
	case reflect.TypeFor[corev1.SecurityContext]():
		if name == "procMount" {
			return []string{string(corev1.DefaultProcMount)}
		}
	case reflect.TypeFor[corev1.VolumeMount]():
		if name == "recursiveReadOnly" {
			return []string{string(corev1.RecursiveReadOnlyDisabled)}
		}
	case reflect.TypeFor[batchv1.JobSpec]():
		if name == "managedBy" {
			return []string{batchv1.JobControllerName}
		}
	}
	return nil
}

// empty says whether nothing is written in a value, however deep.
func empty(v *Value) bool {
	switch v.Kind {
	case Map:
		return !slices.ContainsFunc(v.Fields, func(f Field) bool { return !empty(f.Value) })
	case List:
		return len(v.Items) == 0
	case Null:
		return true
	case Int:
		return v.Text == "0"
	case String, Bool, Float:
	}
	return v.Text == ""
}
