package schedule

import (
	"fmt"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Disruption is a PodDisruptionBudget with what it is counted from.
type Disruption struct {
	Budget
	Ref      state.Ref
	Expected int  // pods that there should be
	Healthy  int  // pods that are ready, and neither stopping nor lost
	Desired  int  // that many must stay healthy
	Always   bool // unhealthyPodEvictionPolicy AlwaysAllow
}

// Disruptions are all PodDisruptionBudgets, by name, as they stand: the rules are
// those of Kubernetes's disruption controller.
func Disruptions(s *state.State) []Disruption {
	var out []Disruption
	for ref, owned := range s.Rules {
		if b, ok := owned.Object.First().(*policyv1.PodDisruptionBudget); ok {
			out = append(out, disruption(s, ref, &b.Spec))
		}
	}
	slices.SortFunc(out, func(a, b Disruption) int { return a.Ref.Compare(b.Ref) })
	return out
}

func disruption(s *state.State, ref state.Ref, spec *policyv1.PodDisruptionBudgetSpec) Disruption {
	d := Disruption{Ref: ref, Budget: Budget{Namespace: ref.Namespace, Selector: labels.Nothing()}}
	d.Always = spec.UnhealthyPodEvictionPolicy != nil && *spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
	if sel, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && spec.Selector != nil {
		d.Selector = sel
	}
	found := 0
	for _, w := range s.Workloads {
		if w.Ref.Namespace != ref.Namespace {
			continue
		}
		here := 0
		for _, p := range w.Pods {
			if p.Ended() || !d.covers(p) {
				continue
			}
			here++
			if p.Ready && !p.Stopping && !p.Lost {
				d.Healthy++
			}
		}
		found += here
		if (w.Ref.Kind == "Deployment" || w.Ref.Kind == "StatefulSet") && here > 0 {
			here = int(w.Replicas())
		}
		d.Expected += here
	}
	switch {
	case spec.MaxUnavailable != nil:
		d.Desired = max(0, d.Expected-scaled(spec.MaxUnavailable, d.Expected))
	case spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.Int:
		d.Expected, d.Desired = found, int(spec.MinAvailable.IntVal)
	case spec.MinAvailable != nil:
		d.Desired = scaled(spec.MinAvailable, d.Expected)
	}
	if d.Expected > 0 {
		d.Left = max(0, d.Healthy-d.Desired)
	}
	return d
}

// Words say why it lets no pod go now.
func (d *Disruption) Words() string {
	return fmt.Sprintf("%s wants %d healthy pods and has %d", d.Ref, d.Desired, d.Healthy)
}

// scaled rounds up, as Kubernetes does here for both fields.
func scaled(v *intstr.IntOrString, total int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(v, total, true)
	if err != nil {
		return 0 // validation refused it
	}
	return n
}

func (b *Budget) covers(p *state.Pod) bool {
	return b.Namespace == p.Key.Namespace && b.Selector.Matches(podLabels{workload: p.Workload, template: p.Template, pod: p})
}

// May says whether the budgets let a pod be disturbed, and which doesn't. One
// that isn't ready costs nothing where enough others are, or the budget says so;
// nor does one that has not begun (Kubernetes's eviction: canIgnorePDB).
func May(ds []Disruption, p *state.Pod) (refuses *Disruption, covered bool) {
	for i := range ds {
		d := &ds[i]
		if !d.covers(p) {
			continue
		}
		covered = true
		free := p.Phase == state.Pending || !p.Ready && (d.Always || d.Healthy >= d.Desired && d.Desired > 0)
		if d.Left <= 0 && !free {
			return d, true
		}
	}
	return nil, covered
}

// Take counts a pod as disturbed.
func Take(ds []Disruption, p *state.Pod) {
	for i := range ds {
		if d := &ds[i]; d.covers(p) && p.Ready {
			d.Left--
			d.Healthy--
		}
	}
}
