package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// fencerProgram is how this program starts the fencer of its node.
func fencerProgram() ([]string, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to start its fencer: %w", err)
	}
	return []string{path, "agent", "fence"}, nil
}

// nodePrograms are how this program starts what a node runs beside the agent: its
// fencer, and on Windows a keeper for each container.
func nodePrograms() (fence, keep []string, err error) {
	if fence, err = fencerProgram(); err != nil {
		return nil, nil, err
	}
	return fence, []string{fence[0], "agent", "keep"}, nil
}

// agentKeep is what a Windows agent starts for each container. Nobody else calls
// it.
func (c *cli) agentKeep() *cobra.Command {
	return &cobra.Command{
		Use: "keep", Short: "keep a Windows container's log and exit code", Args: cobra.ArbitraryArgs, Hidden: true, DisableFlagParsing: true,
		Long: `Copy a container's output into its log and write down its exit code, while the agent
is there and while it isn't. The agent starts this process by itself.`,
		Example: "  tandem agent keep ID PID LOG ERRLOG OUTCOME OUT ERR",
		RunE:    func(_ *cobra.Command, list []string) error { return hcs.Keep(list) },
	}
}

// agentFence is what an agent starts beside itself. Nobody else calls it.
func (c *cli) agentFence() *cobra.Command {
	o := fencer.Options{Version: version}
	level := "info"
	cmd := &cobra.Command{
		Use: "fence", Short: "end identities in time when the agent can't", Args: args(cobra.NoArgs), Hidden: true,
		Long: `Guard the identities of a node: end them when the node's lease lapses and the agent
doesn't. The agent starts this process by itself and tells it what to guard.`,
		Example: "  tandem agent fence --dir /run/tandem/0123abcd --group /tandem/n1.0123abcd",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Dir == "" || o.Group == "" {
				return usageError("agent fence: the agent starts this by itself, with --dir and --group")
			}
			var err error
			if o.Logger, err = c.logger(level); err != nil {
				return err
			}
			if o.Cells, err = fenceCells(o.Group); err != nil {
				return err
			}
			return fencer.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "", "`DIR`ectory of the node in memory")
	cmd.Flags().StringVar(&o.Group, "group", "", "control `GROUP` of the node's pods; on Windows the directory of its runtime")
	cmd.Flags().StringVar(&o.Watchdog, "watchdog", os.Getenv("TANDEM_WATCHDOG"), "watchdog `DEVICE` that resets the machine when an identity outlives its lease (TANDEM_WATCHDOG)")
	return cmd
}
