package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// command asks the controller for something that leaves a record.
func (c *cli) command(ctx context.Context, r kubeapi.CommandRequest, what string) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	seq, err := cl.command(ctx, r)
	if err != nil {
		return err
	}
	if c.output == "json" || c.output == "yaml" {
		return c.encode(kubeapi.CommandAnswer{Seq: seq})
	}
	_, err = fmt.Fprintf(c.out, "%s: recorded as %d\n", what, seq)
	return err
}

// reason adds the flag that every command which acts must have.
func reason(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "reason", "", "why, in `WORDS`: kept with the record")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *into == "" {
			return usageError("%s: give --reason", cmd.CommandPath())
		}
		return run(cmd, args)
	}
}

func (c *cli) approveCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "approve HOLD", Short: "let something go on that waits for a person", Args: args(cobra.ExactArgs(1)),
		Example: `  tandem approve h-41c2 --reason "linux can go first"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: state.CmdApprove.String(), Hold: args[0], Reason: why}, "approved "+args[0])
		},
	}
	reason(cmd, &why)
	return cmd
}

func (c *cli) restartCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "restart WORKLOAD", Short: "replace a workload's pods within its budget", Args: args(cobra.ExactArgs(1)),
		Example: `  tandem restart deploy/web --reason "new certificate on disk"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			verb := state.CmdRestart
			if ref.Kind == "Pod" {
				verb = state.CmdDeletePod
			} else if !state.IsWorkload(ref.Kind) {
				return usageError("restart wants a workload or a pod, not %s", ref)
			}
			return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: verb.String(), Object: ref, Reason: why}, "restart "+report.Short(ref))
		},
	}
	reason(cmd, &why)
	return cmd
}

// find asks the controller which object people mean.
func (c *cli) find(ctx context.Context, object string) (state.Ref, error) {
	cl, err := c.connect(ctx)
	if err != nil {
		return state.Ref{}, err
	}
	defer cl.Close()
	d, err := cl.detail(ctx, object, c.namespace)
	if err != nil {
		return state.Ref{}, err
	}
	return d.Ref, nil
}

func (c *cli) syncCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "sync [APPLICATION]", Short: "look at Git now", Args: args(cobra.MaximumNArgs(1)),
		Example: `  tandem sync shop-prod --reason "pushed a fix"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := state.Ref{Kind: "Application", Name: string(state.RootApp)}
			if len(args) == 1 {
				ref.Name = args[0]
			}
			return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: state.CmdSync.String(), Object: ref, Reason: why}, "sync "+ref.Name)
		},
	}
	reason(cmd, &why)
	return cmd
}

func (c *cli) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node COMMAND", Short: "cordon, uncordon, drain, remove", Args: cobra.ArbitraryArgs, RunE: group, Example: `  tandem node cordon linux-1 --reason "new disk"`}
	for _, v := range []struct {
		verb  state.CommandVerb
		use   string
		short string
	}{
		{state.CmdCordon, "cordon", "give a node no new pods"},
		{state.CmdUncordon, "uncordon", "give a node pods again"},
		{state.CmdRemoveNode, "remove", "forget a node that is gone for good, and the pods on it: they must not run there any more"},
	} {
		var why string
		sub := &cobra.Command{
			Use: v.use + " NODE", Short: v.short, Args: args(cobra.ExactArgs(1)), Example: "  tandem node " + v.use + ` linux-1 --reason "new disk"`,
			RunE: func(cmd *cobra.Command, args []string) error {
				ref := state.Ref{Kind: "Node", Name: args[0]}
				return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: v.verb.String(), Object: ref, Reason: why}, v.use+" "+args[0])
			},
		}
		reason(sub, &why)
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(c.drainCommand())
	return cmd
}
