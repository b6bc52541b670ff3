package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Rules are how a node serves Services, by Service.
type Rules map[state.Ref]*state.Service

// A Serve makes a node's rules of those that it has, of the network that it was
// told before and of the newest. Nil makes them all anew.
type Serve func(rules Rules, before, told *state.Network) Rules

// lookEvery is how often an agent looks whether its rules are still there.
const lookEvery = 30 * time.Second

// serve tells a node of the network, whole. Windows nodes serve none yet.
func (n *node) serve(told *state.Network) {
	session := n.session
	if told == nil || n.facts.OS != state.Linux || !n.online || n.cut || n.deaf {
		return
	}
	n.w.after(time.Millisecond, func() {
		if n.session == session {
			n.heard = told
			n.program(session)
		}
	})
}

// program writes what was heard last, once the agent can.
func (n *node) program(session int) {
	switch {
	case n.session != session || n.machine == nil:
	case n.hung:
		n.w.after(time.Second, func() { n.program(session) })
	default:
		n.write(n.heard)
	}
}

func (n *node) write(told *state.Network) {
	before := n.network
	n.network = told
	if serve := n.w.opts.Serve; serve != nil {
		n.rules = serve(n.rules, before, told)
		return
	}
	n.rules = Rules{}
	for _, s := range told.Services {
		n.rules[s.Ref] = s
	}
}

// forget is a firewall that is loaded anew, or HNS reset: the rules are gone, and
// nobody says so.
func (n *node) forget() {
	if n.rules == nil {
		return
	}
	n.w.logf("%s: the rules of its Services are gone", n.name)
	n.rules = nil
	n.look()
}

func (n *node) look() {
	boot := n.boot
	n.w.after(lookEvery, func() {
		switch {
		case n.boot != boot || n.rules != nil || n.network == nil:
		case n.machine == nil || n.hung:
			n.look()
		default:
			n.write(n.network)
		}
	})
}

// serves says whether any node serves Services.
func serves(s *state.State) bool {
	for _, n := range s.Nodes {
		if n.PodRange != "" && n.Facts.OS == state.Linux && !n.Facts.Simulated {
			return true
		}
	}
	return false
}

// answering are the pods behind each Service, as the records have it: looked for
// among all pods, anew.
func answering(s *state.State) map[state.Ref][]string {
	out := map[state.Ref][]string{}
	for ref, o := range s.Objects {
		svc, ok := o.Object.First().(*corev1.Service)
		if !ok {
			continue
		}
		out[ref] = nil
		for _, p := range s.Pods {
			if p.Key.Namespace == ref.Namespace && p.Ready && !p.Stopping && !p.Lost && p.IP.IsValid() && p.MatchedBy(svc.Spec.Selector) {
				out[ref] = append(out[ref], p.Key.Name+" "+p.IP.String())
			}
		}
		slices.Sort(out[ref])
	}
	return out
}

func behind(s *state.Service) []string {
	var out []string
	for _, e := range s.Endpoints {
		out = append(out, e.Pod+" "+e.IP)
	}
	slices.Sort(out)
	return out
}

// obeyServices: what nodes are told leads to the pods that answer, to no other.
func (w *world) obeyServices(s *state.State, told *state.Network) {
	if told == nil || !serves(s) {
		return
	}
	rules := Rules{}
	for _, svc := range told.Services {
		rules[svc.Ref] = svc
	}
	if why := differ(rules, answering(s)); why != "" {
		w.fail("services", "nodes are told that %s", why)
	}
}

// unserved is the first Service that a node serves otherwise than the records say.
func (n *node) unserved(s *state.State) string {
	if n.facts.OS != state.Linux || !serves(s) {
		return ""
	}
	if why := differ(n.rules, answering(s)); why != "" {
		return fmt.Sprintf("%s serves what it should not: %s", n.name, why)
	}
	return ""
}

func differ(rules Rules, want map[state.Ref][]string) string {
	for _, ref := range slices.SortedFunc(maps.Keys(want), state.Ref.Compare) {
		switch svc := rules[ref]; {
		case svc == nil:
			return fmt.Sprintf("there is no %s", ref)
		case !slices.Equal(behind(svc), want[ref]):
			return fmt.Sprintf("%s leads to %v, want %v", ref, behind(svc), want[ref])
		}
	}
	for ref := range rules {
		if _, ok := want[ref]; !ok {
			return fmt.Sprintf("%s, which is gone, leads to %v", ref, behind(rules[ref]))
		}
	}
	return ""
}
