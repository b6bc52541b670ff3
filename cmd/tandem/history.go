package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// filterFlags are the flags that narrow history down, of every command that does.
type filterFlags struct{ app, since, until string }

func (o *filterFlags) add(fl *pflag.FlagSet, f *report.Filter) {
	fl.StringVar(&o.app, "app", "", "only of this Application, `NAME`")
	fl.StringVar(&f.Node, "node", "", "only on this node, or about it, `NAME`")
	fl.StringVar(&f.Kind, "kind", "", "only this `WHAT` or kind of record")
	fl.StringVar(&f.Actor, "actor", "", "only what this `USER` asked for")
	fl.StringVar(&f.Commit, "commit", "", "only while this commit ran in the record's application: `HASH`, or its beginning")
	fl.StringVar(&f.Outcome, "outcome", "", "only with this `OUTCOME`; bad: whatever went wrong, or waits")
	fl.StringVar(&o.since, "since", "", "not before `TIME`: today, 14:05, \"2026-11-23 14:05\", 2h")
	fl.StringVar(&o.until, "until", "", "not after `TIME`")
}

// read puts what was given into the filter.
func (o *filterFlags) read(f *report.Filter) (err error) {
	f.App = state.AppName(o.app)
	if f.Since, err = report.ParseTime(o.since, time.Now()); err != nil {
		return usageError("--since %w", err)
	}
	if f.Until, err = report.ParseTime(o.until, time.Now()); err != nil {
		return usageError("--until %w", err)
	}
	if err := f.Check(); err != nil {
		return usageError("--%w", err)
	}
	return nil
}

func (c *cli) historyCommand() *cobra.Command {
	var f report.Filter
	var only filterFlags
	cmd := &cobra.Command{
		Use: "history [OBJECT]", Short: "what happened, newest first", Args: args(cobra.MaximumNArgs(1)),
		Long: `History lists records, a line each. Filters narrow it down, all of them at once: what a
record is about (OBJECT, --app, --node), who asked (--actor), which commit ran in its
application then (--commit), when, which kind of record, and how it ended (--outcome: a
word as in that column, or bad: whatever went wrong, or waits).`,
		Example: `  tandem history --app shop-prod --since today
  tandem history deploy/web --node windows-1 --since "2026-11-23 14:00" --until 15:00
  tandem history --commit 3f2a91c --outcome bad
  tandem history --actor rita --kind request -o json
  tandem history --follow
  tandem history show 48121`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.Object = args[0]
			}
			if err := only.read(&f); err != nil {
				return err
			}
			return c.history(cmd, f)
		},
	}
	fl := cmd.Flags()
	only.add(fl, &f)
	fl.IntVar(&f.Limit, "limit", 100, "at most the newest `N`; 0: all")
	fl.BoolVarP(&f.Follow, "follow", "f", false, "go on with what happens")
	fl.BoolVar(&f.All, "all", false, "also the scheduler's answers")
	cmd.AddCommand(
		c.historyShowCommand(), c.historyAtCommand(), c.historyDiffCommand(), c.historyExportCommand(), c.historyProveCommand(), c.historyCheckpointCommand(),
		c.historyBackupCommand(), c.historyRestoreCommand(), c.historyEraseCommand(), c.historyKeyCommand(), c.historyStatsCommand(),
	)
	return cmd
}

func (c *cli) history(cmd *cobra.Command, f report.Filter) error {
	from, err := c.open(cmd.Context())
	if err != nil {
		return err
	}
	defer from.Close()
	if f.Follow {
		first := true
		return from.history(cmd.Context(), f, func(l report.Line) error {
			defer func() { first = false }()
			if c.output == "json" {
				return json.NewEncoder(c.out).Encode(l)
			}
			report.Lines(c.out, []report.Line{l}, first)
			return nil
		})
	}
	lines := []report.Line{}
	if err := from.history(cmd.Context(), f, func(l report.Line) error {
		lines = append(lines, l)
		return nil
	}); err != nil {
		return err
	}
	slices.Reverse(lines)
	if c.output == "json" || c.output == "yaml" {
		return c.encode(lines)
	}
	report.Lines(c.out, lines, true)
	return nil
}

func (c *cli) historyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show SEQ", Short: "one record and what led to it", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem history show 48121",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || n == 0 {
				return usageError("record %q: want a number from 1", args[0])
			}
			from, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			defer from.Close()
			var chain []report.Line
			for at := state.Seq(n); at != 0; {
				var line *report.Line
				if err := from.history(cmd.Context(), report.Filter{All: true, From: at, To: at}, func(l report.Line) error {
					line = &l
					return nil
				}); err != nil {
					return err
				}
				if line == nil {
					break
				}
				chain = append(chain, *line)
				if line.Cause >= at {
					break
				}
				at = line.Cause
			}
			if len(chain) == 0 {
				return fmt.Errorf("there is no record %d", n)
			}
			if c.output == "json" || c.output == "yaml" {
				return c.encode(chain)
			}
			report.Lines(c.out, chain, true)
			return nil
		},
	}
}
