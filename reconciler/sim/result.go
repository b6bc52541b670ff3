package sim

import (
	"fmt"
	"io"
	"time"
)

// String says in a few lines what came of a run and how to live through it
// again.
func (r Result) String() string {
	if r.Err == nil {
		return fmt.Sprintf("seed %d %s: all laws held over %s, %d steps, %d records, trace %s", r.Seed, r.Scenario, r.Virtual.Round(time.Second), r.Steps, r.Records, r.Digest)
	}
	return fmt.Sprintf("seed %d %s: broken: %v\nreplay: %s", r.Seed, r.Scenario, r.Err, r.Replay())
}

// Replay is the command that lives through the world again and prints its trace.
func (r Result) Replay() string {
	return fmt.Sprintf("tandem sim --seed %d --scenario %s --trace", r.Seed, r.Scenario)
}

// Print is a Trace that writes lines: simulated time first.
func Print(to io.Writer) func(time.Duration, string) {
	return func(at time.Duration, line string) { _, _ = fmt.Fprintf(to, "%14s %s\n", at, line) }
}
