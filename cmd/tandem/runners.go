package main

import "github.com/spf13/cobra"

// runners are the commands that run something.
func (c *cli) runners() []*cobra.Command {
	return []*cobra.Command{c.upCommand(), c.downCommand(), c.controllerCommand(), c.agentCommand(), c.simCommand()}
}
