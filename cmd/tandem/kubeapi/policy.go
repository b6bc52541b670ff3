package kubeapi

import (
	"strconv"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
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
		}
		s.put(k, uid, f, out)
	}
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
