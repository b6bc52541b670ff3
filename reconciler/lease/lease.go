// Package lease says how long a node that nobody hears may run an identity, and
// how long its controller waits before it starts that identity elsewhere.
//
//	agent ──renewal──► [ lease ] ──grant──► controller
//
//	agent       sent ────────── begins to kill ───────── all dead
//	             t            + Length − Kill          t + Length    on its clock
//	             │ renewal                                    │
//	controller   └─► heard ─────────────────────────────────────── may move
//	                  h                                             + Wait    on its clock
//
// Both ends use these constants and no others. An agent counts from when it
// sent the renewal that was granted, never from when the grant came; the
// controller from when it heard the renewal, which is later. So with clocks that
// drift by no more than Drift, every copy is dead before another one starts.
package lease

import (
	"fmt"
	"slices"
	"time"
)

// A Class is what becomes of an identity whose node is lost. A pod has that of
// the record that placed it, for all its life: the agent knows it as soon as it
// knows the pod.
type Class uint8

// The classes. Their words are those of the annotation.
const (
	Wait         Class = iota // it is neither stopped nor moved without a person
	Failover                  // the default
	FailoverFast              // for controllers that are never away for long

	classes = 3
)

// Annotation on a StatefulSet says its class.
const Annotation = "tandem.dev/node-loss"

func words() []string {
	return []string{Wait: "wait", Failover: "failover", FailoverFast: "failover-fast"}
}

// Words are what Annotation may say, the default first.
func Words() []string { return []string{"failover", "failover-fast", "wait"} }

// String is the annotation's word.
func (c Class) String() string {
	if w := words(); int(c) < len(w) {
		return w[c]
	}
	return "unknown"
}

// Parse reads the annotation's word; none is the default.
func Parse(word string) (Class, bool) {
	if word == "" {
		return Failover, true
	}
	i := slices.Index(words(), word)
	return Class(max(i, 0)), i >= 0 //nolint:gosec // there are three
}

// Terms are one class's constants.
type Terms struct {
	Length time.Duration // L: from when a renewal was sent, on the agent's clock
	Kill   time.Duration // K: its last part, in which identities are ended
	Wait   time.Duration // D: the controller's, on its own clock
}

// Terms are the class's; of Wait there are none.
func (c Class) Terms() Terms {
	switch c {
	case Failover:
		return Terms{Length: 60 * time.Second, Kill: 15 * time.Second, Wait: 61 * time.Second}
	case FailoverFast:
		return Terms{Length: 20 * time.Second, Kill: 10 * time.Second, Wait: 21 * time.Second}
	default:
		return Terms{}
	}
}

// The constants that the classes share.
const (
	Renewal     = 10 * time.Second // how often an agent renews
	RenewalFast = 5 * time.Second  // while it has a pod of class FailoverFast
	Margin      = 2 * time.Second  // between the last signal that can't be refused and the lease's end

	// Suspicion is how long a node with identities is silent before that is
	// recorded, and Progress how often again: a controller that keeps crashing
	// goes on counting where the last record left it.
	Suspicion = 15 * time.Second
	Progress  = 5 * time.Second
)

// Drift is ρ in thousandths: how far a clock may go wrong.
const Drift = 5

// Check is the inequality that the law rests on: D ≥ L·(1+ρ)/(1−ρ). Both ends
// ask for it when they start.
func Check() error {
	for _, c := range []Class{Failover, FailoverFast} {
		if t := c.Terms(); !t.safe() {
			return fmt.Errorf("lease class %s: a wait of %s doesn't outlast a lease of %s with clocks that drift by %d ‰, or leaves %s to kill in", c, t.Wait, t.Length, Drift, t.Kill)
		}
	}
	return nil
}

func (t Terms) safe() bool {
	return t.Wait*(1000-Drift) >= t.Length*(1000+Drift) && t.Kill > Margin && t.Kill < t.Length
}

// A Keeper is an agent's side: what it was granted, on its own clock, which
// must not stand still in suspend. Its fields are saved for a later process of
// the same boot.
type Keeper struct {
	Held [classes]bool          `json:"held"` // there is a lease; it may have lapsed
	Sent [classes]time.Duration `json:"sent"` // when the renewal was sent that it counts from
	// Endless is a lease of a controller that stopped cleanly: it moves nothing
	// until the node has reported to the next.
	Endless bool `json:"-"`
}

// Grant takes the answer to a renewal that was sent at a time. For a class
// whose pods may already be dying it comes too late.
func (k *Keeper) Grant(now, sent time.Duration) {
	for c := Failover; c < classes; c++ {
		t := c.Terms()
		if sent <= now && now < sent+t.Length-t.Kill && (!k.Held[c] || sent > k.Sent[c]) {
			k.Held[c], k.Sent[c] = true, sent
		}
	}
}

// Reached ends an endless lease: the next controller counts from what this
// agent says from now on.
func (k *Keeper) Reached(now time.Duration) {
	if k.Endless {
		k.Endless = false
		k.Grant(now, now)
	}
}

// Begins is when the agent begins to kill pods of a class; false: never, the
// lease is endless. Where there is no lease that time is long past.
func (k *Keeper) Begins(c Class) (time.Duration, bool) {
	switch {
	case c == Wait || c >= classes || k.Endless:
		return 0, false
	case !k.Held[c]:
		return -1 << 62, true
	}
	t := c.Terms()
	return k.Sent[c] + t.Length - t.Kill, true
}

// Live says whether pods of a class may run.
func (k *Keeper) Live(now time.Duration, c Class) bool {
	at, ends := k.Begins(c)
	return !ends || now < at
}

// Grace is how long a pod of a class may take to end by itself, from now: no
// longer than what is left of the lease, less Margin.
func (k *Keeper) Grace(now time.Duration, c Class, own time.Duration) time.Duration {
	at, ends := k.Begins(c)
	if !ends {
		return own
	}
	return max(0, min(own, at+c.Terms().Kill-Margin-now))
}
