package sim

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run only this seed, and print its trace")
	scenFlag = flag.String("scenario", "", "with -seed: run only this scenario")
)

func seeds() uint64 {
	if s := os.Getenv("TANDEM_SIM_SEEDS"); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
	}
	return 300
}

func TestSeeds(t *testing.T) {
	for _, scenario := range Scenarios() {
		if *scenFlag != "" && *scenFlag != string(scenario) {
			continue
		}
		t.Run(string(scenario), func(t *testing.T) {
			t.Parallel()
			n := max(1, seeds()/3)
			for seed := uint64(1); seed <= n; seed++ {
				opts := Options{Seed: seed, Scenario: scenario}
				if *seedFlag != 0 {
					opts.Seed = *seedFlag
					opts.Trace = func(at time.Duration, line string) { fmt.Printf("%12s %s\n", at, line) }
				}
				first := Run(opts)
				if first.Err != nil {
					t.Fatalf("seed %d %s: %v\nreplay: go test ./reconciler/sim -run TestSeeds -seed %d -scenario %s", opts.Seed, scenario, first.Err, opts.Seed, scenario)
				}
				if *seedFlag != 0 {
					t.Logf("%+v", first)
					return
				}
				if again := Run(opts); again.Digest != first.Digest {
					t.Fatalf("seed %d %s: two runs differ: %s and %s", seed, scenario, first.Digest, again.Digest)
				}
			}
		})
	}
}
