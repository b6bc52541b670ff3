package schedule

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

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
