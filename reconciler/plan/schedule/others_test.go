package schedule

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func app(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// spreads adds a constraint over the template's own app label.
func spreads(key string, skew int32, hard bool, change ...func(*corev1.TopologySpreadConstraint)) podChange {
	return func(t *corev1.PodTemplateSpec) {
		c := corev1.TopologySpreadConstraint{MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: app(t.Labels["app"])}
		if hard {
			c.WhenUnsatisfiable = corev1.DoNotSchedule
		}
		for _, f := range change {
			f(&c)
		}
		t.Spec.TopologySpreadConstraints = append(t.Spec.TopologySpreadConstraints, c)
	}
}

func affinityOf(t *corev1.PodTemplateSpec) *corev1.Affinity {
	if t.Spec.Affinity == nil {
		t.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	}
	return t.Spec.Affinity
}

func near(key, name string, change ...func(*corev1.PodAffinityTerm)) podChange {
	return func(t *corev1.PodTemplateSpec) {
		term := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: app(name)}
		for _, f := range change {
			f(&term)
		}
		a := affinityOf(t).PodAffinity
		a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, term)
	}
}

func apart(key, name string, change ...func(*corev1.PodAffinityTerm)) podChange {
	return func(t *corev1.PodTemplateSpec) {
		term := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: app(name)}
		for _, f := range change {
			f(&term)
		}
		a := affinityOf(t).PodAntiAffinity
		a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, term)
	}
}

func rather(key, name string, weight int32) podChange {
	return func(t *corev1.PodTemplateSpec) {
		term := corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: app(name)}}
		if a := affinityOf(t); weight < 0 {
			term.Weight = -weight
			a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, term)
		} else {
			a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, term)
		}
	}
}

// zones makes nodes a1, a2, … in zone a and so on.
func zones(w *world, sizes ...int) {
	for z, size := range sizes {
		name := string(rune('a' + z))
		for i := range size {
			w.node(fmt.Sprintf("%s%d", name, i+1), zone(name))
		}
	}
}

// byZone counts spots by the first letter of their nodes: "a2 b1".
func byZone(spots []Spot) string {
	counts := map[byte]int{}
	for _, s := range spots {
		counts[s.Node.Name[0]]++
	}
	var out []string
	for z := byte('a'); z <= 'z'; z++ {
		if counts[z] > 0 {
			out = append(out, fmt.Sprintf("%c%d", z, counts[z]))
		}
	}
	return strings.Join(out, " ")
}

// TestOthers places pods of one template whose place depends on other pods, as
// a batch and one by one: the answers must be the same.
func TestOthers(t *testing.T) {
	const zoneKey, hostKey = corev1.LabelTopologyZone, corev1.LabelHostname
	honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
	tests := []struct {
		name  string
		setup func(*world) Request
		count int
		want  string // pods a zone
		why   map[string]state.NodeReason
	}{
		{"validates 4 pods with MaxSkew=1 are evenly distributed into 2 nodes", func(w *world) Request {
			zones(w, 1, 1)
			return w.workload("web", state.Linux, spreads(hostKey, 1, true))
		}, 4, "a2 b2", nil},
		{"the best node waits for the others and then goes on", func(w *world) Request {
			zones(w, 1, 1)
			sized(64000, 256<<30)(w.Nodes["a1"])
			return w.workload("web", state.Linux, spreads(hostKey, 1, true))
		}, 7, "a4 b3", map[string]state.NodeReason{"a1": state.NodeSpread}},
		{"a full zone holds the others back", func(w *world) Request {
			zones(w, 2, 1)
			w.Nodes["b1"].Facts.Allocatable.Pods = 1
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true))
		}, 9, "a2 b1", map[string]state.NodeReason{"a1": state.NodeSpread, "a2": state.NodeSpread, "b1": state.NodeShortPods}},
		{"maxSkew 3", func(w *world) Request {
			zones(w, 2, 1)
			w.Nodes["b1"].Facts.Allocatable.Pods = 1
			return w.workload("web", state.Linux, spreads(zoneKey, 3, true))
		}, 9, "a4 b1", nil},
		{"a node without the key takes none", func(w *world) Request {
			zones(w, 1)
			w.node("x")
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true))
		}, 3, "a3", map[string]state.NodeReason{"x": state.NodeSpread}},
		{"minDomains", func(w *world) Request {
			zones(w, 1, 1)
			three := int32(3)
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true, func(c *corev1.TopologySpreadConstraint) { c.MinDomains = &three }))
		}, 5, "a1 b1", map[string]state.NodeReason{"a1": state.NodeSpread, "b1": state.NodeSpread}},
		{"nodes that nodeSelector leaves out don't count", func(w *world) Request {
			zones(w, 1, 1)
			labelled("disk", "ssd")(w.Nodes["a1"])
			return w.workload("web", state.Linux, selects("disk", "ssd"), spreads(zoneKey, 1, true))
		}, 3, "a3", nil},
		{"unless nodeAffinityPolicy is Ignore", func(w *world) Request {
			zones(w, 1, 1)
			labelled("disk", "ssd")(w.Nodes["a1"])
			return w.workload("web", state.Linux, selects("disk", "ssd"), spreads(zoneKey, 1, true, func(c *corev1.TopologySpreadConstraint) { c.NodeAffinityPolicy = &ignore }))
		}, 3, "a1", nil},
		{"tainted nodes count", func(w *world) Request {
			zones(w, 1, 1)
			tainted("k", "", "NoSchedule")(w.Nodes["b1"])
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true))
		}, 3, "a1", nil},
		{"unless nodeTaintsPolicy is Honor", func(w *world) Request {
			zones(w, 1, 1, 1)
			tainted("k", "", "NoSchedule")(w.Nodes["b1"])
			w.Nodes["c1"].Cordoned = true
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true, func(c *corev1.TopologySpreadConstraint) { c.NodeTaintsPolicy = &honor }))
		}, 3, "a3", nil},
		{"matchLabelKeys: only pods of the same revision count", func(w *world) Request {
			zones(w, 1, 1)
			old := w.workload("web", state.Linux, ask("50m", "1Mi"))
			w.put(old, w.Nodes["a1"], "")
			w.put(old, w.Nodes["a1"], "")
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true, func(c *corev1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"pod-template-hash"} }))
		}, 2, "a1 b1", nil},
		{"pods that stop don't count", func(w *world) Request {
			zones(w, 1, 1)
			req := w.workload("web", state.Linux, spreads(zoneKey, 1, true))
			w.put(req, w.Nodes["a1"], "").Stopping = true
			return req
		}, 2, "a1 b1", nil},
		{"pods of other namespaces don't count", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workloadIn("other", "Deployment", "web", state.Linux), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, spreads(zoneKey, 1, true))
		}, 2, "a1 b1", nil},
		{"over operating systems", func(w *world) Request {
			w.node("a1")
			w.node("a2")
			w.node("b1", windows("10.0.20348.1"))
			return w.workload("web", state.AnyOS, spreads("kubernetes.io/os", 1, true))
		}, 4, "a2 b2", nil},
		{"ScheduleAnyway refuses nothing", func(w *world) Request {
			zones(w, 2, 1)
			w.Nodes["b1"].Facts.Allocatable.Pods = 1
			return w.workload("web", state.Linux, spreads(zoneKey, 1, false))
		}, 5, "a4 b1", nil},
		{"ScheduleAnyway evens out", func(w *world) Request {
			zones(w, 3, 1)
			return w.workload("web", state.Linux, spreads(zoneKey, 1, false))
		}, 6, "a3 b3", nil},
		{"own pods over zones by default", func(w *world) Request {
			zones(w, 3, 3)
			return w.workload("web", state.Linux)
		}, 6, "a3 b3", nil},
		{"an index, not a label, of a StatefulSet's own pods", func(w *world) Request {
			zones(w, 1, 1)
			old := w.workloadIn("default", "StatefulSet", "db", state.Linux, ask("50m", "1Mi"))
			w.put(old, w.Nodes["a1"], "")
			return w.workloadIn("default", "StatefulSet", "db", state.Linux)
		}, 1, "b1", nil},

		{"required anti-affinity, a pod a node", func(w *world) Request {
			zones(w, 2, 1)
			return w.workload("web", state.Linux, apart(hostKey, "web"))
		}, 5, "a2 b1", map[string]state.NodeReason{"a1": state.NodePodAntiAffinity, "b1": state.NodePodAntiAffinity}},
		{"required anti-affinity, a pod a zone", func(w *world) Request {
			zones(w, 2, 2)
			return w.workload("web", state.Linux, apart(zoneKey, "web"))
		}, 5, "a1 b1", map[string]state.NodeReason{"a1": state.NodePodAntiAffinity, "a2": state.NodePodAntiAffinity}},
		{"anti-affinity to others", func(w *world) Request {
			zones(w, 2, 1)
			w.put(w.workload("db", state.Linux), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, apart(zoneKey, "db"))
		}, 2, "b2", map[string]state.NodeReason{"a2": state.NodePodAntiAffinity}},
		{"anti-affinity of others", func(w *world) Request {
			zones(w, 2, 1)
			w.put(w.workload("db", state.Linux, apart(zoneKey, "web")), w.Nodes["a1"], "")
			return w.workload("web", state.Linux)
		}, 2, "b2", map[string]state.NodeReason{"a1": state.NodeExistingAntiAffinity, "a2": state.NodeExistingAntiAffinity}},
		{"anti-affinity in another namespace", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workloadIn("other", "Deployment", "db", state.Linux), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, apart(zoneKey, "db", func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"other"} }))
		}, 1, "b1", nil},
		{"anti-affinity by namespaceSelector", func(w *world) Request {
			zones(w, 1, 1, 1)
			ref := state.Ref{Kind: "Namespace", Name: "other"}
			w.Objects[ref] = &state.Owned{Object: &state.Object{Ref: ref, Variants: []state.Variant{{Body: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{"team": "x"}}}}}}}
			w.put(w.workloadIn("other", "Deployment", "db", state.Linux), w.Nodes["a1"], "")
			w.put(w.workloadIn("third", "Deployment", "db", state.Linux), w.Nodes["b1"], "")
			w.put(w.workloadIn("default", "Deployment", "db", state.Linux), w.Nodes["c1"], "")
			return w.workload("web", state.Linux, apart(zoneKey, "db", func(t *corev1.PodAffinityTerm) {
				t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
			}))
		}, 2, "b1 c1", map[string]state.NodeReason{"a1": state.NodePodAntiAffinity}},
		{"an empty namespaceSelector is all", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workloadIn("other", "Deployment", "db", state.Linux), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, apart(zoneKey, "db", func(t *corev1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} }))
		}, 1, "b1", nil},
		{"matchLabelKeys in anti-affinity: a rollout may share nodes with the old revision", func(w *world) Request {
			zones(w, 1, 1)
			hash := func(t *corev1.PodAffinityTerm) { t.MatchLabelKeys = []string{"pod-template-hash"} }
			old := w.workload("web", state.Linux, ask("50m", "1Mi"), apart(hostKey, "web", hash))
			w.put(old, w.Nodes["a1"], "")
			w.put(old, w.Nodes["b1"], "")
			return w.workload("web", state.Linux, apart(hostKey, "web", hash))
		}, 3, "a1 b1", nil},
		{"mismatchLabelKeys keeps other tenants out", func(w *world) Request {
			zones(w, 1, 1)
			tenant := func(name string) podChange { return func(t *corev1.PodTemplateSpec) { t.Labels["tenant"] = name } }
			w.put(w.workload("db", state.Linux, tenant("x")), w.Nodes["a1"], "")
			w.put(w.workload("db", state.Linux, tenant("y")), w.Nodes["b1"], "")
			return w.workload("web", state.Linux, tenant("x"), apart(zoneKey, "db", func(t *corev1.PodAffinityTerm) { t.MismatchLabelKeys = []string{"tenant"} }))
		}, 2, "a2", nil},
		{"required affinity goes where the pods are", func(w *world) Request {
			zones(w, 1, 2)
			w.put(w.workload("db", state.Linux), w.Nodes["b1"], "")
			return w.workload("web", state.Linux, near(zoneKey, "db"))
		}, 3, "b3", map[string]state.NodeReason{"a1": state.NodePodAffinity}},
		{"required affinity to nobody", func(w *world) Request {
			zones(w, 1, 1)
			return w.workload("web", state.Linux, near(zoneKey, "db"))
		}, 1, "", map[string]state.NodeReason{"a1": state.NodePodAffinity, "b1": state.NodePodAffinity}},
		{"required affinity to itself: the first goes anywhere", func(w *world) Request {
			zones(w, 1, 1)
			return w.workload("web", state.Linux, near(zoneKey, "web"))
		}, 4, "a4", map[string]state.NodeReason{"b1": state.NodePodAffinity}},
		{"required affinity to itself on a node: when that is full the others wait", func(w *world) Request {
			zones(w, 1, 1)
			w.Nodes["a1"].Facts.Allocatable.Pods = 2
			return w.workload("web", state.Linux, near(hostKey, "web"))
		}, 4, "a2", map[string]state.NodeReason{"a1": state.NodeShortPods, "b1": state.NodePodAffinity}},
		{"all terms must be of one pod", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workload("db", state.Linux), w.Nodes["a1"], "")
			w.put(w.workload("mq", state.Linux), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, near(zoneKey, "db"), near(zoneKey, "mq"))
		}, 1, "", map[string]state.NodeReason{"a1": state.NodePodAffinity}},
		{"preferred affinity", func(w *world) Request {
			zones(w, 1, 2)
			w.put(w.workload("db", state.Linux), w.Nodes["b1"], "")
			return w.workload("web", state.Linux, rather(zoneKey, "db", 100))
		}, 1, "b1", nil},
		{"preferred anti-affinity", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workload("db", state.Linux, ask("1m", "1Mi")), w.Nodes["a1"], "")
			return w.workload("web", state.Linux, rather(zoneKey, "db", -100))
		}, 1, "b1", nil},
		{"required affinity of others attracts a little", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workload("db", state.Linux, ask("1m", "1Mi"), near(zoneKey, "web")), w.Nodes["b1"], "")
			w.put(w.workload("mq", state.Linux, ask("1m", "1Mi")), w.Nodes["a1"], "")
			return w.workload("web", state.Linux)
		}, 1, "b1", nil},
		{"preferred affinity of others", func(w *world) Request {
			zones(w, 1, 1)
			w.put(w.workload("db", state.Linux, rather(zoneKey, "web", 100)), w.Nodes["b1"], "")
			return w.workload("web", state.Linux)
		}, 1, "b1", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			req := tt.setup(w)
			req.Count = tt.count
			a := Place(w.State, req)
			if got := byZone(a.Spots); got != tt.want {
				t.Errorf("placed %s (%s), want %s", got, names(a.Spots), tt.want)
			}
			for n, want := range tt.why {
				wantReason(t, w, a, n, want)
			}
			if got := names(w.placeOne(req)); got != names(a.Spots) {
				t.Errorf("one by one: %s, as a batch: %s", got, names(a.Spots))
			}
		})
	}
}

// Two workloads may share a template and still differ in labels.
func TestMatcherRemembersOnePodAtMost(t *testing.T) {
	w := newWorld()
	tmpl := w.workload("x", state.Linux).Template
	one := podLabels{workload: state.Ref{Kind: "StatefulSet", Name: "one"}, template: tmpl}
	two := podLabels{workload: state.Ref{Kind: "StatefulSet", Name: "two"}, template: tmpl}
	m := newMatcher(namespaces{}, app("x"), []string{"controller-revision-hash"}, nil, one)
	for range 2 {
		if !m.matches(one) || m.matches(two) {
			t.Error("pods of another workload match")
		}
	}
	first, second := &state.Pod{Key: state.PodKey{Name: "one-0"}}, &state.Pod{Key: state.PodKey{Name: "one-1"}, Ordinal: 1}
	m = newMatcher(namespaces{}, &metav1.LabelSelector{MatchLabels: map[string]string{"apps.kubernetes.io/pod-index": "1"}}, nil, nil, one)
	if m.matches(podLabels{one.workload, tmpl, first}) || !m.matches(podLabels{one.workload, tmpl, second}) {
		t.Error("pods of one template differ by their index")
	}
}

// The labels that selectors see are those that the pod shows.
func TestPodLabels(t *testing.T) {
	w := newWorld()
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		req := w.workloadIn("default", kind, "x", state.Linux)
		p := w.put(req, w.node(kind), "")
		p.Ordinal = 3
		l := podLabels{workload: p.Workload, template: p.Template, pod: p}
		for k, v := range p.PodLabels() {
			if got, ok := l.Lookup(k); !ok || got != v || !l.Has(k) || l.Get(k) != v {
				t.Errorf("%s: label %s is %q, want %q", kind, k, got, v)
			}
		}
		if l.Has("missing") {
			t.Error("a label that isn't there")
		}
	}
}
