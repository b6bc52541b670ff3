package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status [OBJECT]", Short: "applications, workloads, nodes; what is waited for; what is held", Args: args(cobra.MaximumNArgs(1)),
		Long:    "Status says what runs and what is waited for. With -o json and no OBJECT it has an inventory too,\nfor those who may plan: what `tandem plan --inventory` needs to plan without the controller.",
		Example: "  tandem status deploy/web\n  tandem status --watch",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			defer from.Close()
			show := func(ctx context.Context) error {
				if len(args) == 1 {
					d, err := from.detail(ctx, args[0], c.namespace)
					if err != nil {
						return err
					}
					return c.print(d)
				}
				s, err := from.status(ctx, c.output == "json" && !watch)
				if err != nil {
					return err
				}
				return c.print(s)
			}
			if !watch {
				return show(cmd.Context())
			}
			return c.watch(cmd.Context(), from, show)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever something has changed")
	return cmd
}

// watch shows something, and again when the log has grown, at most once a second.
func (c *cli) watch(ctx context.Context, from reader, show func(context.Context) error) error {
	if _, ok := from.(*client); !ok {
		return errors.New("the controller is stopped: there is nothing to watch")
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var seen uint64
	for {
		s, err := from.status(ctx, false)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if uint64(s.Seq) != seen {
			if seen != 0 && c.output == "" {
				_, _ = fmt.Fprintln(c.out)
			}
			seen = uint64(s.Seq)
			if err := show(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
