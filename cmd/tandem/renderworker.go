package main

import (
	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/render/worker"
)

// renderProgram is how this program starts the workers that render.
func renderProgram() []string { return []string{"", "render-worker"} }

// renderWorker is what renders run in. Nobody else calls it.
func (c *cli) renderWorker() *cobra.Command {
	return &cobra.Command{
		Use: "render-worker", Short: "render in a process that reaches nothing", Args: args(cobra.NoArgs), Hidden: true,
		Long: `Render what comes in on standard input, within limits of memory and time, without
opening a file, dialing or running a program. Tandem starts this process by itself.`,
		Example: "  tandem render-worker",
		RunE: func(*cobra.Command, []string) error {
			return worker.Serve(c.in, c.out, worker.Overlay)
		},
	}
}
