package schedule

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// cluster has half its nodes on each OS, in ten zones.
func cluster(nodes int) *world {
	w := newWorld()
	for i := range nodes {
		kind := windows("10.0.20348.2113", state.Process)
		if i%2 == 0 {
			kind = func(*state.Node) {}
		}
		w.node(fmt.Sprintf("node-%05d", i), kind, zone(fmt.Sprint(i%10)), sized(16000, 64<<30))
	}
	return w
}

// fill places pods of several Deployments, half of them on each OS.
func fill(b *testing.B, nodes, pods, calls int, change ...func(*corev1.PodTemplateSpec)) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		w := cluster(nodes)
		var reqs []Request
		for i := range calls {
			os := state.Linux
			if i%2 == 1 {
				os = state.Windows
			}
			req := w.workload(fmt.Sprintf("app-%02d", i), os, change...)
			req.Count = pods / calls
			reqs = append(reqs, req)
		}
		b.StartTimer()
		for _, req := range reqs {
			a := Place(w.State, req)
			b.StopTimer()
			if len(a.Spots) != req.Count {
				b.Fatalf("placed %d of %d", len(a.Spots), req.Count)
			}
			for _, s := range a.Spots {
				w.put(req, s.Node, s.Isolation)
			}
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(pods)*float64(b.N)/b.Elapsed().Seconds(), "pods/s")
}

func BenchmarkPlace10kPods1kNodes(b *testing.B)   { fill(b, 1000, 10_000, 20) }
func BenchmarkPlace100kPods10kNodes(b *testing.B) { fill(b, 10_000, 100_000, 20) }

func BenchmarkPlaceAntiAffinity5kNodes(b *testing.B) {
	fill(b, 5000, 5000, 2, func(t *corev1.PodTemplateSpec) {
		t.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels}}},
		}}
	})
}

func BenchmarkPlaceSpread5kNodes(b *testing.B) {
	fill(b, 5000, 10_000, 2, func(t *corev1.PodTemplateSpec) {
		for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
			t.Spec.TopologySpreadConstraints = append(t.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
				MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels},
			})
		}
	})
}

// One pod more in a full cluster: what a rolling update asks again and again.
func BenchmarkPlaceOne10kNodes100kPods(b *testing.B) {
	w := cluster(10_000)
	for i := range 20 {
		req := w.workload(fmt.Sprintf("app-%02d", i), []state.OS{state.Linux, state.Windows}[i%2])
		req.Count = 5000
		for _, s := range Place(w.State, req).Spots {
			w.put(req, s.Node, s.Isolation)
		}
	}
	req := w.workload("last", state.Linux)
	var kept Roster // as the planner has one
	b.ReportAllocs()
	for b.Loop() {
		if a := kept.Place(w.State, req); len(a.Spots) != 1 {
			b.Fatal("not placed")
		}
	}
}

// Every node is full of pods of low priority; each new pod takes the room of one.
func BenchmarkPreempt5kNodes(b *testing.B) {
	w := cluster(5000)
	low := w.workload("low", state.AnyOS, ask("4", "1Gi"))
	low.Count = 20_000
	for _, s := range Place(w.State, low).Spots {
		w.put(low, s.Node, s.Isolation)
	}
	high := w.workload("high", state.Linux, ask("4", "1Gi"), priority(10))
	high.Count = 2500
	for b.Loop() {
		if got := Preempt(w.State, high, nil); len(got) != high.Count || len(got[0].Victims) != 1 {
			b.Fatalf("%d preemptions", len(got))
		}
	}
	b.ReportMetric(float64(high.Count)*float64(b.N)/b.Elapsed().Seconds(), "pods/s")
}

// Every node's reason in words, as `tandem why` prints them.
func BenchmarkExplain5kNodes(b *testing.B) {
	w := cluster(5000)
	req := w.workload("web", state.Linux, ask("17", ""), spreads(corev1.LabelTopologyZone, 1, true))
	req.Count = 0
	nodes := make([]*state.Node, len(w.Nodes))
	for _, n := range w.Nodes {
		nodes[n.Index] = n
	}
	for b.Loop() {
		e := NewExplainer(w.State, req.Template)
		for _, g := range Place(w.State, req).Groups {
			for _, i := range Members(g) {
				e.Node(nodes[i], g.Reason)
			}
		}
	}
}
