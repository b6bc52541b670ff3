package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/reconciler/sim"
)

func (c *cli) simCommand() *cobra.Command {
	var seed, count uint64
	var scenario string
	var trace bool
	var span time.Duration
	cmd := &cobra.Command{
		Use: "sim", Short: "live through made-up worlds and check the laws", Hidden: true, Args: args(cobra.NoArgs),
		Example: "  tandem sim --seed 7 --scenario faults --trace",
		RunE: func(cmd *cobra.Command, _ []string) error {
			begun := time.Now()
			for n := uint64(0); ; n++ {
				if over := span == 0 && n >= count || span > 0 && time.Since(begun) > span; over {
					return nil
				}
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				o := sim.Options{Seed: seed + n, Scenario: sim.Scenario(scenario)}
				if trace {
					o.Trace = func(at time.Duration, line string) { _, _ = fmt.Fprintf(c.out, "%14s %s\n", at, line) }
				}
				start := time.Now()
				r := sim.Run(o)
				if c.output != "" {
					if err := c.encode(r); err != nil {
						return err
					}
				} else {
					_, _ = fmt.Fprintf(c.out, "seed %d %s: %d records, %d steps, %s lived in %s, trace %s\n",
						r.Seed, r.Scenario, r.Records, r.Steps, r.Virtual.Round(time.Second), time.Since(start).Round(time.Millisecond), r.Digest)
				}
				if r.Err != nil {
					return fmt.Errorf("seed %d %s: %w\nsee it again: tandem sim --seed %d --scenario %s --trace", r.Seed, r.Scenario, r.Err, r.Seed, r.Scenario)
				}
			}
		},
	}
	fl := cmd.Flags()
	fl.Uint64Var(&seed, "seed", 1, "the first `SEED`")
	fl.Uint64Var(&count, "count", 1, "how many seeds")
	fl.DurationVar(&span, "for", 0, "go on with further seeds for this `DURATION`")
	fl.StringVar(&scenario, "scenario", string(sim.Faults), "calm, faults or partition")
	fl.BoolVar(&trace, "trace", false, "print what happens")
	return cmd
}
