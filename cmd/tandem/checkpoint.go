package main

import (
	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
)

func (c *cli) historyCheckpointCommand() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "the log's signed head, to be kept elsewhere and given to verify --seen", Args: args(cobra.NoArgs),
		Example: "  tandem history checkpoint --data /var/lib/tandem > kept",
		RunE: func(*cobra.Command, []string) error {
			if c.data == "" {
				return usageError("history checkpoint wants --data DIR; a running controller is not disturbed")
			}
			data, err := serve.OpenData(c.data, true)
			if err != nil {
				return err
			}
			defer data.Store.Close()
			text, err := data.Store.Checkpoint()
			if err != nil {
				return err
			}
			_, err = c.out.Write(text)
			return err
		},
	}
}
