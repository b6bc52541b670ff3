package sim

import (
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// guard is a node's fencer: the real one's machine, over made-up cells. It
// outlives the agent, and goes on while the agent stands still.
type guard struct {
	machine *fence.Machine
	told    fence.Word         // by the agent's present process
	open    []state.UID        // as the agent was answered
	shut    map[state.UID]bool // cells in which nothing may begin
	unheard []fence.Event      // while the whole machine stands still
	wake    uint64
}

func newGuard() *guard { return &guard{machine: fence.New(), shut: map[state.UID]bool{}} }

// report tells the fencer what the agent knows, where that is new.
func (n *node) report() {
	if n.guard == nil {
		return
	}
	word := n.machine.Word()
	if word.Same(&n.guard.told) {
		return
	}
	n.guard.told = word
	word.Wards = slices.Clone(word.Wards)
	life, boot := n.life, n.boot
	n.w.after(time.Millisecond, func() {
		if n.boot == boot && n.life == life {
			n.fence(&fence.Told{Word: word})
		}
	})
}

// fence steps the fencer and does what it asks; the agent is answered.
func (n *node) fence(events ...fence.Event) {
	g := n.guard
	switch {
	case g == nil:
		return
	case n.frozen:
		g.unheard = append(g.unheard, events...)
		return
	}
	events = append(g.unheard, events...)
	g.unheard = nil
	acts, wake, ends := g.machine.Step(n.clock(), events...)
	for _, a := range acts {
		n.fenceAct(a)
	}
	if ends {
		g.wake++
		serial := g.wake
		n.w.after(time.Duration(float64(wake-n.clock())/n.rate)+1, func() {
			if n.guard == g && g.wake == serial {
				n.fence()
			}
		})
	}
	told := slices.ContainsFunc(events, func(e fence.Event) bool { _, ok := e.(*fence.Told); return ok })
	if open := g.machine.Answer().Open; told || !slices.Equal(open, g.open) {
		g.open = open
		n.drive(&step.Guarded{Open: open})
	}
}

func (n *node) fenceAct(a fence.Act) {
	g := n.guard
	later := func(d time.Duration, do func()) {
		n.w.after(d, func() {
			if n.guard == g {
				do()
				n.fence(&fence.Done{UID: a.UID, Do: a.Do, OK: true})
			}
		})
	}
	switch a.Do {
	case fence.Open, fence.Drop:
		later(0, func() { delete(g.shut, a.UID) })
	case fence.Term:
		later(0, func() {
			n.w.after(n.dice.between(0, 30*time.Second), func() { n.slay(g, a.UID, 143) })
		})
	case fence.Shut:
		later(n.dice.between(time.Millisecond, 100*time.Millisecond), func() {
			g.shut[a.UID] = true
			n.slay(g, a.UID, 137)
		})
	}
}

// slay ends what runs of a pod, as the kernel does: no runtime is asked.
func (n *node) slay(g *guard, uid state.UID, code int32) {
	if n.guard != g || n.frozen {
		return
	}
	for _, k := range n.keys() {
		if k.uid == uid && n.containers[k].Running {
			n.w.logf("%s: the fencer ends %s of %s", n.name, k.name, n.containers[k].pod.Key)
			n.end(k, code)
		}
	}
}
