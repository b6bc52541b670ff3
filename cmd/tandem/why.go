package main

import "github.com/spf13/cobra"

func (c *cli) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why OBJECT", Short: "the causes of an object's state, back to the commit; every node's reason", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem why db-2",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			defer from.Close()
			w, err := from.why(cmd.Context(), args[0], c.namespace)
			if err != nil {
				return err
			}
			return c.print(w)
		},
	}
}
