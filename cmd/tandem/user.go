package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
)

// userCommand makes people known to the controller whose data directory this is.
func (c *cli) userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user COMMAND", Short: "who may use the API: add, list, remove", Args: cobra.ArbitraryArgs, RunE: group, Example: "  tandem user add rita --role release-manager --group release-managers --data /var/lib/tandem"}
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
	list := &cobra.Command{
		Use: "list", Short: "the users that have a token, with their roles and groups", Args: args(cobra.NoArgs),
		Example: "  tandem user list --data /var/lib/tandem",
		RunE: func(*cobra.Command, []string) error {
			if c.data == "" {
				return usageError("user list: give --data, the controller's data directory")
			}
			return c.users()
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"revoke"}, Short: "end a user's token at once, and what it holds open", Args: args(cobra.ExactArgs(1)),
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
	cmd.AddCommand(add, list, remove)
	return cmd
}

// users prints who has a token: in a table, or as JSON.
func (c *cli) users() error {
	store, err := access.Open(c.data)
	if err != nil {
		return err
	}
	all, err := store.Users()
	if err != nil {
		return err
	}
	type line struct {
		Name   string   `json:"name"`
		Role   string   `json:"role"`
		Groups []string `json:"groups,omitempty"`
	}
	lines := []line{}
	for _, u := range all {
		lines = append(lines, line{u.Name, string(u.Role), strings.FieldsFunc(u.Teams, func(r rune) bool { return r == ',' })})
	}
	if c.output == "json" || c.output == "yaml" {
		return c.encode(lines)
	}
	_, _ = fmt.Fprintf(c.out, "%-20s %-16s %s\n", "NAME", "ROLE", "GROUPS")
	for _, l := range lines {
		_, _ = fmt.Fprintln(c.out, strings.TrimRight(fmt.Sprintf("%-20s %-16s %s", l.Name, l.Role, strings.Join(l.Groups, ",")), " "))
	}
	return nil
}
