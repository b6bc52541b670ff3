package manifest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
)

func (c *validator) disruptionBudget(p Path, s *policyv1.PodDisruptionBudgetSpec) {
	switch {
	case s.MinAvailable != nil && s.MaxUnavailable != nil:
		c.fail(p, "minAvailable and maxUnavailable are both given", "keep one")
	case s.MinAvailable == nil && s.MaxUnavailable == nil:
		c.fail(p, "has neither minAvailable nor maxUnavailable", "add maxUnavailable: 1")
	}
	c.countOrPercent(p.Key("minAvailable"), s.MinAvailable, true)
	c.countOrPercent(p.Key("maxUnavailable"), s.MaxUnavailable, true)
	if s.Selector == nil {
		c.missing(p.Key("selector"), "add  selector: {matchLabels: {app: NAME}}, the labels of the pods")
	} else {
		c.labelSelector(p.Key("selector"), s.Selector)
	}
	if u := s.UnhealthyPodEvictionPolicy; u != nil && *u != policyv1.IfHealthyBudget && *u != policyv1.AlwaysAllow {
		c.fail(p.Key("unhealthyPodEvictionPolicy"), fmt.Sprintf("want IfHealthyBudget or AlwaysAllow, got %q", clip(string(*u))), "unhealthyPodEvictionPolicy: AlwaysAllow")
	}
}

// highestClass is Kubernetes's limit on what people give; above are its own two.
const highestClass = 1_000_000_000

func (c *validator) priorityClass(o *schedulingv1.PriorityClass) {
	if strings.HasPrefix(o.Name, "system-") {
		c.fail(Path(nil).Key("metadata", "name"), "names that begin with system- are built in", "give another name")
	}
	if o.Value > highestClass {
		c.fail(Path(nil).Key("value"), fmt.Sprintf("is more than %d", highestClass), "lower it")
	}
	c.preemption(Path(nil).Key("preemptionPolicy"), o.PreemptionPolicy)
}

func (c *validator) preemption(p Path, policy *corev1.PreemptionPolicy) {
	if policy != nil && *policy != corev1.PreemptNever && *policy != corev1.PreemptLowerPriority {
		c.fail(p, fmt.Sprintf("want Never or PreemptLowerPriority, got %q", clip(string(*policy))), "preemptionPolicy: Never")
	}
}

// podAffinity validates what a pod wants near or far from other pods.
func (c *validator) podAffinity(p Path, a *corev1.Affinity) {
	terms := func(p Path, list []corev1.PodAffinityTerm) {
		for i := range list {
			c.affinityTerm(p.At(i, ""), &list[i])
		}
	}
	wishes := func(p Path, list []corev1.WeightedPodAffinityTerm) {
		for i := range list {
			if w := list[i].Weight; w < 1 || w > 100 {
				c.fail(p.At(i, "").Key("weight"), fmt.Sprintf("must be between 1 and 100, is %d", w), "give a weight in that range")
			}
			c.affinityTerm(p.At(i, "").Key("podAffinityTerm"), &list[i].PodAffinityTerm)
		}
	}
	if x := a.PodAffinity; x != nil {
		terms(p.Key("podAffinity", "requiredDuringSchedulingIgnoredDuringExecution"), x.RequiredDuringSchedulingIgnoredDuringExecution)
		wishes(p.Key("podAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if x := a.PodAntiAffinity; x != nil {
		terms(p.Key("podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"), x.RequiredDuringSchedulingIgnoredDuringExecution)
		wishes(p.Key("podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func (c *validator) affinityTerm(p Path, t *corev1.PodAffinityTerm) {
	if t.TopologyKey == "" {
		c.missing(p.Key("topologyKey"), "say near in what: topologyKey: kubernetes.io/hostname")
	} else {
		c.labelKey(p.Key("topologyKey"), t.TopologyKey)
	}
	if t.LabelSelector != nil {
		c.labelSelector(p.Key("labelSelector"), t.LabelSelector)
	}
	if t.NamespaceSelector != nil {
		c.labelSelector(p.Key("namespaceSelector"), t.NamespaceSelector)
	}
	for i, ns := range t.Namespaces {
		c.name(p.Key("namespaces").At(i, ""), ns, nameLabel)
	}
	if (len(t.MatchLabelKeys) > 0 || len(t.MismatchLabelKeys) > 0) && t.LabelSelector == nil {
		c.fail(p.Key("matchLabelKeys"), "has no meaning without labelSelector", "add labelSelector")
	}
}
