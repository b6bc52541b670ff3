package step_test

import (
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

func identity(class lease.Class) *state.AssignedPod {
	p := podOf(one, nil)
	p.Workload = state.Ref{Kind: "StatefulSet", Namespace: "default", Name: "db"}
	p.Loss = class
	return p
}

func (w *world) grant(sent time.Duration, generation uint64) {
	w.step(&step.Granted{Grant: state.Grant{Sent: sent, Epoch: 1, Generation: generation}})
}

// stops is the grace of the one Stop that was asked for.
func (w *world) stops() time.Duration {
	w.t.Helper()
	w.did(step.Stop)
	return w.pending[len(w.pending)-1].Grace
}

func (w *world) startsNothing() {
	w.t.Helper()
	for _, a := range w.pending {
		if a.Do == step.Run || a.Do == step.MakeSandbox {
			w.t.Fatalf("%s without a lease", a.Do)
		}
	}
}

// leased is a world in which an identity runs under a lease of now.
func leased(t *testing.T, class lease.Class) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, &step.Connected{}, assign(1, identity(class)))
	w.startsNothing()
	w.grant(w.now.Mono, 1)
	w.answer(nil)
	w.step(running(one))
	w.want(one, state.Running, true, state.ReasonNone)
	return w
}

func running(uid state.UID) *step.Observed {
	return &step.Observed{
		Whole: true, Sandboxes: []step.Sandbox{{UID: uid, IP: "10.0.0.2"}},
		Containers: []step.Container{{UID: uid, Name: "main", Running: true, Started: 5}},
	}
}

func TestLeaseEnds(t *testing.T) {
	for class, begins := range map[lease.Class]time.Duration{lease.Failover: 45 * time.Second, lease.FailoverFast: 10 * time.Second} {
		t.Run(class.String(), func(t *testing.T) {
			w := leased(t, class)
			sent := w.now.Mono
			w.sleep(begins - time.Millisecond)
			if len(w.pending) > 0 {
				t.Fatalf("%s before the lease ends", w.pending[0].Do)
			}
			if w.wake.Mono > sent+begins {
				t.Fatal("the agent would sleep past its lease")
			}
			w.sleep(time.Millisecond)
			if got, want := w.stops(), class.Terms().Kill-lease.Margin; got != want {
				t.Fatalf("a grace of %s, want %s", got, want)
			}
			w.answer(nil)
			w.sleep(10 * time.Minute)
			w.startsNothing()

			// A fresh grant for an assignment that has not come yet is no leave.
			w.grant(w.now.Mono, 2)
			w.startsNothing()
			w.step(assign(2, identity(class)))
			w.did(step.Run)
		})
	}
}

func TestLateGrantSavesNothing(t *testing.T) {
	w := leased(t, lease.Failover)
	sent := w.now.Mono
	w.sleep(46 * time.Second)
	w.stops()
	w.grant(sent+500*time.Millisecond, 1)
	w.answer(nil)
	w.sleep(time.Minute)
	w.startsNothing()
}

func TestLongStopIsCutByTheLease(t *testing.T) {
	w := leased(t, lease.Failover)
	stop := identity(lease.Failover)
	stop.Stop, stop.Grace = true, 10*time.Minute
	w.step(assign(2, stop))
	if got := w.stops(); got != 10*time.Minute {
		t.Fatalf("a grace of %s", got)
	}
	w.pending = nil // the container takes its time
	w.sleep(50 * time.Second)
	if got := w.stops(); got != 8*time.Second {
		t.Fatalf("a grace of %s, 10 s before the lease ends", got)
	}
}

func TestClassWaitRunsOn(t *testing.T) {
	w := newWorld(t, nil)
	w.step(&step.Observed{Whole: true}, assign(1, identity(lease.Wait)))
	w.answer(nil)
	w.step(running(one))
	w.sleep(time.Hour)
	if len(w.pending) > 0 {
		t.Fatalf("%s of a pod of class wait", w.pending[0].Do)
	}
}

// Another process of the same boot keeps to the deadline, and kills before it
// hears anybody; after a reboot nothing runs without a grant.
func TestLeaseIsKept(t *testing.T) {
	saved := func(t *testing.T) (*step.Saved, state.Instant) {
		w := leased(t, lease.Failover)
		return w.m.Save(), w.now
	}
	t.Run("in time", func(t *testing.T) {
		s, now := saved(t)
		w := newWorld(t, s)
		w.now = now.Add(44 * time.Second)
		w.step(running(one))
		w.answer(nil) // its volumes are looked after
		w.sleep(time.Second)
		w.stops()
	})
	t.Run("late", func(t *testing.T) {
		s, now := saved(t)
		w := newWorld(t, s)
		w.now = now.Add(50 * time.Second)
		w.step(running(one))
		if got := w.stops(); got != 8*time.Second {
			t.Fatalf("a grace of %s", got)
		}
	})
	t.Run("parked", func(t *testing.T) {
		s, now := saved(t)
		w := newWorld(t, nil)
		c := config("boot-1")
		c.Parked = true
		w.m = step.New(c, s)
		w.now = now.Add(time.Hour)
		w.step(running(one))
		w.answer(nil)
		w.sleep(time.Hour)
		w.want(one, state.Running, true, state.ReasonNone)
		w.step(&step.Connected{})
		w.sleep(45 * time.Second)
		w.stops()
	})
	t.Run("after a reboot", func(t *testing.T) {
		s, _ := saved(t)
		w := newWorld(t, nil)
		w.m = step.New(config("boot-2"), s)
		w.now.Mono = time.Minute
		w.step(&step.Observed{Whole: true})
		w.step(assign(2, identity(lease.Failover)))
		w.startsNothing()
		w.grant(w.now.Mono, 2)
		w.did(step.MakeSandbox, step.Prepare, step.Pull)
	})
}
