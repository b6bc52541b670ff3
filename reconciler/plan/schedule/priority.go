package schedule

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The classes that Kubernetes has built in.
const (
	clusterCritical = 2_000_000_000 // system-cluster-critical
	nodeCritical    = 2_000_001_000 // system-node-critical
)

// Priority is a template's priority, and whether its pods may take the room of
// others: by its PriorityClass, or the default one where it names none, else 0.
// With several defaults the lowest holds (Kubernetes's rule).
func Priority(s *state.State, t *state.Template) (int32, bool) {
	return PriorityOf(s, &t.Spec.Spec)
}

// MayPreempt says whether there can be pods of lower priority at all, before any
// is looked for.
func MayPreempt(s *state.State, t *state.Template) bool {
	value, may := Priority(s, t)
	lowest := int32(0)
	for _, owned := range s.Rules {
		if c, ok := priorityClass(owned.Object); ok {
			lowest = min(lowest, c.Value)
		}
	}
	return may && value > lowest
}

// Unclassed is the PriorityClass that a pod spec names and that isn't there; empty
// where there is none such.
func Unclassed(s *state.State, spec *corev1.PodSpec) string {
	switch name := spec.PriorityClassName; name {
	case "", "system-cluster-critical", "system-node-critical":
		return ""
	default:
		if s.Rules[state.Ref{Kind: "PriorityClass", Name: name}] != nil {
			return ""
		}
		return name
	}
}

// BuiltIn are Kubernetes's own classes, which are always there.
func BuiltIn() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, words string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: words}
	}
	return []*schedulingv1.PriorityClass{
		class("system-cluster-critical", clusterCritical, "Used for pods that must run in the cluster, but may move to another node."),
		class("system-node-critical", nodeCritical, "Used for pods that must not move from their node."),
	}
}

// PriorityOf is the same for a pod spec.
func PriorityOf(s *state.State, spec *corev1.PodSpec) (int32, bool) {
	value, policy := int32(0), (*corev1.PreemptionPolicy)(nil)
	switch spec.PriorityClassName {
	case "":
		if c := defaultClass(s); c != nil {
			value, policy = c.Value, c.PreemptionPolicy
		}
	case "system-cluster-critical":
		value = clusterCritical
	case "system-node-critical":
		value = nodeCritical
	default:
		if owned := s.Rules[state.Ref{Kind: "PriorityClass", Name: spec.PriorityClassName}]; owned != nil {
			if c, ok := priorityClass(owned.Object); ok {
				value, policy = c.Value, c.PreemptionPolicy
			}
		}
	}
	if spec.Priority != nil {
		value = *spec.Priority
	}
	if spec.PreemptionPolicy != nil {
		policy = spec.PreemptionPolicy
	}
	return value, policy == nil || *policy != corev1.PreemptNever
}

func priorityClass(o *state.Object) (*schedulingv1.PriorityClass, bool) {
	if o == nil {
		return nil, false
	}
	c, ok := o.First().(*schedulingv1.PriorityClass)
	return c, ok
}

func defaultClass(s *state.State) *schedulingv1.PriorityClass {
	var lowest *schedulingv1.PriorityClass
	for _, owned := range s.Rules {
		c, ok := priorityClass(owned.Object)
		if ok && c.GlobalDefault && (lowest == nil || c.Value < lowest.Value || c.Value == lowest.Value && c.Name < lowest.Name) {
			lowest = c
		}
	}
	return lowest
}
