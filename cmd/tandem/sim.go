package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/reconciler/sim"
)

// simFlags are what `tandem sim` is asked.
type simFlags struct {
	seed, count uint64
	scenario    string
	story       string
	span        time.Duration
	trace       bool
	whole       bool
	print       bool
}

func (c *cli) simCommand() *cobra.Command {
	var f simFlags
	cmd := &cobra.Command{
		Use: "sim", Short: "live through made-up worlds and check the laws", Hidden: true, Args: args(cobra.NoArgs),
		Long: "sim lives through worlds in which everything breaks, and checks every law after each step.\n\n" +
			"A scenario says what breaks: a name (" + scenarioNames() + ") or a file. With a seed it becomes a story; " +
			"a story that breaks a law is shrunk to the few lines that it takes, and --story lives through them again.",
		Example: "  tandem sim --seed 7 --scenario faults --trace\n  tandem sim --for 1h\n  tandem sim --scenario ./mine.scenario --count 100\n  tandem sim --story failing.story",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.sim(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.Uint64Var(&f.seed, "seed", 1, "the first `SEED`")
	fl.Uint64Var(&f.count, "count", 1, "how many seeds")
	fl.DurationVar(&f.span, "for", 0, "go on with further seeds for this `DURATION`, through all scenarios unless one is named")
	fl.StringVar(&f.scenario, "scenario", "", "a `NAME` or a file (default: faults; with --for: each in turn)")
	fl.StringVar(&f.story, "story", "", "live through the story in this `FILE`")
	fl.BoolVar(&f.trace, "trace", false, "print what happens")
	fl.BoolVar(&f.whole, "no-shrink", false, "print a failing story as it is")
	fl.BoolVar(&f.print, "print", false, "print the story that the seed makes, and live through nothing")
	return cmd
}

func scenarioNames() string {
	var names []string
	for _, s := range sim.Scenarios() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// worlds are the options of each world in turn.
func (f *simFlags) worlds() (func(n uint64) sim.Options, error) {
	if f.story != "" {
		raw, err := os.ReadFile(f.story)
		if err != nil {
			return nil, err
		}
		story, err := sim.ParseStory(string(raw))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.story, err)
		}
		return func(uint64) sim.Options {
			return sim.Options{Seed: story.Seed, Scenario: sim.Scenario(f.story), Story: story}
		}, nil
	}
	named := []sim.Scenario{sim.Scenario(f.scenario)}
	if f.scenario == "" {
		named[0] = sim.Faults
		if f.span > 0 {
			named = sim.Scenarios()
		}
	}
	var cast *sim.Cast
	if raw, err := os.ReadFile(f.scenario); err == nil {
		if cast, err = sim.ParseScenario(string(raw)); err != nil {
			return nil, fmt.Errorf("%s: %w", f.scenario, err)
		}
	} else if _, err := named[0].Text(); err != nil {
		return nil, fmt.Errorf("--scenario: %w, and no file of that name", err)
	}
	return func(n uint64) sim.Options {
		count := uint64(len(named))
		return sim.Options{Seed: f.seed + n/count, Scenario: named[n%count], Cast: cast}
	}, nil
}

func (c *cli) sim(cmd *cobra.Command, f *simFlags) error {
	world, err := f.worlds()
	if err != nil {
		return err
	}
	if f.span > 0 && (f.trace || f.print) {
		return usageError("sim: --for lives through many worlds side by side; --trace and --print are for one: name its --seed and --scenario")
	}
	if f.span > 0 {
		return c.simFor(cmd.Context(), f, world)
	}
	begun := time.Now()
	var lived time.Duration
	for n := uint64(0); ; n++ {
		if n >= f.count {
			if f.count > 1 {
				c.simRate(n, lived, time.Since(begun))
			}
			return nil
		}
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		o := world(n)
		if f.print {
			story, err := sim.Write(o.Seed, o.Scenario, o.Cast)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprint(c.out, story)
			continue
		}
		if f.trace {
			o.Trace = sim.Print(c.out)
		}
		start := time.Now()
		r := sim.Run(o)
		lived += r.Virtual
		if err := c.simResult(f, o, r, time.Since(start)); err != nil {
			return err
		}
	}
}

// simFor lives through worlds for a while, one on each processor, and tells of
// them in their order.
func (c *cli) simFor(ctx context.Context, f *simFlags, world func(uint64) sim.Options) error {
	debug.SetGCPercent(400) // a world is small and soon over
	begun, told := time.Now(), time.Now()
	var lived time.Duration
	n := uint64(0)
	for time.Since(begun) < f.span {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A few for each processor: some worlds take longer than others.
		results := make([]sim.Result, 4*runtime.GOMAXPROCS(0))
		next := atomic.Uint64{}
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for i := next.Add(1) - 1; i < uint64(len(results)); i = next.Add(1) - 1 {
					results[i] = sim.Run(world(n + i))
				}
			})
		}
		workers.Wait()
		for i, r := range results {
			lived += r.Virtual
			if err := c.simResult(f, world(n+uint64(i)), r, 0); err != nil {
				return err
			}
		}
		n += uint64(len(results))
		if time.Since(told) >= 10*time.Second {
			told = time.Now()
			c.simRate(n, lived, time.Since(begun))
		}
	}
	c.simRate(n, lived, time.Since(begun))
	return nil
}

// simResult prints what came of one world; a failing one is shrunk.
func (c *cli) simResult(f *simFlags, o sim.Options, r sim.Result, took time.Duration) error {
	if c.output != "" {
		if err := c.encode(r); err != nil {
			return err
		}
	} else if f.span == 0 {
		_, _ = fmt.Fprintf(c.out, "seed %d %s: %d records, %d steps, %s lived in %s, trace %s\n",
			r.Seed, r.Scenario, r.Records, r.Steps, r.Virtual.Round(time.Second), took.Round(time.Millisecond), r.Digest)
	}
	if r.Err == nil {
		return nil
	}
	if r.Story == nil {
		return r.Err
	}
	story := r.Story
	if !f.whole {
		_, _ = fmt.Fprintf(c.errs, "law %s is broken (%v); the story of %d lines is shrunk\n", r.Law, r.Err, len(story.Lines))
		story = sim.Shrink(o, r)
	}
	_, _ = fmt.Fprintf(c.errs, "\n%s\n", story)
	return fmt.Errorf("seed %d %s: %w\nsee it again: put the story above into a file, tandem sim --story FILE --trace", r.Seed, r.Scenario, r.Err)
}

// simRate prints how fast worlds are lived through.
func (c *cli) simRate(worlds uint64, lived, took time.Duration) {
	_, _ = fmt.Fprintf(c.errs, "%d worlds, %s of simulated time in %s: %.1f worlds/s, %.0f × real time\n",
		worlds, lived.Round(time.Second), took.Round(time.Second), float64(worlds)/took.Seconds(), lived.Seconds()/took.Seconds())
}
