package schedule

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func drawFacts(t *rapid.T) state.NodeFacts {
	f := state.NodeFacts{OS: state.Linux, Arch: "amd64", Labels: map[string]string{}}
	if rapid.Bool().Draw(t, "windows") {
		f.OS, f.OSVersion = state.Windows, rapid.SampledFrom(servers()).Draw(t, "version")
		f.Isolations = rapid.SampledFrom([][]state.Isolation{{state.Process}, {state.HyperV}}).Draw(t, "isolations")
	}
	if z := rapid.SampledFrom([]string{"none", "", "a", "b"}).Draw(t, "zone"); z != "none" {
		f.Labels[corev1.LabelTopologyZone] = z
	}
	if rapid.IntRange(0, 4).Draw(t, "taint") == 0 {
		f.Taints = []state.Taint{{Key: "k", Value: "v", Effect: rapid.SampledFrom([]string{"NoSchedule", "PreferNoSchedule"}).Draw(t, "effect")}}
	}
	f.Allocatable = state.Resources{MilliCPU: rapid.Int64Range(2, 20).Draw(t, "cpu") * 100, Memory: 4 << 30, Ephemeral: 1 << 30, Pods: 10}
	return f
}

// TestRosterRemembersNothingThatCounts: one roster that is kept while nodes join,
// leave, change and fill gives what a new one gives each time.
func TestRosterRemembersNothingThatCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		apply := func(f state.Fact) {
			if err := w.Apply(&state.Record{Seq: w.Seq + 1, Fact: f}); err != nil {
				t.Fatal(err)
			}
		}
		var reqs []Request
		for i := range 3 {
			req := w.workload(fmt.Sprintf("web-%d", i), rapid.SampledFrom([]state.OS{state.AnyOS, state.Linux, state.Windows}).Draw(t, "os"), append(drawChanges(t), priority(int32(i)))...)
			reqs = append(reqs, req)
		}
		var kept Roster
		for range rapid.IntRange(3, 25).Draw(t, "steps") {
			name := state.NodeName(fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "node")))
			n := w.Nodes[name]
			switch change := rapid.IntRange(0, 5).Draw(t, "change"); {
			case n == nil:
				apply(&state.NodeJoined{Node: name, Facts: drawFacts(t), BootID: "boot"})
				apply(&state.NodeReady{Node: name, BootID: "boot", Incarnation: 1})
			case change == 0:
				apply(&state.NodeChanged{Node: name, Facts: drawFacts(t)})
			case change == 1 && len(n.Pods) == 0:
				apply(&state.NodeRemoved{Node: name})
			case change == 2:
				apply(&state.NodeCordoned{Node: name, On: !n.Cordoned})
			}
			req := rapid.SampledFrom(reqs).Draw(t, "request")
			req.Count = rapid.IntRange(0, 8).Draw(t, "count")
			want, got := Place(w.State, req), kept.Place(w.State, req)
			if names(got.Spots) != names(want.Spots) || got.Static != want.Static || !cmp.Equal(got.Groups, want.Groups) {
				t.Fatalf("a kept roster gives %s %v, a new one %s %v", names(got.Spots), got.Groups, names(want.Spots), want.Groups)
			}
			for i, h := range kept.Hosts(w.State, req.Workload) {
				if fresh := Hosts(w.State, req.Workload)[i]; h != fresh {
					t.Fatalf("of %s a kept roster says %v, a new one %v", h.Node.Name, h, fresh)
				}
			}
			for _, s := range got.Spots {
				w.put(req, s.Node, s.Isolation)
			}
			after, fresh := kept.Preempt(w.State, req, nil), Preempt(w.State, req, nil)
			if !cmp.Equal(after, fresh, cmp.Comparer(func(a, b *state.Node) bool { return a == b }), cmp.Comparer(func(a, b *state.Pod) bool { return a == b })) {
				t.Fatalf("a kept roster preempts %v, a new one %v", after, fresh)
			}
		}
	})
}
