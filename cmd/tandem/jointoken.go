package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

func (c *cli) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token COMMAND", Short: "join tokens of a controller: create, list, revoke", Args: cobra.ArbitraryArgs, RunE: group,
		Long: `Join tokens buy machines their first certificate. The controller records who makes,
revokes and uses them (tandem history), and keeps their secret as a hash only.`,
		Example: "  tandem agent token create --data /var/lib/tandem/shop",
	}
	cmd.AddCommand(c.tokenCreate(), c.tokenList(), c.tokenRevoke())
	return cmd
}

func (c *cli) tokenCreate() *cobra.Command {
	var life time.Duration
	var in kubeapi.JoinTokenRequest
	var node string
	cmd := &cobra.Command{
		Use: "create", Short: "make a join token; it is shown once", Args: args(cobra.NoArgs), Example: "  tandem agent token create --for 1h --uses 3 --reason 'rack 7'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.recorder(cmd.Context())
			if err != nil {
				return err
			}
			in.For, in.Node = life.String(), state.NodeName(node)
			var out kubeapi.JoinTokenAnswer
			if err := errors.Join(cl.ask(cmd.Context(), http.MethodPost, "/tandem/v1/jointokens", nil, in, &out), cl.Close()); err != nil {
				return err
			}
			if c.output == "json" || c.output == "yaml" {
				return c.encode(out)
			}
			_, err = fmt.Fprintln(c.out, out.Token)
			return err
		},
	}
	cmd.Flags().DurationVar(&life, "for", time.Hour, "how long it is good, `DURATION`")
	cmd.Flags().IntVar(&in.Uses, "uses", 1, "how many machines may join with it; 0: any number")
	cmd.Flags().StringVar(&node, "node", "", "the only `NODE` that it is for")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why, for the record, `TEXT`")
	return cmd
}

func (c *cli) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "the tokens that are still good", Args: args(cobra.NoArgs), Example: "  tandem agent token list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.recorder(cmd.Context())
			if err != nil {
				return err
			}
			var good []join.Token
			if err := errors.Join(cl.ask(cmd.Context(), http.MethodGet, "/tandem/v1/jointokens", nil, nil, &good), cl.Close()); err != nil {
				return err
			}
			if c.output == "json" || c.output == "yaml" {
				return c.encode(good)
			}
			_, _ = fmt.Fprintf(c.out, "%-10s %-20s %-20s %-6s %-12s %s\n", "ID", "MADE", "EXPIRES", "USES", "BY", "NODE")
			for _, g := range good {
				left := fmt.Sprint(g.Uses)
				if g.Many {
					left = "any"
				}
				_, _ = fmt.Fprintf(c.out, "%-10s %-20s %-20s %-6s %-12s %s\n", g.ID, g.Made.UTC().Format(time.DateTime), g.Expires.UTC().Format(time.DateTime), left, g.By, g.Node)
			}
			return nil
		},
	}
}

func (c *cli) tokenRevoke() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "make a token worthless", Args: args(cobra.ExactArgs(1)), Example: "  tandem agent token revoke 4f1c0a2b --reason 'it was mailed'",
		RunE: func(cmd *cobra.Command, ids []string) error {
			cl, err := c.recorder(cmd.Context())
			if err != nil {
				return err
			}
			return errors.Join(cl.ask(cmd.Context(), http.MethodDelete, "/tandem/v1/jointokens/"+url.PathEscape(ids[0]), url.Values{"reason": {reason}}, nil, &struct{}{}), cl.Close())
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record, `TEXT`")
	return cmd
}

// recorder is the running controller: what is done with join tokens is recorded
// in its log.
func (c *cli) recorder(ctx context.Context) (*client, error) {
	cl, err := c.connect(ctx)
	if errors.Is(err, errNoServer) {
		return nil, fmt.Errorf("%w: what is done with join tokens is recorded by the controller; start it first: tandem controller REPO|DIR --data DIR", err)
	}
	return cl, err
}
