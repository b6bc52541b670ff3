package reconciler

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What alarms say is what going through all of them would give.
func TestAlarms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a alarms[int]
		want := map[int]time.Duration{}
		now := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			k := rapid.IntRange(0, 9).Draw(t, "thing")
			switch rapid.IntRange(0, 3).Draw(t, "do") {
			case 0:
				a.set(k, 0)
				delete(want, k)
			case 1:
				now += time.Duration(rapid.IntRange(0, 20).Draw(t, "later"))
				var due []int
				for k, at := range want {
					if at <= now {
						due = append(due, k)
						delete(want, k)
					}
				}
				got := a.due(now)
				slices.Sort(got)
				slices.Sort(due)
				if !slices.Equal(got, due) {
					t.Fatalf("at %d due: got %v, want %v", now, got, due)
				}
			default:
				at := now + time.Duration(rapid.IntRange(1, 50).Draw(t, "in"))
				a.set(k, at)
				want[k] = at
			}
			first := time.Duration(0)
			for _, at := range want {
				first = soonest(first, at)
			}
			if got := a.first(); got != first || !maps.Equal(a.at, want) && len(want)+len(a.at) > 0 {
				t.Fatalf("first: got %d of %v, want %d of %v", got, a.at, first, want)
			}
		}
	})
}
