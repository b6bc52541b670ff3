package main

import (
	"fmt"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/reconciler/history"
)

func (c *cli) historyKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "the keys that sign the log", Args: args(cobra.NoArgs),
		Long: `The log's first public key, log.pub, is its identity for ever. Where another signs
since, log.keys says so, each statement signed with the key before: who has the first
key, or any later one, needs no other. What a replaced key signs for a longer log than
it had then is refused.`,
		Example: "  tandem history key --data /var/lib/tandem",
		RunE: func(*cobra.Command, []string) error {
			if c.data == "" {
				return usageError("history key wants --data DIR, or a bundle; a running controller is not disturbed")
			}
			a, err := audit.Open(c.data)
			if err != nil {
				return err
			}
			defer a.Close()
			return c.keys(a.Store.Keys())
		},
	}
	cmd.AddCommand(c.historyKeyRotateCommand())
	return cmd
}

func (c *cli) keys(keys []history.Key) error {
	if c.output == "json" || c.output == "yaml" {
		return c.encode(keys)
	}
	for _, k := range keys {
		_, _ = fmt.Fprintf(c.out, "from record %s: %s\n", thousands(uint64(k.After+1)), k.Public)
	}
	return nil
}

func (c *cli) historyKeyRotateCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "rotate", Short: "give the log another signing key; the old one is destroyed", Args: args(cobra.NoArgs),
		Long: `Rotate makes another signing key. A record, the last that the old key signs, names the
new one; then the old one is removed from this directory. The controller must be
stopped: pods run on meanwhile, and its next start signs with the new key. Nobody has to
be given a new public key. Where the old key may be in other hands, take a checkpoint
from somewhere else first (notes in a repository, agents, an earlier bundle) and verify
the log against it: what was signed before is good only as far as that.`,
		Example: "  tandem history key rotate --reason \"yearly\" --data /var/lib/tandem",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case c.data == "":
				return usageError("key rotate wants --data DIR")
			case reason == "":
				return usageError("key rotate leaves a record: give --reason")
			}
			keys, err := audit.RotateKey(cmd.Context(), c.data, localUser(), reason)
			if err != nil {
				return err
			}
			return c.keys(keys)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

// localUser is who runs this command on this machine.
func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
