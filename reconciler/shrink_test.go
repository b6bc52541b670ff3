package reconciler_test

import (
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/sim"
)

// shortest is how many lines a shrunk story may have: one that a person reads at
// a glance.
const shortest = 15

// TestShrink plants defects and sees that a failing world shrinks to a story of a
// few lines, which can be read back and still breaks the same law.
func TestShrink(t *testing.T) {
	t.Parallel()
	wanted := map[string]sim.Scenario{
		"two lives of one identity": sim.Partition, "order ignored": sim.Faults, "surge exceeded": sim.Calm,
	}
	for _, d := range rolloutDefects() {
		scenario, ok := wanted[d.name]
		if !ok {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			o := d.options
			o.Scenario = scenario
			r := sim.Result{}
			for o.Seed = 1; o.Seed <= mutationSeeds && r.Law == ""; o.Seed++ {
				r = sim.Run(o)
			}
			if r.Law == "" {
				t.Fatal("no seed breaks a law")
			}
			text := sim.Shrink(o, r).String()
			t.Logf("%d lines were shrunk to\n%s", len(r.Story.Lines), text)
			if n := strings.Count(text, "\n"); n > shortest {
				t.Errorf("the story still has %d lines, want %d at most", n, shortest)
			}
			story, err := sim.ParseStory(text)
			if err != nil {
				t.Fatalf("the shrunk story can't be read: %v", err)
			}
			o.Story, o.Seed = story, story.Seed
			if again := sim.Run(o); again.Law != r.Law {
				t.Errorf("read back, the story breaks %q (%v), it broke %q", again.Law, again.Err, r.Law)
			}
			if fair := sim.Run(sim.Options{Story: story}); fair.Err != nil {
				t.Errorf("without the defect the story breaks a law too: %v", fair.Err)
			}
		})
	}
}
