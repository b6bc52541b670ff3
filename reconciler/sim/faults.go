package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// populate makes the nodes that the story names.
func (w *world) populate() {
	for _, name := range w.story.Nodes {
		facts := state.NodeFacts{
			OS: state.Linux, Arch: "amd64", Simulated: false, Fences: true,
			Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 40},
		}
		if strings.HasPrefix(name, "windows-") {
			facts.OS, facts.OSVersion, facts.Isolations = state.Windows, hostBuild, []state.Isolation{state.Process}
		}
		facts.Capacity = facts.Allocatable
		n := &node{
			w: w, name: state.NodeName(name), facts: facts, boot: 1, dice: w.throw("node " + name),
			sandboxes: map[state.UID]step.Sandbox{}, containers: map[ckey]*container{}, mounts: map[state.UID]bool{}, pulling: map[pullKey]bool{},
		}
		n.rate = n.drift()
		w.nodes = append(w.nodes, n)
		w.after(n.dice.between(0, 5*time.Second), n.startAgent)
	}
}

// drift is how a node's clock runs: at a corner of what the leases allow, or
// somewhere within.
func (n *node) drift() float64 {
	const rho = lease.Drift / 1000.0
	slow, fast := (1-rho)/(1+rho), (1+rho)/(1-rho)
	switch n.dice.rng.IntN(4) {
	case 0:
		return slow
	case 1:
		return fast
	default:
		return slow + (fast-slow)*n.dice.rng.Float64()
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

// part cuts a node off for a while: wholly, or in one direction. If found, the
// node finds its session dead after a time; else when the network is back.
func (w *world) part(n *node, how string, d time.Duration, found bool) {
	if n.unreachable() {
		return
	}
	n.cut, n.deaf, n.mute = how == "cut off", how == "deaf", how == "mute"
	w.logf("%s is %s for %s", n.name, how, d)
	session := n.session
	if found {
		w.after(n.dice.between(time.Second, 20*time.Second), func() {
			if n.unreachable() && n.session == session {
				n.hangUp()
			}
		})
	}
	w.after(d, func() { w.mend(n) })
}

func (w *world) mend(n *node) {
	if n.unreachable() {
		w.logf("%s is reachable again", n.name)
		n.cut, n.deaf, n.mute = false, false, false
		n.hangUp()
	}
}

// cutAll cuts off every node of an OS.
func (w *world) cutAll(os state.OS, d time.Duration) {
	for _, n := range w.nodes {
		if n.facts.OS == os && !n.dead {
			w.part(n, "cut off", d, true)
		}
	}
}

// flap cuts a node off for seconds, again and again.
func (n *node) flap(times int) {
	if times <= 0 || !n.w.faults {
		return
	}
	n.w.part(n, "cut off", n.dice.between(time.Second, 5*time.Second), true)
	n.w.after(n.dice.between(6*time.Second, 15*time.Second), func() { n.flap(times - 1) })
}

// spared says whether enough of a node's OS remain without it.
func (w *world) spared(n *node) bool {
	left := 0
	for _, o := range w.nodes {
		if o != n && !o.dead && o.facts.OS == n.facts.OS {
			left++
		}
	}
	return left >= 2
}

// bury ends a node for good, where two of its OS remain; a person removes it
// once it is lost.
func (w *world) bury(n *node) {
	if !w.spared(n) {
		return
	}
	n.reboot(time.Minute)
	n.dead = true
	w.logf("%s never comes back", n.name)
	w.remove(n, func() bool { return true })
}

// exile is a node that is off for long, is removed by a person and comes back
// under its name when its pods have been replaced.
func (w *world) exile(n *node, d time.Duration) {
	n.reboot(d)
	w.logf("%s is off for %s, and is removed meanwhile", n.name, d)
	life := n.life
	w.remove(n, func() bool { return n.life == life })
}

// remove asks to forget a node until it is so, while its machine is off.
func (w *world) remove(n *node, off func() bool) {
	n.removed = true
	w.after(w.dice.between(2*time.Minute, 4*time.Minute), func() {
		if m := w.ctl.machine; off() && (m == nil || m.State().Nodes[n.name] != nil) {
			w.command(state.CmdRemoveNode, state.Ref{Kind: "Node", Name: string(n.name)})
			w.remove(n, off)
		}
	})
}

// rebuild gives a Windows node another build in place, and its own back later.
func (n *node) rebuild(version string, d time.Duration) {
	if n.facts.OS != state.Windows {
		return
	}
	n.facts.OSVersion = version
	n.reboot(20 * time.Second)
	n.w.later(d, func() {
		if !n.dead && n.facts.OSVersion != hostBuild {
			n.facts.OSVersion = hostBuild
			n.reboot(20 * time.Second)
		}
	})
}

// shrink leaves a node less room than it said, for a while.
func (n *node) shrink(milli int64, d time.Duration) {
	whole := n.facts.Capacity
	n.facts.Allocatable.MilliCPU = milli
	n.stopAgent(time.Second)
	n.w.later(d, func() {
		n.facts.Allocatable = whole
		n.stopAgent(time.Second)
	})
}

// taint drives off the node's pods, for a while.
func (n *node) taint(d time.Duration) {
	n.facts.Taints = []state.Taint{{Key: "sim/out", Effect: "NoExecute"}}
	n.stopAgent(time.Second)
	n.w.later(d, func() {
		n.facts.Taints = nil
		n.stopAgent(time.Second)
	})
}

// command is a person who asks for something; what follows from it is no decision
// of a world in which nothing happens.
func (w *world) command(verb state.CommandVerb, object state.Ref) {
	w.logf("somebody asks for %s of %s", verb, object)
	w.quiet = 0
	w.ctl.submit(&state.Command{ID: 1, Verb: verb, Object: object})
}

// cordon keeps new pods off a node, or drains it, for a while.
func (w *world) cordon(name string, verb state.CommandVerb, d time.Duration) {
	w.command(verb, state.Ref{Kind: "Node", Name: name})
	w.later(d, func() {
		if n := w.node(state.NodeName(name)); n != nil {
			w.uncordon(n)
		}
	})
}

// settled says whether the controller is there and has nothing to do.
func (w *world) settled() bool {
	c := w.ctl
	return c.machine != nil && len(c.events) == 0 && len(c.waiting) == 0 && !c.writing
}

// insist asks until it is so: the controller may be away, or lose it.
func (w *world) insist(done func(*state.State) bool, ask func()) {
	if w.settled() && done(w.ctl.machine.State()) {
		return
	}
	if w.ctl.machine != nil && !done(w.ctl.machine.State()) {
		ask()
	}
	w.after(5*time.Second, func() { w.insist(done, ask) })
}

func (w *world) uncordon(n *node) {
	w.insist(
		func(s *state.State) bool { return s.Nodes[n.name] == nil || !s.Nodes[n.name].Cordoned },
		func() { w.command(state.CmdUncordon, state.Ref{Kind: "Node", Name: string(n.name)}) })
}

// resume lets an application change again, and its source is read anew.
func (w *world) resume(app state.AppName) {
	w.insist(
		func(s *state.State) bool {
			a := s.Apps[app]
			if a == nil || a.Removed {
				return true
			}
			_, on := a.SuspendedAt(s.At.Wall)
			return !on
		},
		func() {
			w.command(state.CmdResume, state.Ref{Kind: "Application", Name: string(app)})
			w.repo.again()
		})
}

// approve lets all go on that waits for a person.
func (w *world) approve() {
	if w.ctl.machine == nil {
		return
	}
	s := w.ctl.machine.State()
	for _, id := range sortedKeys(s.Holds) {
		if h := s.Holds[id]; (h.Code == state.HoldPrune || h.Code == state.HoldRewind) && !h.Approved {
			w.logf("somebody approves %s", id)
			w.ctl.submit(&state.Command{ID: 2, Verb: state.CmdApprove, Hold: id})
		}
	}
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
func (n *node) killOne(i int) {
	keys := n.keys()
	if len(keys) == 0 {
		return
	}
	k := keys[i%len(keys)]
	n.w.logf("%s: somebody kills a container of %s", n.name, n.containers[k].pod.Key)
	n.end(k, 137)
}

// restartRuntime is containerd or HCS going away for a moment: what runs goes
// on, calls in flight fail.
func (n *node) restartRuntime() {
	n.w.logf("%s: the runtime restarts", n.name)
	n.runtime++
	for _, id := range sortedKeys(n.flying) {
		fail := n.flying[id]
		delete(n.flying, id)
		fail()
	}
	n.drive(n.everything())
}

// foreign is a container that nobody assigned: of a controller before, or of
// somebody else's hand.
func (n *node) foreign() {
	n.strangers++
	digest := state.DigestOf(fmt.Appendf(nil, "foreign %s %d", n.name, n.strangers))
	var uid state.UID
	copy(uid[:], digest[:])
	key := state.PodKey{Namespace: "default", Name: fmt.Sprintf("stranger-%d", n.strangers)}
	n.w.logf("%s: the runtime has a pod %s that nobody knows", n.name, key)
	n.sandboxes[uid] = step.Sandbox{UID: uid, Key: key, IP: "10.88.250.1"}
	n.containers[ckey{uid, "main"}] = &container{
		pod:       &state.AssignedPod{UID: uid, Key: key, Template: &state.Template{}},
		Container: step.Container{UID: uid, Name: "main", Attempt: 1, Running: true, Started: n.w.wall + int64(n.w.now)},
	}
	n.drive(n.everything())
}

// later does something when d has passed, or when peace comes.
func (w *world) later(d time.Duration, do func()) {
	done := false
	once := func() {
		if !done {
			done = true
			do()
		}
	}
	w.undo = append(w.undo, once)
	w.after(d, once)
}

// heal ends every fault that doesn't end by itself, and people see to what they left.
func (w *world) heal() {
	w.logf("peace")
	w.faults = false
	c := w.ctl
	c.full, c.slow, c.errors, c.dies = 0, 0, false, ""
	w.hub.down = 0
	for name := range w.hub.odd { // what such an image means stays so for that text
		w.repo.edit(name, func(s *spec) { s.version++ })
	}
	clear(w.hub.odd)
	undo := w.undo
	w.undo = nil
	for _, do := range undo {
		do()
	}
	for _, n := range w.nodes {
		w.mend(n)
		n.lag, n.createHangs, n.probesHang, n.slowPull, n.startDies = 0, 0, 0, 0, 0
		if n.hung && !n.frozen {
			n.wakeUp()
		}
	}
	for _, name := range slices.Clone(sortedKeys(w.apps())) {
		w.resume(name)
	}
	w.repo.settle()
	w.tend()
}

// apps are the applications that any commit has had.
func (w *world) apps() map[state.AppName]bool {
	out := map[state.AppName]bool{state.RootApp: true}
	for _, c := range w.repo.commits {
		for _, s := range c.specs {
			if s.app != "" {
				out[state.AppName(s.app)] = true
			}
		}
	}
	return out
}

// tend is a person who looks every ten seconds whether something waits for one.
func (w *world) tend() {
	w.approve()
	w.retry()
	w.bereave()
	w.after(10*time.Second, w.tend)
}

// bereave gives up data whose machine never comes back.
func (w *world) bereave() {
	if !w.settled() {
		return
	}
	s := w.ctl.machine.State()
	for _, c := range s.SortedClaims() {
		if n := w.node(c.Node); n != nil && n.dead && s.Nodes[c.Node] == nil && c.Dropped == 0 {
			w.command(state.CmdDropClaim, c.Ref)
		}
	}
}

// retry writes another text for a Job that failed with a machine that was still
// off when peace came: by itself it never runs again.
func (w *world) retry() {
	if !w.settled() || w.repo.due || w.repo.polling {
		return
	}
	for _, n := range w.nodes {
		if !n.dead && !n.online {
			return
		}
	}
	s := w.ctl.machine.State()
	for _, job := range w.repo.specs {
		if wl := s.Workloads[state.Ref{Kind: "Job", Namespace: "default", Name: job.name}]; wl != nil && wl.Job != nil && wl.Job.Stage == state.JobFailed {
			w.logf("somebody looks at %s, which failed, and lets it run again", wl.Ref)
			w.repo.edit(job.name, func(s *spec) { s.version++ })
		}
	}
}
