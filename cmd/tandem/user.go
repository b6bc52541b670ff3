package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
)

// userCommand makes people known to the controller whose data directory this is.
func (c *cli) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user COMMAND", Short: "who may use the API: add, remove", Args: cobra.ArbitraryArgs, RunE: group, Example: "  tandem user add rita --role release-manager --group release-managers --data /var/lib/tandem"}
	var role string
	var groups []string
	add := &cobra.Command{
		Use: "add NAME", Short: "print a token for a user; the one that they had ends", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem user add rita --role release-manager --group release-managers --data /var/lib/tandem",
		RunE: func(_ *cobra.Command, args []string) error {
			if c.data == "" {
				return usageError("user add: give --data, the controller's data directory")
			}
			store, err := access.Open(c.data)
			if err != nil {
				return err
			}
			token, err := store.Issue(access.User{Name: args[0], Role: access.Role(role), Teams: strings.Join(groups, ",")})
			if err != nil {
				return usageError("%w", err)
			}
			_, err = fmt.Fprintln(c.out, token)
			return err
		},
	}
	add.Flags().StringVar(&role, "role", string(access.Viewer), "`ROLE`: viewer, auditor, release-manager, operator or admin")
	add.Flags().StringSliceVar(&groups, "group", nil, "`GROUP` that approvals name as group:GROUP")
	remove := &cobra.Command{
		Use: "remove NAME", Short: "end a user's token at once, and what it holds open", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem user remove rita --data /var/lib/tandem",
		RunE: func(_ *cobra.Command, args []string) error {
			if c.data == "" {
				return usageError("user remove: give --data, the controller's data directory")
			}
			store, err := access.Open(c.data)
			if err != nil {
				return err
			}
			return store.Revoke(args[0])
		},
	}
	cmd.AddCommand(add, remove)
	return cmd
}
