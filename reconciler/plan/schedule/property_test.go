package schedule

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// drawWorld makes up a cluster in which some pods run.
func drawWorld(t *rapid.T) *world {
	w := newWorld()
	for i := range rapid.IntRange(1, 12).Draw(t, "nodes") {
		var change []func(*state.Node)
		if rapid.Bool().Draw(t, "windows") {
			iso := rapid.SampledFrom([][]state.Isolation{nil, {state.Process}, {state.HyperV}, {state.Process, state.HyperV}}).Draw(t, "isolations")
			change = append(change, windows(rapid.SampledFrom(append(servers(), "10.0.19045.1", "")).Draw(t, "version"), iso...))
		}
		if z := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone"); z != "" {
			change = append(change, zone(z))
		}
		change = append(change, sized(rapid.Int64Range(0, 40).Draw(t, "cpu")*100, rapid.Int64Range(0, 40).Draw(t, "memory")<<27))
		if rapid.IntRange(0, 5).Draw(t, "taint") == 0 {
			change = append(change, tainted("k", "v", rapid.SampledFrom([]string{"NoSchedule", "NoExecute", "PreferNoSchedule"}).Draw(t, "effect")))
		}
		switch rapid.IntRange(0, 9).Draw(t, "condition") {
		case 0:
			change = append(change, lost)
		case 1:
			change = append(change, cordoned)
		}
		w.node(fmt.Sprintf("n%02d", i), change...)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "others") {
		req := w.workload(fmt.Sprintf("other-%d", i), state.AnyOS, drawChanges(t)...)
		req.Count = rapid.IntRange(0, 6).Draw(t, "running")
		w.placeOne(req)
	}
	return w
}

func drawChanges(t *rapid.T) []podChange {
	all := []podChange{
		ask("100m", ""), ask("", "256Mi"), ask("500m", "512Mi"), port("", "TCP", 80), tolerate(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists}),
		spreads(corev1.LabelTopologyZone, 1, true), spreads(corev1.LabelHostname, 2, true), spreads(corev1.LabelTopologyZone, 1, false), spreads("kubernetes.io/os", 1, true),
		apart(corev1.LabelHostname, "web"), apart(corev1.LabelTopologyZone, "other-0"), near(corev1.LabelTopologyZone, "web"), near(corev1.LabelHostname, "other-1"),
		rather(corev1.LabelHostname, "web", -50), rather(corev1.LabelTopologyZone, "other-0", 10), rather(corev1.LabelTopologyZone, "web", -7), selects("kubernetes.io/os", "linux"),
		runs("big:1"), runs("big:2"),
	}
	var out []podChange
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		out = append(out, rapid.SampledFrom(all).Draw(t, "change"))
	}
	return out
}

func drawRequest(t *rapid.T, w *world) Request {
	req := w.workload("web", rapid.SampledFrom([]state.OS{state.AnyOS, state.Linux, state.Windows}).Draw(t, "os"), drawChanges(t)...)
	req.Count = rapid.IntRange(0, 25).Draw(t, "count")
	return req
}

func checkSound(t *rapid.T) {
	w := drawWorld(t)
	req := drawRequest(t, w)
	a := Place(w.State, req)
	used := map[state.NodeName]state.Resources{}
	for _, s := range a.Spots {
		reason, iso := newClass(req.Template).allows(s.Node)
		if reason != state.NodeFits || iso != s.Isolation || !s.Node.Ready || s.Node.Cordoned {
			t.Fatalf("pod on %s, which is unfit for it (reason %d, isolation %q)", s.Node.Name, reason, iso)
		}
		used[s.Node.Name] = used[s.Node.Name].Add(state.Charge(req.Template.Requests, s.Isolation))
		if short(s.Node.Facts.Allocatable.Sub(s.Node.Used), used[s.Node.Name]) != state.NodeFits {
			t.Fatalf("%s is over its capacity", s.Node.Name)
		}
	}
	if a.Static && len(a.Spots) > 0 {
		t.Fatal("no node could ever take one, yet one did")
	}
	refused := 0
	for i, g := range a.Groups {
		if i > 0 && a.Groups[i-1].Reason >= g.Reason || g.Reason == state.NodeFits {
			t.Fatalf("groups out of order: %v", a.Groups)
		}
		refused += len(g.Nodes)
	}
	if len(a.Spots) < req.Count && refused != len(w.Nodes) {
		t.Fatalf("placed %d of %d, but only %d of %d nodes have a reason", len(a.Spots), req.Count, refused, len(w.Nodes))
	}
}

// TestSound: never over capacity, never on an unfit node, a reason for each
// node that took no more.
func TestSound(t *testing.T) { rapid.Check(t, checkSound) }

func FuzzSound(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkSound)) }

// TestOrderIsOfNoEffect: the order in which maps are walked never escapes, and
// neither state nor request is changed.
func TestOrderIsOfNoEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		req := drawRequest(t, w)
		want := Place(w.State, req)
		for range 3 {
			// A copy of a map is walked in another order, too.
			nodes := make(map[state.NodeName]*state.Node, 2*len(w.Nodes))
			maps.Copy(nodes, w.Nodes)
			w.Nodes = nodes
			got := Place(w.State, req)
			if names(got.Spots) != names(want.Spots) || got.Static != want.Static || !cmp.Equal(got.Groups, want.Groups) {
				t.Fatalf("got %s %v, then %s %v", names(want.Spots), want.Groups, names(got.Spots), got.Groups)
			}
		}
	})
}

// TestBatchIsOneByOne: a batch is placed as its pods would be one after the
// other, each seeing those before it; so is one that is asked for in two halves
// within a step.
func TestBatchIsOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		req := drawRequest(t, w)
		whole := Place(w.State, req)
		if Possible(w.State, req) && whole.Static {
			t.Fatal("a pod that no node could take is said to be possible")
		}
		first, second := req, req
		first.Count = req.Count / 2
		second.Count = req.Count - first.Count
		a := Place(w.State, first)
		second.After = []Placed{{Workload: req.Workload, Template: req.Template, Spots: a.Spots}}
		b := Place(w.State, second)
		if got := names(append(a.Spots, b.Spots...)); got != names(whole.Spots) {
			t.Fatalf("in two halves: %s, as a batch: %s", got, names(whole.Spots))
		}
		if got := names(w.placeOne(req)); got != names(whole.Spots) {
			t.Fatalf("one by one: %s, as a batch: %s", got, names(whole.Spots))
		}
		none := req
		none.Count = 0
		if after := Place(w.State, none); !cmp.Equal(after.Groups, whole.Groups) {
			t.Fatalf("reasons afterwards: %v, of the batch: %v", after.Groups, whole.Groups)
		}
	})
}

// TestSkewHolds: no pod of a batch makes a hard constraint's skew larger than
// it allows, counted anew after each.
func TestSkewHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for i := range rapid.IntRange(1, 10).Draw(t, "nodes") {
			w.node(fmt.Sprintf("n%d", i), zone(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")), sized(rapid.Int64Range(1, 10).Draw(t, "cpu")*100, 8<<30))
		}
		skew := rapid.Int32Range(1, 3).Draw(t, "skew")
		key := rapid.SampledFrom([]string{corev1.LabelTopologyZone, corev1.LabelHostname}).Draw(t, "key")
		req := w.workload("web", state.Linux, spreads(key, skew, true))
		req.Count = 40
		counts := map[string]int32{}
		for _, n := range w.Nodes {
			v, _ := n.Label(key)
			counts[v] = 0
		}
		spots := Place(w.State, req).Spots
		if got := names(w.placeOne(req)); got != names(spots) {
			t.Fatalf("one by one: %s, as a batch: %s", got, names(spots))
		}
		for _, s := range spots {
			v, _ := s.Node.Label(key)
			counts[v]++
			for _, n := range counts {
				if counts[v]-n > skew {
					t.Fatalf("%s=%s has %d, another %d", key, v, counts[v], n)
				}
			}
		}
	})
}
