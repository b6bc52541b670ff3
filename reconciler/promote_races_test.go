package reconciler_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
)

// raceSeed is the one race to play again: see docs/testing.md.
var raceSeed = flag.Uint64("promotion", 0, "play this one promotion race")

// TestPromotionRaces plays long random lives of a pipeline: commits, pushes of
// others, people who ask, approve, refuse, leave and come, a controller that dies
// before and after it pushed. Each is a seed; the laws are those of the model.
func TestPromotionRaces(t *testing.T) {
	t.Parallel()
	first, seeds := uint64(1), uint64(300)
	switch {
	case *raceSeed != 0:
		first, seeds = *raceSeed, 1
	case os.Getenv("TANDEM_SOAK") != "":
		seeds = 2000
	case testing.Short():
		seeds = 30
	}
	var moved, conflicts, lost int
	for seed := first; seed < first+seeds; seed++ {
		w := newModel(t)
		w.often = 6
		random := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a seed is what is wanted
		for range 60 + random.IntN(60) {
			actions := w.actions()
			a := actions[random.IntN(len(actions))]
			w.path = append(w.path, a)
			w.do(a)
		}
		w.settles(w.path)
		if t.Failed() {
			t.Fatalf("seed %d: go test ./reconciler -run TestPromotionRaces -promotion %d", seed, seed)
		}
		moved, conflicts, lost = moved+w.moved, conflicts+w.conflicts, lost+w.lost
	}
	t.Logf("%d seeds: %d pushes moved a branch, %d met another, %d answers were lost", seeds, moved, conflicts, lost)
	if *raceSeed == 0 && (moved < int(seeds) || conflicts == 0 || lost == 0) {
		t.Error("the races are too tame: hardly a push, a conflict or a lost answer")
	}
}
