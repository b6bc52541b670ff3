package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func priority(value int32) podChange {
	return func(t *corev1.PodTemplateSpec) { t.Spec.Priority = &value }
}

func (w *world) class(name string, value int32, isDefault bool) {
	ref := state.Ref{Kind: "PriorityClass", Name: name}
	w.Rules[ref] = &state.Owned{Object: &state.Object{Ref: ref, Variants: []state.Variant{{
		Body: &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault},
	}}}}
}

func budget(name string, left int) Budget {
	return Budget{Namespace: "default", Selector: labels.SelectorFromSet(labels.Set{"app": name}), Left: left}
}

// story says preemptions in one line: "a -low-1 -low-2; b (1 violation)".
func story(ps []Preemption) string {
	var out []string
	for _, p := range ps {
		text := string(p.Spot.Node.Name)
		for _, v := range p.Victims {
			text += " -" + v.Key.Name
		}
		if p.Violations > 0 {
			text += fmt.Sprintf(" (%d violations)", p.Violations)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// TestPreempt: cases of Kubernetes's e2e suite (SchedulerPreemption) bear its words.
func TestPreempt(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*world) (Request, []Budget)
		count int
		want  string
	}{
		{"validates basic preemption works", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux, ask("3", ""), priority(1)), w.node("a"), "")
			w.put(w.workload("mid", state.Linux, ask("3", ""), priority(100)), w.node("b"), "")
			return w.workload("high", state.Linux, ask("3", ""), priority(1000)), nil
		}, 1, "a -low-1"},
		{"validates lower priority pod preemption by critical pod", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux, ask("3", "")), w.node("a"), "")
			return w.workload("critical", state.Linux, ask("3", ""), func(t *corev1.PodTemplateSpec) { t.Spec.PriorityClassName = "system-cluster-critical" }), nil
		}, 1, "a -low-1"},
		{"not from its equals", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux, ask("3", ""), priority(1)), w.node("a"), "")
			return w.workload("same", state.Linux, ask("3", ""), priority(1)), nil
		}, 1, ""},
		{"preemptionPolicy Never", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux, ask("3", "")), w.node("a"), "")
			never := corev1.PreemptNever
			return w.workload("high", state.Linux, ask("3", ""), priority(9), func(t *corev1.PodTemplateSpec) { t.Spec.PreemptionPolicy = &never }), nil
		}, 1, ""},
		{"no more than it needs, the least important", func(w *world) (Request, []Budget) {
			n := w.node("a")
			w.put(w.workload("two", state.Linux, ask("1", ""), priority(2)), n, "")
			w.put(w.workload("one", state.Linux, ask("1", ""), priority(1)), n, "")
			w.put(w.workload("three", state.Linux, ask("1", ""), priority(3)), n, "")
			return w.workload("high", state.Linux, ask("2", ""), priority(9)), nil
		}, 1, "a -one-2"},
		{"of equals the youngest goes", func(w *world) (Request, []Budget) {
			n, low := w.node("a"), w.workload("low", state.Linux, ask("2", ""))
			w.put(low, n, "")
			w.put(low, n, "")
			return w.workload("high", state.Linux, ask("2", ""), priority(9)), nil
		}, 1, "a -low-2"},
		{"fewest victims", func(w *world) (Request, []Budget) {
			low, big := w.workload("low", state.Linux, ask("2", "")), w.workload("big", state.Linux, ask("4", ""))
			a := w.node("a")
			w.put(low, a, "")
			w.put(low, a, "")
			w.put(big, w.node("b"), "")
			return w.workload("high", state.Linux, ask("4", ""), priority(9)), nil
		}, 1, "b -big-3"},
		{"a budget is kept where another node does", func(w *world) (Request, []Budget) {
			w.put(w.workload("kept", state.Linux, ask("3", ""), priority(1)), w.node("a"), "")
			w.put(w.workload("other", state.Linux, ask("3", ""), priority(5)), w.node("b"), "")
			return w.workload("high", state.Linux, ask("3", ""), priority(9)), []Budget{budget("kept", 0)}
		}, 1, "b -other-2"},
		{"a budget is broken where nothing else helps", func(w *world) (Request, []Budget) {
			w.put(w.workload("kept", state.Linux, ask("3", "")), w.node("a"), "")
			return w.workload("high", state.Linux, ask("3", ""), priority(9)), []Budget{budget("kept", 0)}
		}, 1, "a -kept-1 (1 violations)"},
		{"a budget is used up within a batch", func(w *world) (Request, []Budget) {
			low := w.workload("low", state.Linux, ask("3", ""), priority(1))
			w.put(low, w.node("a"), "")
			w.put(low, w.node("b"), "")
			w.put(w.workload("mid", state.Linux, ask("3", ""), priority(5)), w.node("c"), "")
			return w.workload("high", state.Linux, ask("3", ""), priority(9)), []Budget{budget("low", 1)}
		}, 3, "b -low-2; c -mid-3; a -low-1 (1 violations)"},
		{"room of pods that stop is waited for", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux, ask("3", "")), w.node("a"), "")
			w.put(w.workload("goes", state.Linux, ask("3", ""), priority(20)), w.node("b"), "").Stopping = true
			return w.workload("high", state.Linux, ask("3", ""), priority(9)), nil
		}, 1, "b"},
		{"not where the pod may not be", func(w *world) (Request, []Budget) {
			low := w.workload("low", state.Linux, ask("3", ""))
			w.put(low, w.node("a", tainted("k", "", "NoSchedule")), "")
			w.put(low, w.node("b", cordoned), "")
			w.put(low, w.node("c", lost), "")
			w.put(low, w.node("d", sized(3500, 1<<30)), "")
			return w.workload("high", state.Linux, ask("3600m", ""), priority(9)), nil
		}, 1, ""},
		{"a host port", func(w *world) (Request, []Budget) {
			n := w.node("a")
			w.put(w.workload("beside", state.Linux), n, "")
			w.put(w.workload("low", state.Linux, port("", "TCP", 80)), n, "")
			return w.workload("high", state.Linux, port("", "TCP", 80), priority(9)), nil
		}, 2, "a -low-2"},
		{"anti-affinity to a lower pod", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Linux), w.node("a"), "")
			return w.workload("high", state.Linux, apart(corev1.LabelHostname, "low"), priority(9)), nil
		}, 1, "a -low-1"},
		{"anti-affinity of a lower pod", func(w *world) (Request, []Budget) {
			n := w.node("a")
			w.put(w.workload("low", state.Linux, apart(corev1.LabelHostname, "high")), n, "")
			w.put(w.workload("beside", state.Linux), n, "")
			return w.workload("high", state.Linux, priority(9)), nil
		}, 1, "a -low-1"},
		{"not a pod that affinity needs", func(w *world) (Request, []Budget) {
			w.put(w.workload("db", state.Linux, ask("3", "")), w.node("a"), "")
			return w.workload("high", state.Linux, near(corev1.LabelHostname, "db"), ask("3", ""), priority(9)), nil
		}, 1, ""},
		{"topology spread: validates proper pods are preempted", func(w *world) (Request, []Budget) {
			low := w.workload("low", state.Linux, ask("4", ""))
			high := w.workload("high", state.Linux, ask("2", ""), spreads(corev1.LabelHostname, 1, true), priority(9))
			w.put(low, w.node("a"), "")
			w.put(high, w.node("b"), "")
			return high, nil
		}, 2, "a -low-1; a"},
		{"a spread can't be mended by preempting elsewhere", func(w *world) (Request, []Budget) {
			w.node("a", sized(0, 0))
			b := w.node("b")
			high := w.workload("high", state.Linux, ask("2", ""), spreads(corev1.LabelHostname, 1, true), priority(9))
			w.put(high, b, "")
			w.put(w.workload("low", state.Linux, ask("2", "")), b, "")
			return high, nil
		}, 1, ""},
		{"Hyper-V's overhead is freed with its pod", func(w *world) (Request, []Budget) {
			w.put(w.workload("low", state.Windows, ask("100m", "")), w.node("a", windows("10.0.26100.1", state.HyperV)), state.HyperV)
			return w.workload("high", state.Windows, ask("2", ""), priority(9)), nil
		}, 1, "a -low-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			req, budgets := tt.setup(w)
			req.Count = tt.count
			if got := story(Preempt(w.State, req, budgets)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestPriority(t *testing.T) {
	w := newWorld()
	w.class("gold", 500, false)
	w.class("usual", 7, true)
	w.class("usual-too", 9, true)
	value := int32(3)
	for _, tt := range []struct {
		class string
		value *int32
		want  int32
	}{{"gold", nil, 500}, {"", nil, 7}, {"", &value, 3}, {"system-node-critical", nil, nodeCritical}, {"missing", nil, 0}} {
		req := w.workload("x", state.Linux, func(t *corev1.PodTemplateSpec) { t.Spec.PriorityClassName, t.Spec.Priority = tt.class, tt.value })
		if got, may := Priority(w.State, req.Template); got != tt.want || !may {
			t.Errorf("class %q: %d, may preempt %v, want %d", tt.class, got, may, tt.want)
		}
	}
}

// TestPreemptionHelps: victims are of lower priority and no more than needed,
// and once they are gone the pods fit where it was said.
func TestPreemptionHelps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for i := range rapid.IntRange(1, 3).Draw(t, "lower") {
			req := w.workload(fmt.Sprintf("other-%d", i), state.AnyOS, append(drawChanges(t), priority(rapid.Int32Range(-2, 6).Draw(t, "priority")))...)
			req.Count = rapid.IntRange(0, 8).Draw(t, "running")
			w.placeOne(req)
		}
		req := drawRequest(t, w)
		five := int32(5)
		spec := req.Template.Spec
		spec.Spec.Priority = &five
		req.Template, _ = state.NewTemplate(req.Template.OS, &spec, req.Template.Images)
		w.placeOne(req)
		req.Count = rapid.IntRange(1, 5).Draw(t, "preempt")
		before := story(Preempt(w.State, req, nil))
		got := Preempt(w.State, req, nil)
		if story(got) != before {
			t.Fatalf("asked twice: %s, then %s", before, story(got))
		}
		seen := map[*state.Pod]bool{}
		for k, p := range got {
			for _, v := range p.Victims {
				if value, _ := Priority(w.State, v.Template); value >= five || seen[v] || v.Node != p.Spot.Node.Name {
					t.Fatalf("victim %s", v.Key)
				}
				seen[v] = true
			}
			// Each victim was needed: with it back the pod doesn't fit.
			for _, v := range p.Victims {
				w.drop(p.Victims)
				w.restore(v)
				if w.fitsOn(req, p.Spot.Node) {
					t.Fatalf("%s need not go for pod %d on %s", v.Key, k, p.Spot.Node.Name)
				}
				w.drop([]*state.Pod{v})
				for _, x := range p.Victims {
					w.restore(x)
				}
			}
			w.drop(p.Victims)
			if !w.fitsOn(req, p.Spot.Node) {
				t.Fatalf("pod %d doesn't fit on %s once its victims are gone: %s", k, p.Spot.Node.Name, story(got))
			}
			w.put(req, p.Spot.Node, p.Spot.Isolation)
		}
	})
}

func (w *world) fitsOn(req Request, n *state.Node) bool {
	req.Count = 0
	return w.reasonOf(Place(w.State, req), string(n.Name)) == state.NodeFits
}

func (w *world) drop(pods []*state.Pod) {
	for _, p := range pods {
		wl, n := w.Workloads[p.Workload], w.Nodes[p.Node]
		delete(n.Pods, p.UID)
		wl.Pods = slices.DeleteFunc(slices.Clone(wl.Pods), func(x *state.Pod) bool { return x == p })
		n.Used = n.Used.Sub(state.Charge(p.Template.Requests, p.Isolation))
	}
}

func (w *world) restore(p *state.Pod) {
	wl, n := w.Workloads[p.Workload], w.Nodes[p.Node]
	n.Pods[p.UID] = p
	wl.Pods = append(wl.Pods, p)
	n.Used = n.Used.Add(state.Charge(p.Template.Requests, p.Isolation))
}
