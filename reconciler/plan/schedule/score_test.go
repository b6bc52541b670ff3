package schedule

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func prefers(weight int32, term corev1.NodeSelectorTerm) podChange {
	return func(t *corev1.PodTemplateSpec) {
		if t.Spec.Affinity == nil {
			t.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
		}
		a := t.Spec.Affinity.NodeAffinity
		a.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PreferredDuringSchedulingIgnoredDuringExecution, corev1.PreferredSchedulingTerm{Weight: weight, Preference: term})
	}
}

// TestScore places a few pods and looks where: each score alone decides its
// case. Cases of Kubernetes's e2e suite (SchedulerPriorities) bear its words.
func TestScore(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*world) Request
		count int
		want  string
	}{
		{"ties by name", func(w *world) Request {
			w.node("b")
			w.node("a")
			return w.workload("web", state.Linux)
		}, 3, "a b a"},
		{"LeastAllocated: the node with room", func(w *world) Request {
			w.put(w.workload("other", state.Linux, ask("2", "4Gi")), w.node("a"), "")
			w.node("b")
			return w.workload("web", state.Linux)
		}, 1, "b"},
		{"LeastAllocated: by share, not amount", func(w *world) Request {
			w.node("a", sized(2000, 4<<30))
			w.node("b", sized(16000, 32<<30))
			return w.workload("web", state.Linux, ask("500m", "1Gi"))
		}, 1, "b"},
		{"Pods should be scheduled to low resource use rate node: pods that ask for nothing count too", func(w *world) Request {
			n := w.node("a")
			other := w.workload("other", state.Linux, ask("", ""))
			for range 5 {
				w.put(other, n, "")
			}
			w.node("b")
			return w.workload("web", state.Linux, ask("", ""))
		}, 1, "b"},
		{"BalancedAllocation: processor where memory is taken", func(w *world) Request {
			w.put(w.workload("x", state.Linux, ask("2", "")), w.node("a"), "")
			w.put(w.workload("y", state.Linux, ask("", "4Gi")), w.node("b"), "")
			return w.workload("web", state.Linux, ask("1", "1Mi"))
		}, 1, "b"},
		{"ImageLocality: among many nodes of the other OS as well as among few", func(w *world) Request {
			for i := range 95 {
				w.node(fmt.Sprintf("linux-%d", i))
			}
			for _, name := range []string{"win-a", "win-b", "win-c"} {
				w.node(name, windows("10.0.20348.1", state.Process))
			}
			w.put(w.workload("other", state.Windows, runs("big:1"), ask("", "")), w.Nodes["win-b"], state.Process)
			return w.workload("web", state.Windows, runs("big:1"))
		}, 1, "win-b"},
		{"ImageLocality: another image of the same name's tag is none", func(w *world) Request {
			w.node("a")
			w.put(w.workload("other", state.Linux, runs("big:2"), ask("", "")), w.node("b"), "")
			return w.workload("web", state.Linux, runs("big:1"))
		}, 1, "a"},
		{"ImageLocality: a small image doesn't matter", func(w *world) Request {
			w.node("a")
			w.put(w.workload("other", state.Linux, ask("", "")), w.node("b"), "")
			return w.workload("web", state.Linux)
		}, 1, "a"},
		{"ImageLocality: replicas are spread all the same", func(w *world) Request {
			w.node("a")
			w.node("b")
			return w.workload("web", state.Linux, runs("big:1"))
		}, 4, "a b a b"},
		{"Pod should be preferably scheduled to nodes pod can tolerate", func(w *world) Request {
			w.node("a", tainted("k", "v", "PreferNoSchedule"))
			w.node("b")
			return w.workload("web", state.Linux)
		}, 1, "b"},
		{"PreferNoSchedule that is tolerated", func(w *world) Request {
			w.node("a", tainted("k", "v", "PreferNoSchedule"))
			w.node("b")
			return w.workload("web", state.Linux, tolerate(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists}))
		}, 1, "a"},
		{"two PreferNoSchedule taints are worse than one", func(w *world) Request {
			w.node("a", tainted("k", "v", "PreferNoSchedule"), tainted("l", "v", "PreferNoSchedule"))
			w.node("b", tainted("k", "v", "PreferNoSchedule"))
			return w.workload("web", state.Linux)
		}, 1, "b"},
		{"NodeAffinity preferred", func(w *world) Request {
			w.node("a")
			w.node("b", labelled("disk", "ssd"))
			return w.workload("web", state.Linux, prefers(1, expr("disk", corev1.NodeSelectorOpIn, "ssd")))
		}, 1, "b"},
		{"NodeAffinity preferred, by weight", func(w *world) Request {
			w.node("a", labelled("disk", "ssd"))
			w.node("b", labelled("gen", "9"))
			return w.workload("web", state.Linux, prefers(10, expr("disk", corev1.NodeSelectorOpIn, "ssd")), prefers(90, expr("gen", corev1.NodeSelectorOpGt, "8")))
		}, 1, "b"},
		{"own pods over nodes", func(w *world) Request {
			w.put(w.workload("other", state.Linux, ask("400m", "800Mi")), w.node("a"), "")
			w.node("b")
			return w.workload("web", state.Linux)
		}, 4, "b a b a"},
		{"own pods over zones before nodes", func(w *world) Request {
			w.node("a1", zone("a"))
			w.node("a2", zone("a"))
			w.node("b1", zone("b"))
			return w.workload("web", state.Linux)
		}, 4, "a1 b1 a2 b1"},
		{"what asks for a spread itself isn't spread by default", func(w *world) Request {
			w.node("a1", zone("a"))
			w.node("a2", zone("a"))
			w.node("b1", zone("b"))
			return w.workload("web", state.Linux, spreads(corev1.LabelTopologyZone, 5, true))
		}, 3, "a1 a2 b1"},
		{"a soft spread gives way to a taint", func(w *world) Request {
			w.node("a")
			w.node("b", tainted("k", "v", "PreferNoSchedule"))
			return w.workload("web", state.Linux, spreads(corev1.LabelHostname, 1, false))
		}, 2, "a a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			req := tt.setup(w)
			req.Count = tt.count
			if got := names(Place(w.State, req).Spots); got != tt.want {
				t.Errorf("placed on %s, want %s", got, tt.want)
			}
		})
	}
}

// Machines of any size give scores within 0..full.
func TestScoreRoomIsBounded(t *testing.T) {
	for _, bytes := range []int64{0, 1, 1 << 30, 1 << 40, 1 << 49} {
		all := state.Resources{MilliCPU: bytes / 1024, Memory: bytes, Pods: 1}
		for _, used := range []int64{0, bytes / 2, bytes, 2 * bytes} {
			score := scoreRoom(all, state.Resources{MilliCPU: used / 1024, Memory: used}, state.Resources{Memory: 1})
			if score < 0 || score > (weightLeast+weightBalanced)*full {
				t.Errorf("%d of %d bytes used: score %d", used, bytes, score)
			}
		}
	}
}
