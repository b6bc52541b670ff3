package kubeapi

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func scanDisruptionBudgets(s *scan) {
	for _, d := range schedule.Disruptions(s.state) {
		owned := s.state.Rules[d.Ref]
		b, ok := owned.Object.First().(*policyv1.PodDisruptionBudget)
		if !ok {
			continue
		}
		k, uid := key{d.Ref.Namespace, d.Ref.Name}, string(uidOf(s.state, d.Ref, owned.Created))
		f := fingerStart.num(uint64(owned.Changed)).num(uint64(d.Left)).num(uint64(d.Healthy)).num(uint64(d.Desired)).num(uint64(d.Expected))
		if s.same(k, uid, f) {
			continue
		}
		out := &policyv1.PodDisruptionBudget{ObjectMeta: meta(s.state, owned), Spec: *b.Spec.DeepCopy()}
		out.Status = policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: out.Generation, DisruptionsAllowed: int32(d.Left), CurrentHealthy: int32(d.Healthy),
			DesiredHealthy: int32(d.Desired), ExpectedPods: int32(d.Expected),
			Conditions: []metav1.Condition{allowed(s.state, &d, out.Generation)},
		}
		s.put(k, uid, f, out)
	}
}

// allowed is Kubernetes's condition DisruptionAllowed.
func allowed(s *state.State, d *schedule.Disruption, generation int64) metav1.Condition {
	c := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionTrue, Reason: policyv1.SufficientPodsReason,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(s.At.Time()),
	}
	if d.Left <= 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, policyv1.InsufficientPodsReason, d.Words()
	}
	return c
}

func disruptionBudgetColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age")
}

func disruptionBudgetRow(o object, now time.Time) []any {
	b, ok := o.(*policyv1.PodDisruptionBudget)
	if !ok {
		return nil
	}
	word := func(v *intstr.IntOrString) string {
		if v == nil {
			return "N/A"
		}
		return v.String()
	}
	return []any{
		b.Name, word(b.Spec.MinAvailable), word(b.Spec.MaxUnavailable), strconv.Itoa(int(b.Status.DisruptionsAllowed)), age(b.CreationTimestamp, now),
	}
}

func scanPriorityClasses(s *scan) {
	lower := corev1.PreemptLowerPriority
	for _, c := range schedule.BuiltIn() {
		ref := state.Ref{Kind: "PriorityClass", Name: c.Name}
		uid := string(uidOf(s.state, ref, state.Instant{}))
		if k := (key{"", c.Name}); !s.same(k, uid, fingerStart) {
			c.UID, c.PreemptionPolicy = uidType(uid), &lower
			s.put(k, uid, fingerStart, c)
		}
	}
	for ref, owned := range s.state.Rules {
		c, ok := owned.Object.First().(*schedulingv1.PriorityClass)
		if !ok {
			continue
		}
		k, uid, f := key{"", ref.Name}, string(uidOf(s.state, ref, owned.Created)), fingerStart.num(uint64(owned.Changed))
		if s.same(k, uid, f) {
			continue
		}
		out := c.DeepCopy()
		out.ObjectMeta = meta(s.state, owned)
		if out.PreemptionPolicy == nil {
			out.PreemptionPolicy = &lower
		}
		s.put(k, uid, f, out)
	}
}

func priorityClassColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Value", "Global-Default", "Age", "Preemptionpolicy")
}

func priorityClassRow(o object, now time.Time) []any {
	c, ok := o.(*schedulingv1.PriorityClass)
	if !ok {
		return nil
	}
	policy := ""
	if c.PreemptionPolicy != nil {
		policy = string(*c.PreemptionPolicy)
	}
	return []any{c.Name, strconv.Itoa(int(c.Value)), strconv.FormatBool(c.GlobalDefault), age(c.CreationTimestamp, now), policy}
}
