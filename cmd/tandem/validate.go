package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *cli) validateCommand() *cobra.Command {
	var t tree
	cmd := &cobra.Command{
		Use: "validate [REPO|DIR]", Short: "every problem of a path", Args: args(cobra.MaximumNArgs(1)),
		Long:    "Validate renders a path, and the Applications that it declares in the same repository, and tells every problem at once with its place and what to do.",
		Example: "  tandem validate examples/shop",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, where := cmd.Context(), whereOf(args)
			r, err := t.render(ctx, where, c.quiet())
			if err != nil {
				return err
			}
			problems := r.result.Problems
			apps, objects := 1, 0
			if m := r.result.Manifest; m != nil {
				objects += len(m.Objects)
			}
			if t.app == "" {
				for _, a := range r.others {
					one := t
					one.app = string(a.Name)
					ra, err := one.render(ctx, where, c.quiet())
					if err != nil {
						return fmt.Errorf("Application %s: %w", a.Name, err) //nolint:staticcheck // a kind's name
					}
					problems = append(problems, ra.result.Problems...)
					apps++
					if ra.result.Manifest != nil {
						objects += len(ra.result.Manifest.Objects)
					}
				}
			}
			problems = state.SortProblems(problems)
			if c.output == "json" || c.output == "yaml" {
				if problems == nil {
					problems = []state.Problem{}
				}
				if err := c.encode(problems); err != nil {
					return err
				}
			} else {
				for _, p := range problems {
					_, _ = fmt.Fprintf(c.errs, "error: %v\n", p)
				}
			}
			if len(problems) > 0 {
				_, _ = fmt.Fprintf(c.errs, "%d problems in %s\n", len(problems), r.label())
				return failed()
			}
			if c.output == "" {
				_, _ = fmt.Fprintf(c.out, "ok: %s, %d applications, %d objects, no problems\n", r.label(), apps, objects)
			}
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}
