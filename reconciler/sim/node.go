package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// node is the real agent's machine over made-up containers.
type node struct {
	w           *world
	dice        *dice
	name        state.NodeName
	facts       state.NodeFacts
	boot        int
	incarnation uint64

	machine *step.Machine // nil while the agent is down
	saved   *step.Saved
	life    int // counts agent processes
	wake    uint64

	session int           // counts sessions; 0 is never
	every   time.Duration // between renewals, as the agent wanted it last
	renewal int           // counts the waits for the next renewal
	online  bool          // a session is open
	cut     bool          // the network lets nothing through
	deaf    bool          // nothing reaches it
	mute    bool          // nothing of it arrives
	gone    bool          // the machine is off
	dead    bool          // for good
	removed bool          // a person said to forget it: what lies on it is nobody's

	rate float64 // of its clock, against true time

	told  state.Seq     // the highest record that an assignment spoke of
	fresh time.Duration // when the controller last heard of its present session
	any   time.Duration // when it last heard anything, however old

	guard   *guard // its fencer; nil: the machine is off
	hung    bool   // its agent stands still
	backlog []step.Event
	wall    int64         // its wall clock, against the controller's
	frozen  bool          // the whole machine stands still
	thawed  time.Duration // when it last went on
	lag     time.Duration // its messages are late until then
	arrives time.Duration // when the last one does
	last    *state.Assignment
	// When the renewal of each class's newest grant that counts was sent, on its clock.
	leased [lease.FailoverFast + 1]time.Duration

	// The runtime: it outlives the agent, not the machine.
	sandboxes  map[state.UID]step.Sandbox
	volumes    map[state.UID]state.Ref // the claims whose data is here: they outlive reboots
	containers map[ckey]*container
	mounts     map[state.UID]bool // pods that have volumes
	pulling    map[pullKey]bool   // images that are on their way
	heard      *state.Network     // as it was told last
	network    *state.Network     // as it was programmed last
	rules      Rules              // of Services, as made of that; nil: none
	address    int
	runtime    int               // counts processes of the runtime
	flying     map[uint64]func() // calls that the runtime has not answered, and how each fails with it
	calls      uint64
	strangers  int

	createHangs, probesHang, slowPull time.Duration // until when
	startDies                         int           // how many starts succeed and die at once
}

// pullKey is an image that a process of the agent has asked for.
type pullKey struct {
	life  int
	image state.Digest
}

type ckey struct {
	uid  state.UID
	name string
}

// container is one that runs or has ended.
type container struct {
	step.Container
	pod       *state.AssignedPod
	stopped   bool // the agent was told to end it
	condemned bool // that it may end it is known
}

func (n *node) bootID() string { return fmt.Sprintf("%s-boot-%d", n.name, n.boot) }

// startAgent begins an agent process: it looks at what runs before it does
// anything, and goes on from what was saved.
func (n *node) startAgent() {
	n.life++
	n.incarnation++
	n.hung, n.backlog = false, nil
	if n.w.opts.Mutate == MutateSweep {
		for _, uid := range slices.SortedFunc(maps.Keys(n.volumes), state.UID.Compare) {
			n.deleteVolume(uid)
		}
	}
	if n.guard == nil && n.w.opts.Mutate != MutateNoFencer {
		n.guard = newGuard()
	}
	if n.guard != nil {
		n.guard.told = fence.Word{}
	}
	n.machine = step.New(step.Config{
		Node: n.name, Facts: &n.facts, BootID: n.bootID(), Incarnation: n.incarnation, Image: n.w.opts.Image, Fenced: n.guard != nil,
	}, n.saved)
	n.w.logf("%s: agent %d starts", n.name, n.incarnation)
	n.drive(n.everything())
	n.dial()
}

// stopAgent kills the agent's process for a while; what runs goes on.
func (n *node) stopAgent(d time.Duration) {
	if n.machine == nil {
		return
	}
	if n.frozen { // a signal arrives when the machine goes on
		n.w.after(time.Second, func() { n.stopAgent(d) })
		return
	}
	n.w.logf("%s: agent is killed", n.name)
	n.machine = nil
	n.fence(&fence.Left{})
	n.life++
	n.hangUp()
	life := n.life
	n.w.after(d, func() {
		if n.life == life && !n.gone {
			n.startAgent()
		}
	})
}

// reboot ends all that runs, and the machine is off for a while.
func (n *node) reboot(off time.Duration) {
	n.w.logf("%s: reboots", n.name)
	n.machine, n.gone, n.guard = nil, true, nil
	n.life++
	n.hangUp()
	n.hung, n.frozen, n.backlog, n.last = false, false, nil, nil
	n.sandboxes, n.containers, n.mounts, n.flying = map[state.UID]step.Sandbox{}, map[ckey]*container{}, map[state.UID]bool{}, nil
	n.rules = nil
	if n.w.opts.Mutate == MutateFreshDisk {
		n.volumes = nil
	}
	n.boot++
	life := n.life
	n.w.after(off, func() {
		if n.life == life && !n.dead {
			n.gone = false
			n.startAgent()
		}
	})
}

// hang stops the agent's process for a while, as SIGSTOP does.
func (n *node) hang(d time.Duration) {
	if n.machine == nil || n.hung {
		return
	}
	n.w.logf("%s: agent stands still for %s", n.name, d)
	n.hung = true
	life := n.life
	n.w.after(d, func() {
		if n.life == life && n.hung {
			n.wakeUp()
		}
	})
}

func (n *node) wakeUp() {
	n.hung, n.frozen = false, false
	events := n.backlog
	n.backlog = nil
	n.drive(events...)
}

// freeze stops the whole machine for a while, as a suspended VM stands still:
// nothing on it runs, and its boot clock goes on.
func (n *node) freeze(d time.Duration) {
	if n.machine == nil || n.hung {
		return
	}
	n.w.logf("%s: the machine is suspended for %s", n.name, d)
	n.hung, n.frozen = true, true
	life := n.life
	n.w.after(d, func() {
		if n.life == life && n.frozen {
			n.thawed = n.w.now
			n.wakeUp()
			n.fence()
		}
	})
}

// everything is what the runtime has.
func (n *node) everything() *step.Observed {
	o := &step.Observed{Whole: true}
	for _, uid := range slices.SortedFunc(maps.Keys(n.sandboxes), state.UID.Compare) {
		o.Sandboxes = append(o.Sandboxes, n.sandboxes[uid])
	}
	for _, k := range n.keys() {
		o.Containers = append(o.Containers, n.containers[k].Container)
	}
	return o
}

func (n *node) keys() []ckey {
	return slices.SortedFunc(maps.Keys(n.containers), func(a, b ckey) int {
		if c := a.uid.Compare(b.uid); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
}

// dial opens a session, and tries again until it has one.
func (n *node) dial() {
	life := n.life
	n.w.after(n.dice.between(10*time.Millisecond, time.Second), func() {
		if n.life != life || n.machine == nil || n.online {
			return
		}
		if n.unreachable() || n.hung || n.w.ctl.machine == nil || n.w.ctl.asleep() {
			n.dial()
			return
		}
		n.session++
		n.online = true
		n.fresh, n.any = n.w.now, n.w.now
		n.w.ctl.submit(&state.NodeHello{Node: n.name, Facts: n.facts, BootID: n.bootID(), Incarnation: n.incarnation})
		n.drive(&step.Connected{})
		n.serve(n.w.ctl.network)
		n.renew(n.session, 0)
	})
}

func (n *node) unreachable() bool { return n.cut || n.deaf || n.mute }

func (n *node) hangUp() {
	if n.online {
		n.online = false
		n.session++
		if n.machine != nil {
			n.dial()
		}
	}
}

func (n *node) renew(session int, wait time.Duration) {
	n.renewal++
	renewal := n.renewal
	n.w.after(wait, func() {
		if n.session != session || !n.online || n.renewal != renewal {
			return
		}
		if !n.hung {
			n.send(&state.Renewed{Node: n.name, Session: uint64(n.session), Sent: n.clock()})
		}
		n.every = lease.Renewal
		if n.machine != nil {
			n.every = n.machine.RenewEvery()
		}
		n.renew(session, n.every)
	})
}

// hurry renews at once where the agent wants to renew more often than before.
func (n *node) hurry() {
	every := n.machine.RenewEvery()
	if sooner := every < n.every; sooner && n.online {
		n.renew(n.session, 0)
	}
	n.every = every
}

// send takes a message to the controller: in order within a session, unless the
// session breaks. A message of a broken session may still arrive, late, and one
// may arrive twice.
func (n *node) send(e state.Event) {
	w := n.w
	if !n.online {
		return
	}
	if n.cut || n.mute {
		return // nobody hears it; the session is found dead later
	}
	life, session := w.ctl.life, n.session
	deliver := func() {
		if w.ctl.life != life || w.ctl.machine == nil {
			return
		}
		n.any = w.now
		if _, ok := e.(*state.Renewed); ok && n.session == session && n.online {
			n.fresh = w.now
		}
		w.ctl.submit(w.forged(e))
	}
	if n.dice.chance("message-lost") {
		w.logf("%s: the session breaks, a message is lost", n.name)
		if n.dice.chance("message-late") {
			w.after(n.dice.between(time.Second, 90*time.Second), deliver)
		}
		n.hangUp()
		return
	}
	w.after(n.latency(), deliver)
	if n.dice.chance("message-twice") {
		w.after(n.dice.between(time.Millisecond, 60*time.Second), deliver)
	}
}

// latency is how long a message takes: in order, so that none overtakes another.
func (n *node) latency() time.Duration {
	took := time.Millisecond
	if n.w.now < n.lag {
		took = n.dice.between(time.Millisecond, 15*time.Second)
	}
	n.arrives = max(n.arrives, n.w.now+took)
	return n.arrives - n.w.now
}

// assign brings an assignment from the controller.
func (n *node) assign(a state.Assignment) {
	session := n.session
	if !n.online || n.cut || n.deaf {
		return
	}
	old := n.last
	n.last = &a
	bring := func(a *state.Assignment) {
		if n.session == session && n.machine != nil {
			n.told = max(n.told, a.Seq)
			n.drive(&step.Assigned{Assignment: a})
		}
	}
	n.w.after(time.Millisecond, func() { bring(&a) })
	if old != nil && n.dice.chance("assignment-again") {
		n.w.after(n.dice.between(2*time.Millisecond, 30*time.Second), func() { bring(old) })
	}
}

// clock is the node's own: it runs up to both drifts faster or slower than the
// controller's, which is the true one here.
func (n *node) clock() time.Duration { return time.Hour + time.Duration(float64(n.w.now)*n.rate) }

// grant brings a lease from the controller, sometimes too late to count.
func (n *node) grant(g state.Grant) {
	session := n.session
	if !n.online || n.cut || n.deaf || g.Session != uint64(session) {
		return
	}
	took := time.Millisecond
	if n.dice.chance("grant-late") {
		took = n.dice.between(0, 70*time.Second)
	}
	n.w.after(took, func() {
		if n.w.opts.Mutate == MutateReply {
			g.Sent = n.clock()
		}
		g.Endless = n.w.opts.Mutate == MutateEndless
		if n.session == session && n.machine != nil {
			for _, class := range []lease.Class{lease.Failover, lease.FailoverFast} {
				if t := class.Terms(); n.clock() < g.Sent+t.Length-t.Kill || g.Endless {
					n.leased[class] = max(n.leased[class], g.Sent)
				}
			}
			n.drive(&step.Granted{Grant: g})
		}
	})
}

// drive steps the agent's machine and does what it asks.
func (n *node) drive(events ...step.Event) {
	if n.machine == nil {
		return
	}
	if n.hung {
		n.backlog = append(n.backlog, events...)
		return
	}
	out := n.machine.Step(state.Instant{Mono: n.clock(), Wall: n.w.wall + n.wall + int64(n.w.now)}, events...)
	n.saved = n.machine.Save()
	n.hurry()
	n.report()
	if out.Report != nil {
		n.send(&state.Reported{Report: *out.Report})
	}
	for i := range out.Actions {
		n.act(out.Actions[i])
	}
	if !out.Wake.IsZero() {
		life := n.life
		n.wake++
		wake := n.wake
		n.w.after(time.Duration(float64(out.Wake.Mono-n.clock())/n.rate)+1, func() {
			if n.life == life && n.wake == wake {
				n.drive()
			}
		})
	}
}
