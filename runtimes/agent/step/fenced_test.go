package step_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// late is something that happens at a time.
type late struct {
	at time.Duration
	do func()
}

// A cut is one node with a real agent's machine and a real fencer's, cut off
// and mistreated: its agent hangs or is killed, its runtime answers nobody, its
// network loses everything. Clocks agree; package lease has those that don't.
type cut struct {
	rng    *rand.Rand
	class  lease.Class
	fencer *fence.Machine // nil: there is none
	change func(*fence.Word)

	now   time.Duration
	later []late
	story []string

	agent     *step.Machine
	saved     *step.Saved
	inbox     []step.Event
	assigned  *state.Assignment
	told      fence.Word
	renewAt   time.Duration
	hungTill  time.Duration
	deadTill  time.Duration
	mute      [2]time.Duration // nothing passes between
	stuck     [2]time.Duration // the runtime does nothing between
	alive     bool             // the process of the identity
	shut      bool             // its cell
	removed   bool             // nothing of the pod is left, and a start finds nothing
	heard     time.Duration    // by the controller
	moved     bool             // another node may run it
	overtaken bool             // the controller has told this one
	starts    int
	slow      bool // the network, always
}

func newCut(seed uint64, class lease.Class) *cut {
	c := &cut{rng: rand.New(rand.NewPCG(seed, 4)), class: class, fencer: fence.New()}
	c.assigned = &state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: []*state.AssignedPod{identity(class)}}
	between := func(most time.Duration) [2]time.Duration {
		from := 20*time.Second + c.upTo(60*time.Second)
		return [2]time.Duration{from, from + c.upTo(most)}
	}
	switch c.rng.IntN(4) { // what ails it; the silence that matters is one of hang, kill and network
	case 0:
		c.later = append(c.later, late{20*time.Second + c.upTo(60*time.Second), func() { c.hungTill = c.now + c.upTo(200*time.Second) }})
	case 1:
		c.mute = between(200 * time.Second)
		c.later = append(c.later, late{c.mute[0] + c.upTo(70*time.Second), func() { c.hungTill = c.now + c.upTo(150*time.Second) }})
	case 2:
		c.mute = between(200 * time.Second)
		for at := c.mute[0]; at < c.mute[1]; at += 5*time.Second + c.upTo(20*time.Second) {
			c.later = append(c.later, late{at, func() { c.kill() }})
		}
	default:
		c.mute, c.stuck = between(200*time.Second), between(200*time.Second)
	}
	if c.rng.IntN(2) == 0 {
		c.stuck = between(200 * time.Second)
	}
	c.begin()
	return c
}

func (c *cut) upTo(d time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(d))) }

func (c *cut) tell(format string, args ...any) {
	c.story = append(c.story, fmt.Sprintf("%8.2fs ", c.now.Seconds())+fmt.Sprintf(format, args...))
}

func (c *cut) begin() {
	cfg := config("boot-1")
	cfg.Fenced = c.fencer != nil
	c.agent, c.inbox, c.renewAt, c.told = step.New(cfg, c.saved), nil, c.now, fence.Word{}
	c.inbox = append(c.inbox, c.observed(), &step.Connected{}, &step.Assigned{Assignment: c.assigned})
}

func (c *cut) kill() {
	c.tell("the agent is killed")
	c.deadTill = c.now + 100*time.Millisecond + c.upTo(3*time.Second)
	c.agent = nil
	c.fence(&fence.Left{})
}

func (c *cut) observed() *step.Observed {
	o := &step.Observed{Whole: true, Sandboxes: []step.Sandbox{{UID: one, IP: "10.0.0.2"}}}
	if c.starts > 0 {
		o.Containers = []step.Container{{UID: one, Name: "main", Attempt: int32(c.starts - 1), Running: c.alive, ExitCode: 137}}
	}
	return o
}

// in does something later, as the network and the runtime do.
func (c *cut) in(d time.Duration, do func()) { c.later = append(c.later, late{c.now + d, do}) }

func within(at time.Duration, span [2]time.Duration) bool { return at >= span[0] && at < span[1] }

// live is one instant of it. It says whether two copies may run.
func (c *cut) live() bool {
	for i := 0; i < len(c.later); i++ {
		if l := c.later[i]; l.at <= c.now {
			c.later = slices.Delete(c.later, i, i+1)
			i = -1
			l.do()
		}
	}
	if c.fencer != nil {
		c.fence()
	}
	if c.agent == nil && c.now >= c.deadTill {
		c.begin()
	}
	if c.agent != nil && c.now >= c.hungTill {
		c.think()
	}
	if !c.moved && c.now-c.heard >= c.class.Terms().Wait {
		c.tell("the controller moves the identity")
		c.moved = true
	}
	return c.moved && c.alive
}

// think is the agent's turn.
func (c *cut) think() {
	if c.now >= c.renewAt {
		c.renewAt = c.now + c.agent.RenewEvery()
		c.renew(c.now)
	}
	out := c.agent.Step(state.Instant{Mono: c.now, Wall: int64(c.now)}, c.inbox...)
	c.inbox, c.saved = nil, c.agent.Save()
	if w := c.agent.Word(); !w.Same(&c.told) && c.fencer != nil {
		c.told = w
		if c.change != nil {
			w.Wards = slices.Clone(w.Wards)
			c.change(&w)
		}
		c.fence(&fence.Told{Word: w})
	}
	for _, a := range out.Actions {
		c.carryOut(a)
	}
}

func (c *cut) renew(sent time.Duration) {
	if within(c.now, c.mute) {
		return
	}
	slow := func() time.Duration {
		if c.slow || c.rng.IntN(5) == 0 {
			return c.upTo(8 * time.Second)
		}
		return c.upTo(200 * time.Millisecond)
	}
	c.in(slow(), func() {
		c.heard = c.now
		if c.moved && !c.overtaken {
			c.overtaken = true
			c.assigned = &state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 2}
		}
		a, agent := c.assigned, c.agent
		c.in(slow(), func() {
			if c.agent == agent && agent != nil {
				c.inbox = append(c.inbox, &step.Assigned{Assignment: a}, &step.Granted{Grant: state.Grant{Sent: sent, Epoch: 1, Generation: a.Generation}})
			}
		})
	})
}

// carryOut is the runtime: what it was asked for it does when it can, also for
// an agent that has ended meanwhile.
func (c *cut) carryOut(a step.Action) {
	if a.Do == step.Cancel || a.Do == step.StartProbe || a.Do == step.StopProbe {
		return
	}
	agent := c.agent
	done := func(class step.Class) {
		if c.agent == agent {
			c.inbox = append(c.inbox, &step.Done{ID: a.ID, UID: a.UID, Class: class, IP: "10.0.0.2"}, c.observed())
		}
	}
	var do func()
	do = func() {
		if within(c.now, c.stuck) {
			c.in(time.Second, do)
			return
		}
		switch {
		case a.Do == step.Run && c.removed:
			done(step.NotFound)
		case a.Do == step.Run && c.shut:
			c.tell("a start fails: its cell is shut")
			done(step.Unavailable)
		case a.Do == step.Run:
			c.tell("the identity starts")
			c.alive, c.starts = true, int(a.Attempt)+1
			done(step.OK)
		case a.Do == step.Stop && c.alive:
			c.in(c.upTo(a.Grace+time.Millisecond), func() { c.die("it ends"); done(step.OK) })
		default:
			c.removed = c.removed || a.Do == step.Remove
			done(step.OK)
		}
	}
	c.in(c.upTo(500*time.Millisecond), do)
}

func (c *cut) die(how string) {
	if c.alive {
		c.tell("%s", how)
	}
	c.alive = false
}

func (c *cut) fence(events ...fence.Event) {
	if c.fencer == nil {
		return
	}
	acts, _, _ := c.fencer.Step(c.now, events...)
	for _, a := range acts {
		done := &fence.Done{UID: a.UID, Do: a.Do, OK: true}
		switch a.Do {
		case fence.Open, fence.Drop:
			c.shut = false
			c.fence(done)
		case fence.Term:
			c.in(c.upTo(40*time.Second), func() { c.die("it ends, asked by the fencer") })
			c.fence(done)
		case fence.Shut:
			c.in(c.upTo(200*time.Millisecond), func() {
				c.shut = true
				c.die("the fencer kills it")
				c.fence(done)
			})
		}
	}
	answer := c.fencer.Answer()
	c.inbox = append(c.inbox, &step.Guarded{Open: answer.Open})
}

// worlds lives through many. Those that are prepared to break the law end with
// the first that does, and its number.
func worlds(t *testing.T, runs int, class lease.Class, prepare func(*cut)) (broken, ran int) {
	t.Helper()
	for seed := range runs {
		c := newCut(uint64(seed), class)
		if prepare != nil {
			prepare(c)
			c.begin()
		}
		for ; c.now < 400*time.Second; c.now += 100*time.Millisecond + c.upTo(200*time.Millisecond) {
			if c.live() {
				if prepare != nil {
					return seed + 1, ran
				}
				t.Errorf("seed %d, %s: two copies may run\n%s", seed, class, strings.Join(c.story, "\n"))
				break
			}
		}
		if c.starts > 0 {
			ran++
		}
	}
	return 0, ran
}

// TestFencedThroughAnything is the law, at agents that hang, die again and
// again, have runtimes that don't answer, and no network.
func TestFencedThroughAnything(t *testing.T) {
	for _, class := range []lease.Class{lease.Failover, lease.FailoverFast} {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			runs := 300
			if os.Getenv("TANDEM_SOAK") == "1" {
				runs = 20_000
			}
			if _, ran := worlds(t, runs, class, nil); ran < runs*9/10 {
				t.Errorf("in %d worlds of %d the identity ran at all", ran, runs)
			}
			for name, prepare := range map[string]func(*cut){
				"no fencer": func(c *cut) { c.fencer = nil },
				"counts from when it was told": func(c *cut) {
					c.slow = true
					c.change = func(w *fence.Word) {
						for class := range w.Lease.Sent {
							w.Lease.Sent[class] = c.now
						}
					}
				},
				"opens what the agent holds": func(c *cut) {
					c.change = func(w *fence.Word) {
						for i := range w.Wards {
							w.Wards[i].Held = false
						}
						w.Lease.Sent = [3]time.Duration{c.now, c.now, c.now}
					}
				},
			} {
				if broken, _ := worlds(t, 3000, class, prepare); broken == 0 {
					t.Errorf("%s: nobody noticed", name)
				} else {
					t.Logf("%s: caught in world %d", name, broken)
				}
			}
		})
	}
}
