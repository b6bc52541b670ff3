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
)

// node is the real agent's machine over made-up containers.
type node struct {
	w           *world
	name        state.NodeName
	facts       state.NodeFacts
	boot        int
	incarnation uint64

	machine *step.Machine // nil while the agent is down
	saved   *step.Saved
	life    int // counts agent processes
	wake    uint64

	session int  // counts sessions; 0 is never
	online  bool // a session is open
	cut     bool // the network lets nothing through
	deaf    bool // nothing reaches it
	mute    bool // nothing of it arrives
	gone    bool // the machine is off
	dead    bool // for good

	rate float64 // of its clock, against true time

	told  state.Seq     // the highest record that an assignment spoke of
	fresh time.Duration // when the controller last heard of its present session
	any   time.Duration // when it last heard anything, however old

	hung    bool // its agent stands still
	backlog []step.Event

	// The runtime: it outlives the agent, not the machine.
	sandboxes  map[state.UID]step.Sandbox
	volumes    map[state.UID]state.Ref // the claims whose data is here: they outlive reboots
	containers map[ckey]*container
	address    int
}

type ckey struct {
	uid  state.UID
	name string
}

// container is one that runs or has ended.
type container struct {
	step.Container
	pod     *state.AssignedPod
	stopped bool // the agent was told to end it
}

func (n *node) bootID() string { return fmt.Sprintf("%s-boot-%d", n.name, n.boot) }

// startAgent begins an agent process: it looks at what runs before it does
// anything, and goes on from what was saved.
func (n *node) startAgent() {
	n.life++
	n.incarnation++
	n.hung, n.backlog = false, nil
	n.machine = step.New(step.Config{Node: n.name, Facts: &n.facts, BootID: n.bootID(), Incarnation: n.incarnation}, n.saved)
	n.w.logf("%s: agent %d starts", n.name, n.incarnation)
	n.drive(n.everything())
	n.dial()
}

// stopAgent kills the agent's process; what runs goes on.
func (n *node) stopAgent() {
	if n.machine == nil {
		return
	}
	n.w.logf("%s: agent is killed", n.name)
	n.machine = nil
	n.life++
	n.hangUp()
	life := n.life
	n.w.after(n.w.between(100*time.Millisecond, n.w.pause(30*time.Second)), func() {
		if n.life == life && !n.gone {
			n.startAgent()
		}
	})
}

// reboot ends all that runs.
func (n *node) reboot() {
	n.w.logf("%s: reboots", n.name)
	n.machine, n.gone = nil, true
	n.life++
	n.hangUp()
	n.hung, n.backlog = false, nil
	n.sandboxes, n.containers = map[state.UID]step.Sandbox{}, map[ckey]*container{}
	n.boot++
	life := n.life
	n.w.after(n.w.between(5*time.Second, 3*time.Minute), func() {
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
		if n.life != life || !n.hung {
			return
		}
		n.hung = false
		events := n.backlog
		n.backlog = nil
		n.drive(events...)
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
	n.w.after(n.w.between(10*time.Millisecond, time.Second), func() {
		if n.life != life || n.machine == nil || n.online {
			return
		}
		if n.unreachable() || n.hung || n.w.ctl.machine == nil {
			n.dial()
			return
		}
		n.session++
		n.online = true
		n.fresh, n.any = n.w.now, n.w.now
		n.w.ctl.submit(&state.NodeHello{Node: n.name, Facts: n.facts, BootID: n.bootID(), Incarnation: n.incarnation})
		n.drive(&step.Connected{})
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
	n.w.after(wait, func() {
		if n.session != session || !n.online {
			return
		}
		if !n.hung {
			n.send(&state.Renewed{Node: n.name, Session: uint64(n.session), Sent: n.clock()})
		}
		every := lease.Renewal
		if n.machine != nil {
			every = n.machine.RenewEvery()
		}
		n.renew(session, every)
	})
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
	if w.chance(150) {
		w.logf("%s: the session breaks, a message is lost", n.name)
		if w.rng.IntN(2) == 0 {
			w.after(w.between(time.Second, 90*time.Second), deliver)
		}
		n.hangUp()
		return
	}
	w.after(time.Millisecond, deliver)
	if w.chance(100) {
		w.after(w.between(time.Millisecond, 60*time.Second), deliver)
	}
}

// assign brings an assignment from the controller.
func (n *node) assign(a state.Assignment) {
	session := n.session
	if !n.online || n.cut || n.deaf {
		return
	}
	n.w.after(time.Millisecond, func() {
		if n.session == session && n.machine != nil {
			n.told = max(n.told, a.Seq)
			n.drive(&step.Assigned{Assignment: &a})
		}
	})
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
	if n.w.chance(20) {
		took = n.w.between(0, 70*time.Second)
	}
	n.w.after(took, func() {
		if n.w.opts.Mutate == MutateReply {
			g.Sent = n.clock()
		}
		g.Endless = n.w.opts.Mutate == MutateEndless
		if n.session == session && n.machine != nil {
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
	out := n.machine.Step(state.Instant{Mono: n.clock(), Wall: n.w.wall + int64(n.w.now)}, events...)
	n.saved = n.machine.Save()
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

// act does an action, some time later; the answer is void for another process.
func (n *node) act(a step.Action) {
	w := n.w
	life := n.life
	done := func(class step.Class, text, ip string) {
		if n.life == life {
			n.drive(&step.Done{ID: a.ID, UID: a.UID, Class: class, Text: text, IP: ip})
		}
	}
	boot := n.boot
	later := func(low, high time.Duration, do func()) {
		w.after(w.between(low, high), func() {
			if n.boot == boot {
				do()
			}
		})
	}
	switch a.Do {
	case step.Pull:
		later(time.Millisecond, 3*time.Second, func() {
			if w.chance(30) {
				done(step.Unavailable, "the registry does not answer", "")
				return
			}
			done(step.OK, "", "")
		})
	case step.Prepare:
		later(time.Millisecond, 5*time.Millisecond, func() {
			for _, v := range a.Volumes {
				n.makeVolume(v)
			}
			done(step.OK, "", "")
		})
	case step.MakeSandbox:
		later(time.Millisecond, 50*time.Millisecond, func() {
			if _, ok := n.sandboxes[a.UID]; !ok {
				n.address++
				n.sandboxes[a.UID] = step.Sandbox{UID: a.UID, Key: a.Pod.Key, IP: fmt.Sprintf("10.88.%d.%d", n.address/250, n.address%250+2)}
			}
			done(step.OK, "", n.sandboxes[a.UID].IP)
		})
	case step.Run:
		later(5*time.Millisecond, 500*time.Millisecond, func() { n.runContainer(a, done) })
	case step.Stop:
		later(time.Millisecond, min(a.Grace, 3*time.Second)+time.Millisecond, func() {
			n.end(ckey{a.UID, a.Container}, 143)
			done(step.OK, "", "")
		})
	case step.Remove:
		later(time.Millisecond, 200*time.Millisecond, func() {
			delete(n.sandboxes, a.UID)
			maps.DeleteFunc(n.containers, func(k ckey, _ *container) bool { return k.uid == a.UID })
			done(step.OK, "", "")
		})
	case step.DropVolume:
		later(time.Millisecond, 200*time.Millisecond, func() {
			if w.chance(10) {
				done(step.Unavailable, "the disk does not answer", "")
				return
			}
			n.deleteVolume(a.UID)
			done(step.OK, "", "")
		})
	case step.StartProbe:
		n.probe(ckey{a.UID, a.Container}, a, life)
	case step.Cancel, step.StopProbe:
	}
}

func (n *node) runContainer(a step.Action, done func(step.Class, string, string)) {
	w, k := n.w, ckey{a.UID, a.Container}
	if _, ok := n.sandboxes[a.UID]; !ok {
		done(step.NotFound, "no sandbox", "")
		return
	}
	if old := n.containers[k]; old != nil {
		if old.Attempt == a.Attempt {
			done(step.OK, "", "")
			return
		}
		if old.Running && !old.stopped {
			w.fail("%s restarts container %s of %s, which runs", n.name, a.Container, a.Pod.Key)
		}
	}
	if w.chance(60) {
		done(step.Unavailable, "the runtime does not answer", "")
		return
	}
	c := &container{pod: a.Pod, Container: step.Container{UID: a.UID, Name: a.Container, Attempt: a.Attempt, Running: true, Started: w.wall + int64(w.now)}}
	n.containers[k] = c
	w.logf("%s: runs %s/%s attempt %d", n.name, a.Pod.Key, a.Container, a.Attempt)
	w.alone(a.Pod)
	life := n.life
	done(step.OK, "", "")
	if n.life == life && n.machine != nil {
		n.drive(&step.Observed{Containers: []step.Container{c.Container}})
	}
	if w.chance(25) {
		w.after(w.between(time.Second, 4*time.Minute), func() {
			if n.containers[k] == c && c.Running {
				w.logf("%s: %s/%s dies", n.name, a.Pod.Key, a.Container)
				n.end(k, 1)
			}
		})
	}
}

// end ends a container, by itself or because it was told to.
func (n *node) end(k ckey, code int32) {
	c := n.containers[k]
	if c == nil || !c.Running {
		return
	}
	c.Running, c.ExitCode, c.Finished, c.stopped = false, code, n.w.wall+int64(n.w.now), true
	n.drive(&step.Observed{Containers: []step.Container{c.Container}})
}

// probe answers as the container's template says: a broken one is never ready.
func (n *node) probe(k ckey, a step.Action, life int) {
	w, c := n.w, n.containers[k]
	if c == nil || !c.Running {
		return
	}
	broken := c.pod.Template.Spec.Annotations["sim/broken"] == "true"
	w.after(w.between(10*time.Millisecond, 4*time.Second), func() {
		if n.life != life || n.containers[k] != c || !c.Running {
			return
		}
		n.drive(&step.Probed{UID: k.uid, Container: k.name, Attempt: c.Attempt, Probe: a.Probe, OK: !broken, Times: 3})
	})
	if w.chance(60) {
		// A flapping application.
		for i := range 30 {
			w.after(time.Duration(i)*2*time.Second+5*time.Second, func() {
				if n.life == life && n.containers[k] == c && c.Running && !broken {
					n.drive(&step.Probed{UID: k.uid, Container: k.name, Attempt: c.Attempt, Probe: a.Probe, OK: i%2 == 1, Times: 3})
				}
			})
		}
	}
}
