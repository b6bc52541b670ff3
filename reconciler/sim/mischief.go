package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// populate makes the nodes: some of each OS.
func (w *world) populate() {
	for i := range 3 + w.rng.IntN(4) {
		facts := state.NodeFacts{
			OS: state.Linux, Arch: "amd64", Simulated: false, Fences: true,
			Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 40},
		}
		if i%2 == 1 {
			facts.OS, facts.OSVersion, facts.Isolations = state.Windows, "10.0.20348.2113", []state.Isolation{state.Process}
		}
		facts.Capacity = facts.Allocatable
		n := &node{
			w: w, name: state.NodeName(fmt.Sprintf("%s-%d", facts.OS, i/2+1)), facts: facts, boot: 1, rate: w.drift(),
			sandboxes: map[state.UID]step.Sandbox{}, containers: map[ckey]*container{},
		}
		w.nodes = append(w.nodes, n)
		w.after(w.between(0, 5*time.Second), n.startAgent)
	}
}

// drift is how a node's clock runs: at a corner of what the leases allow, or
// somewhere within.
func (w *world) drift() float64 {
	const rho = lease.Drift / 1000.0
	slow, fast := (1-rho)/(1+rho), (1+rho)/(1-rho)
	switch w.rng.IntN(4) {
	case 0:
		return slow
	case 1:
		return fast
	default:
		return slow + (fast-slow)*w.rng.Float64()
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
	if n.dead {
		return
	}
	if w.opts.Scenario == Partition {
		w.part(n, w.between(time.Second, 4*time.Minute))
		return
	}
	switch w.rng.IntN(11) {
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
	case 8:
		n.hang(w.between(time.Second, w.pause(3*time.Minute)))
	case 9:
		d := w.between(time.Second, time.Minute)
		w.logf("the disk is full for %s", d)
		w.ctl.full = w.now + d
	case 10:
		w.bury(n)
	}
}

// part cuts a node off for a while: wholly, or in one direction. The node finds
// its session dead after a time, or when the network is back.
func (w *world) part(n *node, d time.Duration) {
	if n.unreachable() {
		return
	}
	how := [...]string{"cut off", "deaf", "mute"}[w.rng.IntN(3)]
	n.cut, n.deaf, n.mute = how == "cut off", how == "deaf", how == "mute"
	w.logf("%s is %s for %s", n.name, how, d)
	session := n.session
	w.after(w.between(time.Second, 20*time.Second), func() {
		if n.unreachable() && n.session == session {
			n.hangUp()
		}
	})
	w.after(d, func() { w.mend(n) })
}

func (w *world) mend(n *node) {
	if n.unreachable() {
		w.logf("%s is reachable again", n.name)
		n.cut, n.deaf, n.mute = false, false, false
		n.hangUp()
	}
}

// bury ends a node for good, where two of its OS remain; a person removes it
// once it is lost.
func (w *world) bury(n *node) {
	left := 0
	for _, o := range w.nodes {
		if o != n && !o.dead && o.facts.OS == n.facts.OS {
			left++
		}
	}
	if left < 2 {
		return
	}
	n.reboot()
	n.dead = true
	w.logf("%s never comes back", n.name)
	w.remove(n)
}

func (w *world) remove(n *node) {
	w.after(w.between(2*time.Minute, 4*time.Minute), func() {
		if m := w.ctl.machine; m == nil || m.State().Nodes[n.name] != nil {
			w.command(state.CmdRemoveNode, state.Ref{Kind: "Node", Name: string(n.name)})
			w.remove(n)
		}
	})
}

// person does by hand what people do: delete a pod, restart a workload, cordon
// a node for a while.
func (w *world) person() {
	for at := time.Duration(0); at < trouble; {
		at += w.between(20*time.Second, 3*time.Minute)
		w.after(min(at, trouble-time.Second), w.meddle)
	}
}

func (w *world) meddle() {
	if w.ctl.machine == nil {
		return
	}
	s := w.ctl.machine.State()
	switch w.rng.IntN(3) {
	case 0:
		if pods := s.SortedPods(); len(pods) > 0 {
			p := pods[w.rng.IntN(len(pods))]
			w.command(state.CmdDeletePod, state.Ref{Kind: "Pod", Namespace: p.Key.Namespace, Name: p.Key.Name})
		}
	case 1:
		if ws := s.SortedWorkloads(); len(ws) > 0 {
			w.command(state.CmdRestart, ws[w.rng.IntN(len(ws))].Ref)
		}
	case 2:
		node := state.Ref{Kind: "Node", Name: string(w.nodes[w.rng.IntN(len(w.nodes))].name)}
		w.command(state.CmdCordon, node)
		w.after(w.between(time.Second, 2*time.Minute), func() {
			if w.faults { // else heal does it
				w.command(state.CmdUncordon, node)
			}
		})
	}
}

func (w *world) command(verb state.CommandVerb, object state.Ref) {
	w.logf("somebody asks for %d of %s", verb, object)
	w.ctl.submit(&state.Command{ID: 1, Verb: verb, Object: object})
}

// forged is a message as a broken controller would take it.
func (w *world) forged(e state.Event) state.Event {
	old, ok := e.(*state.Reported)
	if !ok {
		return e
	}
	r := old.Report
	switch w.opts.Mutate {
	case MutateNoFencing:
		n := w.ctl.machine.State().Nodes[r.Node]
		if n == nil {
			return e
		}
		w.ctl.sends++
		r.Epoch, r.BootID, r.Incarnation, r.Number = n.Epoch, n.BootID, n.Incarnation, w.ctl.sends
	case MutateAbsentGone:
		r.Applied = math.MaxUint64
	default:
		return e
	}
	return &state.Reported{Report: r}
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
	w.ctl.full = 0
	for _, n := range w.nodes {
		w.mend(n)
		w.uncordon(n)
	}
}

// uncordon asks until it is so: the controller may be away, or lose it.
func (w *world) uncordon(n *node) {
	m := w.ctl.machine
	if m != nil {
		if fold := m.State().Nodes[n.name]; fold == nil || !fold.Cordoned {
			if w.ctl.life > 0 && len(w.ctl.waiting) == 0 && !w.ctl.writing {
				return
			}
		} else {
			w.command(state.CmdUncordon, state.Ref{Kind: "Node", Name: string(n.name)})
		}
	}
	w.after(5*time.Second, func() { w.uncordon(n) })
}
