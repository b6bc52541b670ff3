package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A drain is what became of emptying a node.
type drain struct {
	Seq   state.Seq     `json:"seq"`
	Node  string        `json:"node"`
	Left  []string      `json:"left"`            // pods that were there and are gone
	Stay  []string      `json:"stay,omitempty"`  // of DaemonSets, or ended
	There []string      `json:"there,omitempty"` // that should go still
	Held  []report.Hold `json:"held,omitempty"`  // what keeps them, or their successors
	Done  bool          `json:"done"`
}

func (c *cli) drainCommand() *cobra.Command {
	var why string
	var timeout time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "move a node's pods elsewhere, within disruption budgets; uncordon ends it", Args: args(cobra.ExactArgs(1)),
		Long: `drain cordons a node and has its pods made elsewhere: within the PodDisruptionBudgets that cover them, else within
their workload's own update budget. Pods of DaemonSets stay. It waits and tells what goes and what keeps the rest; when it
gives up, the node stays cordoned, and its pods go on leaving as budgets let them.`,
		Example: `  tandem node drain linux-1 --timeout 10m --reason "new disk"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.drain(cmd.Context(), args[0], why, timeout, wait)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after `DURATION`: exit status 1; 0: never")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until its pods are gone")
	reason(cmd, &why)
	return cmd
}

func (c *cli) drain(ctx context.Context, node, why string, timeout time.Duration, wait bool) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	ref := state.Ref{Kind: "Node", Name: node}
	d := &drain{Node: node, Left: []string{}}
	if d.Seq, err = cl.command(ctx, kubeapi.CommandRequest{Verb: state.CmdDrain.String(), Object: ref, Reason: why}); err != nil {
		return err
	}
	progress := io.Discard
	if c.output == "" || c.output == "wide" {
		progress = c.out
	}
	_, _ = fmt.Fprintf(progress, "drain %s: recorded as %d\n", node, d.Seq)
	if wait {
		err = d.watch(ctx, cl, timeout, progress)
	}
	if c.output == "json" || c.output == "yaml" {
		if failure := c.encode(d); failure != nil {
			return failure
		}
	}
	return err
}

// watch tells how the node empties, until it is empty or the time is up.
func (d *drain) watch(ctx context.Context, cl *client, timeout time.Duration, progress io.Writer) error {
	var late <-chan time.Time
	if timeout > 0 {
		late = time.After(timeout)
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	said := map[string]bool{}
	for {
		if err := d.look(ctx, cl); err != nil {
			return err
		}
		d.tell(said, progress)
		if d.Done = len(d.There) == 0; d.Done {
			_, _ = fmt.Fprintf(progress, "%s is drained: %d pods left%s\n", d.Node, len(d.Left), stay(d.Stay))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain %s: %d pods are there still, and go on leaving; the node stays cordoned", d.Node, len(d.There))
		case <-late:
			return fmt.Errorf("drain %s: after %s %d pods are there still: %s; they go when budgets let them, or end it: tandem node uncordon %s --reason …",
				d.Node, timeout, len(d.There), strings.Join(d.There, ", "), d.Node)
		case <-tick.C:
		}
	}
}

// look asks what is on the node.
func (d *drain) look(ctx context.Context, cl *client) error {
	detail, err := cl.detail(ctx, "node/"+d.Node, "")
	if err != nil {
		return err
	}
	status, err := cl.status(ctx, false)
	if err != nil {
		return err
	}
	before := append(slices.Clone(d.There), d.Left...)
	d.Stay, d.There, d.Held = nil, nil, nil
	workloads := map[state.Ref]bool{}
	for i := range detail.Pods {
		p := &detail.Pods[i]
		if p.Workload.Kind == "DaemonSet" || p.Ended {
			d.Stay = append(d.Stay, p.Ref.Name)
			continue
		}
		d.There = append(d.There, p.Ref.Name)
		workloads[p.Workload] = true
	}
	for _, h := range status.Held {
		if workloads[h.Object] {
			d.Held = append(d.Held, h)
		}
	}
	d.Left = []string{}
	for _, name := range before {
		if !slices.Contains(d.There, name) && !slices.Contains(d.Stay, name) && !slices.Contains(d.Left, name) {
			d.Left = append(d.Left, name)
		}
	}
	slices.Sort(d.Left)
	return nil
}

// tell prints what is new.
func (d *drain) tell(said map[string]bool, progress io.Writer) {
	var now []string
	for _, name := range d.There {
		now = append(now, name+" leaves")
	}
	for _, name := range d.Left {
		now = append(now, name+" is gone")
	}
	for i := range d.Held {
		now = append(now, report.Short(d.Held[i].Object)+" waits: "+d.Held[i].Text)
	}
	for _, line := range now {
		if !said[line] {
			said[line] = true
			_, _ = fmt.Fprintf(progress, "  %s\n", line)
		}
	}
}

func stay(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; stay: " + strings.Join(names, ", ")
}
