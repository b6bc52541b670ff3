package schedule

import (
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// podLabels are the labels of a pod without a map being built for each: the
// template's and those that its workload adds. The same rules as Pod.PodLabels.
type podLabels struct {
	workload state.Ref
	template *state.Template
	pod      *state.Pod // nil: one that is still to be named
}

// Lookup implements labels.Labels.
func (l podLabels) Lookup(key string) (string, bool) {
	switch l.workload.Kind {
	case "Deployment":
		if key == appsv1.DefaultDeploymentUniqueLabelKey {
			return l.template.Hash, true
		}
	case "StatefulSet":
		switch {
		case key == appsv1.ControllerRevisionHashLabelKey:
			return l.workload.Name + "-" + l.template.Hash, true
		case key == appsv1.StatefulSetPodNameLabel && l.pod != nil:
			return l.pod.Key.Name, true
		case key == appsv1.PodIndexLabel && l.pod != nil:
			return fmt.Sprint(l.pod.Ordinal), true
		}
	case "DaemonSet":
		if key == appsv1.ControllerRevisionHashLabelKey {
			return l.template.Hash, true
		}
	case "Job":
		switch {
		case key == batchv1.JobNameLabel || key == "job-name":
			return l.workload.Name, true
		case key == batchv1.JobCompletionIndexAnnotation && l.pod != nil && l.pod.Ordinal >= 0:
			return fmt.Sprint(l.pod.Ordinal), true
		}
	}
	v, ok := l.template.Spec.Labels[key]
	return v, ok
}

// Has implements labels.Labels.
func (l podLabels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get implements labels.Labels.
func (l podLabels) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

// A namespaces says which namespaces a term means.
type namespaces struct {
	names    []string
	selector labels.Selector // nil: by name alone
}

func (ns *namespaces) contains(s *state.State, name string) bool {
	if slices.Contains(ns.names, name) {
		return true
	}
	return ns.selector != nil && ns.selector.Matches(namespaceLabels(s, name))
}

// namespaceLabels are those of the Namespace object, where the text has one,
// and the name, which Kubernetes adds.
func namespaceLabels(s *state.State, name string) labels.Set {
	set := labels.Set{corev1.LabelMetadataName: name}
	o := s.Object("Namespace", "", name)
	if o == nil {
		return set
	}
	maps.Copy(set, o.First().GetLabels())
	set[corev1.LabelMetadataName] = name
	return set
}

// A matcher says which pods a term or constraint is about.
type matcher struct {
	namespaces namespaces
	selector   labels.Selector
	perPod     bool // it names a label in which pods of one template differ
	last       podLabels
	answer     bool // for last
}

// newMatcher compiles a selector as of a pod that states it: matchLabelKeys and
// mismatchLabelKeys take that pod's own values. A nil selector matches nothing.
func newMatcher(ns namespaces, sel *metav1.LabelSelector, match, mismatch []string, self podLabels) *matcher {
	m := &matcher{namespaces: ns, selector: labels.Nothing()}
	if sel == nil {
		return m
	}
	compiled, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		return m // no such operator or value: it can match nothing
	}
	m.selector = merge(merge(compiled, match, metav1.LabelSelectorOpIn, self), mismatch, metav1.LabelSelectorOpNotIn, self)
	reqs, _ := m.selector.Requirements()
	for i := range reqs {
		if k := reqs[i].Key(); k == appsv1.StatefulSetPodNameLabel || k == appsv1.PodIndexLabel || k == batchv1.JobCompletionIndexAnnotation {
			m.perPod = true
		}
	}
	return m
}

func merge(sel labels.Selector, keys []string, op metav1.LabelSelectorOperator, self podLabels) labels.Selector {
	for _, k := range keys {
		v, ok := self.Lookup(k)
		if !ok {
			continue
		}
		extra, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: k, Operator: op, Values: []string{v}}},
		})
		if err != nil {
			return labels.Nothing()
		}
		reqs, _ := extra.Requirements()
		sel = sel.Add(reqs...)
	}
	return sel
}

// matches asks about a pod in a namespace that is known to be meant. Pods of one
// template come one after the other, so the last answer is kept.
func (m *matcher) matches(l podLabels) bool {
	if m.perPod {
		return m.selector.Matches(l)
	}
	l.pod = nil
	if l != m.last {
		m.last, m.answer = l, m.selector.Matches(l)
	}
	return m.answer
}

// termMatcher compiles a pod affinity term as of the pod that states it.
func termMatcher(t *corev1.PodAffinityTerm, namespace string, self podLabels) *matcher {
	ns := namespaces{names: t.Namespaces}
	if t.NamespaceSelector != nil {
		sel, err := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		if err != nil {
			sel = labels.Nothing()
		}
		ns.selector = sel
	} else if len(t.Namespaces) == 0 {
		ns.names = []string{namespace}
	}
	return newMatcher(ns, t.LabelSelector, t.MatchLabelKeys, t.MismatchLabelKeys, self)
}
