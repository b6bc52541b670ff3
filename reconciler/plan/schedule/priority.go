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
	spec := &t.Spec.Spec
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
		if c, ok := priorityClass(s.Object("PriorityClass", "", spec.PriorityClassName)); ok {
			value, policy = c.Value, c.PreemptionPolicy
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
	for ref, owned := range s.Objects {
		if ref.Kind != "PriorityClass" {
			continue
		}
		c, ok := priorityClass(owned.Object)
		if ok && c.GlobalDefault && (lowest == nil || c.Value < lowest.Value || c.Value == lowest.Value && c.Name < lowest.Name) {
			lowest = c
		}
	}
	return lowest
}
