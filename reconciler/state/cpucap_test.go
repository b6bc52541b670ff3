package state_test

import (
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func TestCPUCap(t *testing.T) {
	for _, c := range []struct {
		milli        int64
		cores        int
		maximum, cap int64
	}{
		{100, 64, 15, 960},
		{10, 64, 1, 64},
		{50, 128, 3, 384},
		{1500, 4, 3750, 15000},
		{4000, 4, 10000, 40000},
		{9000, 4, 10000, 40000},
		{1, 64, 1, 64},
		{250, 1, 2500, 2500},
		{1000, 3, 3333, 9999},
		{500, 0, 5000, 5000},
	} {
		if maximum, got := state.CPUMaximum(c.milli, c.cores), state.CPUCap(c.milli, c.cores); maximum != c.maximum || got != c.cap {
			t.Errorf("%dm of %d cores is a maximum of %d, %d ten-thousandths of a core; want %d, %d", c.milli, c.cores, maximum, got, c.maximum, c.cap)
		}
	}
}
