package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
)

// whyLong is what `tandem why --help` explains.
const whyLong = `Why follows an object's state back to the commit that asked for it, with every
node's reason from the scheduler's last answer and what would make a pod fit.

With --at or --seq it answers as of then: from the log alone, with the reasons
that were recorded and the amounts of that time. A pod is named as it was named
then, also one that is gone. With --data it reads the files of a data directory
or of a bundle, also beside a running controller.`

func (c *cli) whyCommand() *cobra.Command {
	var at string
	var seq uint64
	cmd := &cobra.Command{
		Use: "why OBJECT", Short: "the causes of an object's state, back to the commit; every node's reason", Args: args(cobra.ExactArgs(1)),
		Long: whyLong,
		Example: `  tandem why db-2
  tandem why deploy/web --at "2026-11-23 14:05"
  tandem why deploy/web --seq 48121 --data shop.tar`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if cmd.Flags().Changed("seq") && at != "" {
				return usageError("--at and --seq both say when: give one")
			}
			if cmd.Flags().Changed("seq") {
				if at = strconv.FormatUint(seq, 10); seq == 0 {
					return usageError("--seq 0: want the number of a record, from 1")
				}
			} else if cmd.Flags().Changed("at") && at == "" {
				return usageError("--at: want a time, such as 14:05, \"2026-11-23 14:05\" or 2h")
			}
			var w *report.Why
			if at != "" {
				err = c.asking(cmd.Context(), func(p past) error {
					w, err = p.whyThen(cmd.Context(), args[0], c.namespace, at)
					return err
				})
			} else {
				w, err = c.whyNow(cmd, args[0])
			}
			if err != nil {
				return err
			}
			return c.print(w)
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "as of this `TIME`: 14:05, \"2026-11-23 14:05\", 2h (ago)")
	cmd.Flags().Uint64Var(&seq, "seq", 0, "as of this record, `N`")
	return cmd
}

func (c *cli) whyNow(cmd *cobra.Command, object string) (*report.Why, error) {
	from, err := c.open(cmd.Context())
	if err != nil {
		return nil, err
	}
	defer from.Close()
	return from.why(cmd.Context(), object, c.namespace)
}
