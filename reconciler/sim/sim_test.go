package sim

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run only this seed, and print its trace")
	scenFlag = flag.String("scenario", "", "with -seed: run only this scenario")
)

// TestMain lets garbage lie: a world is small and soon over.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// seeds is how many worlds are lived through, over all scenarios.
func seeds() uint64 {
	if s := os.Getenv("TANDEM_SIM_SEEDS"); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
	}
	return 300
}

// TestSeeds lives through each world twice: no law is broken, and both traces
// are the same.
func TestSeeds(t *testing.T) {
	kept := keptSeeds(t)
	for _, scenario := range Scenarios() {
		if *scenFlag != "" && *scenFlag != string(scenario) {
			continue
		}
		t.Run(string(scenario), func(t *testing.T) {
			t.Parallel()
			if *seedFlag != 0 {
				print := func(at time.Duration, line string) { fmt.Printf("%12s %s\n", at, line) }
				twice(t, Options{Seed: *seedFlag, Scenario: scenario, Trace: print})
				return
			}
			for _, seed := range kept[scenario] {
				twice(t, Options{Seed: seed, Scenario: scenario})
			}
			n := max(1, seeds()/uint64(len(Scenarios())))
			for seed := uint64(1); seed <= n && !t.Failed(); seed++ {
				twice(t, Options{Seed: seed, Scenario: scenario})
			}
		})
	}
}

func twice(t *testing.T, opts Options) {
	t.Helper()
	first := Run(opts)
	if first.Err != nil {
		story := "" // what a world of one's own asking is, one knows
		if first.Story != nil && *seedFlag == 0 {
			story = "\n" + Shrink(opts, first).String()
		}
		t.Errorf("%s%s", first, story)
		return
	}
	opts.Unchecked, opts.Trace = true, nil
	if again := Run(opts); again.Digest != first.Digest {
		t.Errorf("seed %d %s: two runs differ: %s and %s", opts.Seed, opts.Scenario, first.Digest, again.Digest)
	}
}

// keptSeeds are the worlds of testdata/seeds.txt.
func keptSeeds(t *testing.T) map[Scenario][]uint64 {
	t.Helper()
	f, err := os.Open("testdata/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[Scenario][]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		seed, err := strconv.ParseUint(words[len(words)-1], 10, 64)
		if err != nil || len(words) != 2 || !slices.Contains(Scenarios(), Scenario(words[0])) {
			t.Fatalf("testdata/seeds.txt: want a scenario and a seed, got %q", lines.Text())
		}
		out[Scenario(words[0])] = append(out[Scenario(words[0])], seed)
	}
	return out
}
