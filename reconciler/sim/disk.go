package sim

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
)

// asleep says whether the controller's process stands still.
func (c *controller) asleep() bool { return c.w.now < c.stalled }

// stall stops the process for a while, as SIGSTOP does; its clock goes on.
func (c *controller) stall(d time.Duration) {
	if c.machine != nil {
		c.w.logf("the controller stands still for %s", d)
		c.stalled = max(c.stalled, c.w.now+d) // it may stand still already, for longer
	}
}

// usurp is a second controller on the same log: the first stands still, is taken
// for dead, and goes on later in the belief that it leads. Its sessions have
// ended, and the log refuses what it writes: the head isn't what it expects.
func (c *controller) usurp(d time.Duration) {
	w := c.w
	if c.machine == nil {
		return
	}
	w.logf("a second controller takes over; the first wakes up after %s", d)
	old, waiting := c.machine, c.waiting
	head := c.seq()
	for _, n := range w.nodes {
		n.hangUp()
	}
	c.stalled = 0
	c.start()
	w.repo.again()
	w.after(d, func() { c.awake(old, waiting, int(head)) })
}

// awake is the first controller again: it decides, and writes.
func (c *controller) awake(old *reconciler.Machine, waiting []batch, head int) {
	w := c.w
	out := old.Step(w.instant(), nil)
	waiting = append(waiting, batch{Output: out})
	if w.opts.Mutate != MutateNoHead {
		if head != len(c.disk) {
			w.logf("the log refuses the first controller: it expects record %d at its head, there are %d", head, len(c.disk))
		}
		return // it exits, whether it was refused or has nothing to write
	}
	c.release(waiting)
	if c.machine != nil {
		c.durable(waiting, -1)
	}
}

// flip damages a record on the disk: a later start finds it.
func (c *controller) flip(n int) {
	if len(c.disk) == 0 {
		return
	}
	i := n % len(c.disk)
	if c.damage[i] != nil || len(c.disk[i]) == 0 {
		return
	}
	c.w.logf("a bit of record %d flips on the disk", i+1)
	c.damage[i] = c.disk[i]
	bad := slices.Clone(c.disk[i])
	bad[len(bad)/2] ^= 0x10
	c.disk[i] = bad
}

// sound says whether every record is as it was written. If one isn't, the
// controller refuses to start, and a person brings the log's copy.
func (c *controller) sound() bool {
	w := c.w
	if w.opts.Mutate == MutateNoSums {
		return true
	}
	for _, i := range sortedKeys(c.damage) {
		if sha256.Sum256(c.disk[i]) == c.sums[i] {
			w.fail("I13", "record %d is damaged and nobody noticed", i+1)
		}
	}
	if len(c.damage) == 0 {
		return true
	}
	w.logf("the controller refuses to start: %d records are damaged", len(c.damage))
	life := c.life
	w.after(c.dice.between(20*time.Second, 2*time.Minute), func() {
		for i, good := range c.damage {
			c.disk[i] = good
		}
		clear(c.damage)
		if c.life == life {
			c.start()
			w.repo.again()
		}
	})
	return false
}
