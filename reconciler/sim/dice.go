package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// dice are what one part of the world draws from. Each part has its own, so that
// a story with a line less is much the same story.
type dice struct {
	w   *world
	rng *rand.Rand
}

// throw makes the dice of one part.
func (w *world) throw(part string) *dice {
	sum := sha256.Sum256([]byte(part))
	return &dice{w, rand.New(rand.NewPCG(w.story.Seed, binary.LittleEndian.Uint64(sum[:])))}
}

// between draws a duration.
func (d *dice) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.rng.Int64N(int64(max(high-low, 0))+1))
}

// chance says whether a fault happens now that happens once in so many times.
func (d *dice) chance(rate string) bool {
	n := d.w.story.Rates[rate]
	return n > 0 && d.w.faults && d.rng.IntN(n) == 0
}

// chance is of no part in particular.
func (w *world) chance(rate string) bool { return w.dice.chance(rate) }
