package state

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Check finds each index that isn't what going through all would give.
func TestCheckFindsAWrongIndex(t *testing.T) {
	small := func() (*State, *Owned, *Workload, *Node, *Pod) {
		s := New(nil)
		o := &Owned{Object: &Object{Ref: Ref{Kind: "ConfigMap", Namespace: "shop", Name: "settings"}}, App: "shop"}
		s.Objects[o.Object.Ref] = o
		s.enter(o)
		s.retire(o, true)
		w := &Workload{Ref: Ref{Kind: "DaemonSet", Namespace: "shop", Name: "logs"}, App: "shop"}
		s.Workloads[w.Ref] = w
		s.join(w)
		n := &Node{Name: "a", Duty: Duty{Draining: true}, Pods: map[UID]*Pod{}}
		s.Nodes[n.Name] = n
		s.watch(n)
		p := &Pod{Key: PodKey{Namespace: "shop"}, Template: &Template{Configs: []Config{{Kind: "ConfigMap", Name: "settings"}}}}
		n.Pods[p.UID] = p
		s.uses(p, n, 1)
		s.resolve(ImageKey{App: "shop", Name: "logs:1"}, &Image{})
		return s, o, w, n, p
	}
	for name, spoil := range map[string]func(s *State, o *Owned, w *Workload, n *Node, p *Pod){
		"object of no application": func(s *State, o *Owned, _ *Workload, _ *Node, _ *Pod) { s.leave(o) },
		"object of another":        func(_ *State, o *Owned, _ *Workload, _ *Node, _ *Pod) { o.App = "other" },
		"one too many":             func(s *State, o *Owned, _ *Workload, _ *Node, _ *Pod) { c := *o; s.enter(&c) },
		"not retired":              func(_ *State, o *Owned, _ *Workload, _ *Node, _ *Pod) { o.Retired = false },
		"retired in secret":        func(s *State, _ *Owned, _ *Workload, _ *Node, _ *Pod) { s.retired = nil },
		"workload that is gone":    func(s *State, _ *Owned, w *Workload, _ *Node, _ *Pod) { delete(s.Workloads, w.Ref) },
		"workload nowhere":         func(s *State, _ *Owned, w *Workload, _ *Node, _ *Pod) { s.part(w) },
		"no DaemonSet":             func(s *State, _ *Owned, w *Workload, _ *Node, _ *Pod) { delete(s.Daemons, w.Ref) },
		"node at rest":             func(_ *State, _ *Owned, _ *Workload, n *Node, _ *Pod) { n.Duty.Draining = false },
		"taint without notice": func(s *State, _ *Owned, _ *Workload, _ *Node, _ *Pod) {
			s.Nodes["b"] = &Node{Name: "b", Facts: NodeFacts{Taints: []Taint{{Effect: string(corev1.TaintEffectNoExecute)}}}}
		},
		"pod that is gone":      func(_ *State, _ *Owned, _ *Workload, n *Node, p *Pod) { delete(n.Pods, p.UID) },
		"pod counted twice":     func(s *State, _ *Owned, _ *Workload, n *Node, p *Pod) { s.uses(p, n, 1) },
		"image that nobody has": func(s *State, _ *Owned, _ *Workload, _ *Node, _ *Pod) { clear(s.Images) },
	} {
		s, o, w, n, p := small()
		if err := s.Check(); err != nil {
			t.Fatalf("before anything is wrong: %v", err)
		}
		if spoil(s, o, w, n, p); s.Check() == nil {
			t.Errorf("%s: nothing was found", name)
		}
	}
}
