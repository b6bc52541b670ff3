package reconciler_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/sim"
)

var shrinkFlag = flag.Bool("shrink", false, "write the stories of testdata/upstream again, each from a world in which the bug shows")

// soon is within what time a bug that others had is caught.
const soon = time.Minute

// TestUpstreamBugs re-creates bugs of Kubernetes and containerd, each by one
// switch, and sees that the laws catch it: in made-up worlds within a minute, and
// in a story of a few lines, testdata/upstream/NAME.story, in which without the
// switch every law holds.
func TestUpstreamBugs(t *testing.T) {
	bugs := upstreamDefects()
	if len(bugs) < 10 {
		t.Errorf("%d bugs are re-created, want 10 at least", len(bugs))
	}
	for _, d := range bugs {
		id, _, _ := strings.Cut(d.name, ":")
		file := filepath.Join("testdata", "upstream", strings.ReplaceAll(id, "#", "-")+".story")
		t.Run(id, func(t *testing.T) {
			began := time.Now()
			o, found := caught(d)
			if took := time.Since(began); found.Err == nil || took > soon {
				t.Fatalf("caught after %s: %v; want within %s", took, found.Err, soon)
			}
			t.Logf("seed %d %s: %v", o.Seed, o.Scenario, found.Err)
			if *shrinkFlag {
				writeStory(t, file, d.name, o, found)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			story, err := sim.ParseStory(string(raw))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			_, law, _ := strings.Cut(strings.SplitN(string(raw), "\n", 3)[1], "# breaks law ")
			o.Story = story
			if r := sim.Run(o); r.Law != law {
				t.Errorf("%s breaks law %q (%v), want %q", file, r.Law, r.Err, law)
			}
			if r := sim.Run(sim.Options{Story: story}); r.Err != nil {
				t.Errorf("%s: without the bug a law is broken too: %v", file, r.Err)
			}
		})
	}
}

// caught is the first world in which a defect shows.
func caught(d defect) (sim.Options, sim.Result) {
	scenarios := d.scenarios
	if len(scenarios) == 0 {
		scenarios = sim.Scenarios()
	}
	for seed := uint64(1); seed <= mutationSeeds; seed++ {
		for _, s := range scenarios {
			o := d.options
			o.Seed, o.Scenario = seed, s
			if r := sim.Run(o); r.Err != nil {
				return o, r
			}
		}
	}
	return d.options, sim.Result{}
}

func writeStory(t *testing.T, file, what string, o sim.Options, found sim.Result) {
	t.Helper()
	text := fmt.Sprintf("# %s\n# breaks law %s\n%s", what, found.Law, sim.Shrink(o, found))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
