package lease_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

func TestCheck(t *testing.T) {
	if err := lease.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestWords(t *testing.T) {
	for _, word := range lease.Words() {
		if c, ok := lease.Parse(word); !ok || c.String() != word {
			t.Errorf("%q is read as %s, %t", word, c, ok)
		}
	}
	if c, ok := lease.Parse(""); !ok || c != lease.Failover {
		t.Errorf("no annotation is read as %s, %t", c, ok)
	}
	if _, ok := lease.Parse("perhaps"); ok {
		t.Error("an unknown word is taken")
	}
}

func TestLateGrantCountsNothing(t *testing.T) {
	var k lease.Keeper
	k.Grant(50*time.Second, 4*time.Second) // one second after the kill would have begun
	if k.Live(50*time.Second, lease.Failover) {
		t.Error("a grant counts that came after the kill had begun")
	}
	k.Grant(50*time.Second, 6*time.Second)
	if !k.Live(50*time.Second, lease.Failover) || k.Live(51*time.Second, lease.Failover) {
		t.Error("a lease is not counted from when its renewal was sent")
	}
	if k.Live(50*time.Second, lease.FailoverFast) {
		t.Error("the grant is too late for the fast class")
	}
}

// rules are those of both ends, or a mutation of them.
type rules struct {
	anchor func(sent, came time.Duration) time.Duration
	wait   func(lease.Terms) time.Duration
}

// overlaps lives through random drift and delays and says how often a copy ran
// while the controller was free to start another.
func overlaps(t *testing.T, class lease.Class, runs int, r rules) int {
	t.Helper()
	terms, rho := class.Terms(), float64(lease.Drift)/1000
	broken := 0
	for seed := range runs {
		rng := rand.New(rand.NewPCG(uint64(seed), 8))
		rate := func() float64 { return 1 + rho*(2*rng.Float64()-1) }
		switch rng.IntN(4) { // the corners are where it breaks
		case 0:
			rate = func() float64 { return 1 - rho }
		case 1:
			first := true
			rate = func() float64 {
				if first {
					first = false
					return 1 - rho
				}
				return 1 + rho
			}
		}
		agent, controller := rate(), rate()
		var k lease.Keeper
		var heard float64 // true time, in seconds
		now := 0.0
		for range 1 + rng.IntN(8) {
			up, down := rng.Float64()*0.2, rng.Float64()*0.2
			if rng.IntN(3) == 0 {
				up = rng.Float64() * terms.Length.Seconds() * 1.2
			}
			if rng.IntN(3) == 0 {
				down = rng.Float64() * terms.Length.Seconds() * 1.2
			}
			heard = max(heard, now+up)
			if heard > now+up { // in order, as a stream is
				up = heard - now
			}
			local := func(at float64) time.Duration { return time.Duration(at * agent * float64(time.Second)) }
			came := now + up + down
			k.Grant(local(came), r.anchor(local(now), local(came)))
			now += lease.Renewal.Seconds()
		}
		begins, _ := k.Begins(class)
		if !k.Held[class] {
			continue
		}
		dead := (begins + terms.Kill).Seconds() / agent
		if moved := heard + r.wait(terms).Seconds()/controller; dead > moved+1e-9 {
			broken++
		}
	}
	return broken
}

func TestDriftAndDelay(t *testing.T) {
	sent := func(sent, _ time.Duration) time.Duration { return sent }
	wait := func(t lease.Terms) time.Duration { return t.Wait }
	for _, class := range []lease.Class{lease.Failover, lease.FailoverFast} {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			if n := overlaps(t, class, 100_000, rules{sent, wait}); n > 0 {
				t.Errorf("%d of 100000 runs have two copies", n)
			}
			if overlaps(t, class, 20_000, rules{sent, func(t lease.Terms) time.Duration { return t.Length }}) == 0 {
				t.Error("nobody noticed that the controller waits only as long as the lease")
			}
			came := func(_, came time.Duration) time.Duration { return came }
			if overlaps(t, class, 20_000, rules{came, wait}) == 0 {
				t.Error("nobody noticed that leases are counted from the reply")
			}
		})
	}
}
