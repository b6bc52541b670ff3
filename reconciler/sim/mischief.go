package sim

import (
	"fmt"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// populate makes the nodes: some of each OS.
func (w *world) populate() {
	for i := range 3 + w.rng.IntN(4) {
		facts := state.NodeFacts{
			OS: state.Linux, Arch: "amd64", Simulated: false,
			Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 40},
		}
		if i%2 == 1 {
			facts.OS, facts.OSVersion, facts.Isolations = state.Windows, "10.0.20348.2113", []state.Isolation{state.Process}
		}
		facts.Capacity = facts.Allocatable
		n := &node{
			w: w, name: state.NodeName(fmt.Sprintf("%s-%d", facts.OS, i/2+1)), facts: facts, boot: 1,
			sandboxes: map[state.UID]step.Sandbox{}, containers: map[ckey]*container{},
		}
		w.nodes = append(w.nodes, n)
		w.after(w.between(0, 5*time.Second), n.startAgent)
	}
}

func (w *world) node(name state.NodeName) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// mischief plans the faults of the scenario.
func (w *world) mischief() {
	if w.opts.Scenario == Calm {
		return
	}
	for at := time.Duration(0); at < trouble; {
		at += w.between(5*time.Second, 60*time.Second)
		w.after(at, func() {
			if w.faults {
				w.trouble()
			}
		})
	}
}

func (w *world) trouble() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if w.opts.Scenario == Partition {
		w.part(n, w.between(time.Second, 4*time.Minute))
		return
	}
	switch w.rng.IntN(8) {
	case 0, 1:
		w.ctl.crash("killed")
	case 2, 3:
		n.stopAgent()
	case 4:
		n.reboot()
	case 5:
		step := w.between(-time.Hour, time.Hour)
		w.logf("the wall clock steps by %s", step)
		w.wall += int64(step)
	case 6:
		w.part(n, w.between(time.Second, 90*time.Second))
	case 7:
		w.killOne(n)
	}
}

// part cuts a node off for a while. The node finds its session dead after a
// time, or when the network is back.
func (w *world) part(n *node, d time.Duration) {
	if n.cut {
		return
	}
	w.logf("%s is cut off for %s", n.name, d)
	n.cut = true
	session := n.session
	w.after(w.between(time.Second, 20*time.Second), func() {
		if n.cut && n.session == session {
			n.hangUp()
		}
	})
	w.after(d, func() { w.mend(n) })
}

func (w *world) mend(n *node) {
	if n.cut {
		w.logf("%s is reachable again", n.name)
		n.cut = false
		n.hangUp()
	}
}

// killOne ends a container as a person with a shell would.
func (w *world) killOne(n *node) {
	keys := n.keys()
	if len(keys) == 0 {
		return
	}
	k := keys[w.rng.IntN(len(keys))]
	w.logf("%s: somebody kills a container of %s", n.name, n.containers[k].pod.Key)
	n.end(k, 137)
}

// heal ends every fault that doesn't end by itself.
func (w *world) heal() {
	for _, n := range w.nodes {
		w.mend(n)
	}
}
