package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *cli) historyKeyCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "key", Short: "the keys that sign the log", Args: args(cobra.NoArgs),
		Long: `The log's first public key, log.pub, is its identity for ever. Where another signs
since, log.keys says so, each statement signed with the key before: who has the first
key, or any later one, needs no other. What a replaced key signs for a longer log than
it had then is refused. --out writes log.keys, which goes with a proof.`,
		Example: "  tandem history key\n  tandem history key --data /var/lib/tandem --out log.keys",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.asking(cmd.Context(), func(p past) error {
				v, err := p.keys(cmd.Context())
				if err != nil {
					return err
				}
				if out != "" {
					err = c.writeOut(out, func(w io.Writer) error {
						_, err := io.WriteString(w, v.Chain)
						return err
					})
				}
				return errors.Join(err, c.keys(v.Keys))
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write the chain of keys to")
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
	var why string
	cmd := &cobra.Command{
		Use: "rotate", Short: "give the log another signing key; the old one is destroyed", Args: args(cobra.NoArgs),
		Long: `Rotate makes another signing key. A record, the last that the old key signs, names the
new one; then the old one is removed from the data directory. A running controller does
it itself, for an admin, and goes on; where it is stopped, --data names its directory.
Nobody has to be given a new public key. A key whose file was lost beside a running
controller is replaced as well. Where the old key may be in other hands, take a
checkpoint from somewhere else first (notes in a repository, agents, an earlier bundle)
and verify the log against it: what was signed before is good only as far as that.`,
		Example: "  tandem history key rotate --reason \"yearly\"\n  tandem history key rotate --reason \"yearly\" --data /var/lib/tandem",
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := c.rotateKey(cmd.Context(), why)
			if err != nil {
				return err
			}
			return c.keys(keys)
		},
	}
	reason(cmd, &why)
	return cmd
}

// rotateKey asks the running controller, or does it where none runs.
func (c *cli) rotateKey(ctx context.Context, why string) ([]history.Key, error) {
	cl, err := c.connect(ctx)
	if c.data != "" && c.server == "" && errors.Is(err, errNoServer) {
		return audit.RotateKey(ctx, c.data, localUser(), why)
	}
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if _, err := cl.command(ctx, kubeapi.CommandRequest{Verb: state.CmdRotateKey.String(), Reason: why}); err != nil {
		return nil, err
	}
	v, err := cl.keys(ctx)
	return v.Keys, err
}

// localUser is who runs this command on this machine.
func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
