package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/reconciler/history"
)

func (c *cli) historyBackupCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "backup", Short: "a copy from which a controller can go on, with its keys", Args: args(cobra.NoArgs),
		Long: `Backup writes the data directory of --data as of its newest checkpoint, also beside a
running controller: the log, what lies beside it, keys, certificates and users. Who has
the file has the keys.`,
		Example: "  tandem history backup --data /var/lib/tandem --out tandem-backup.tar",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.data == "" || out == "" {
				return usageError("backup wants --data DIR and --out FILE")
			}
			var head history.Head
			if err := c.writeOut(out, func(w io.Writer) (err error) {
				head, err = audit.Backup(cmd.Context(), c.data, w)
				return err
			}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.out, "backed up %s records, tree %s…, to %s\n", thousands(uint64(head.Seq)), head.Root.Short(), out)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write")
	return cmd
}

func (c *cli) historyRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "a data directory from a backup, verified", Args: args(cobra.ExactArgs(1)),
		Long: `Restore unpacks a backup into --data, which must be missing or empty, and verifies it.
Records that the lost controller made after the backup stay lost; nodes that were told
of them refuse the restored one, so that no two histories go on from one point.`,
		Example: "  tandem history restore tandem-backup.tar --data /var/lib/tandem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.data == "" {
				return usageError("restore wants --data DIR: where to")
			}
			r, err := audit.Restore(cmd.Context(), args[0], c.data)
			if err != nil {
				return err
			}
			if !r.OK() {
				return c.verified(r)
			}
			_, err = fmt.Fprintf(c.out, `restored %s: %s records, tree %s…, verified
   note: what was recorded after record %d is not in it. A node that was told of later records
         refuses this controller until its own data directory is removed and it joins again;
         whoever keeps a later checkpoint sees it: tandem verify %s --seen FILE
   note: never start the old directory again beside this one: they would be two histories
`, c.data, thousands(uint64(r.Head.Seq)), r.Head.Root.Short(), r.Head.Seq, c.data)
			return err
		},
	}
}

func (c *cli) historyEraseCommand() *cobra.Command {
	var person, reason string
	cmd := &cobra.Command{
		Use: "erase [TOKEN]", Short: "destroy words beside the log, such as a person's name; the records stay provable", Args: args(cobra.MaximumNArgs(1)),
		Long: `Erase destroys the words of one text, by the token that exports and show -o json name it
by, or all words that mention a person. The log holds only salted digests of words, so
every record, proof and checkpoint stays as it is. The controller must be stopped. Who
erased, when and why is a record. Backups and bundles made before still hold the words.`,
		Example: "  tandem history erase --person ada@shop.example --reason \"asked by the person\" --data /var/lib/tandem",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case c.data == "":
				return usageError("erase wants --data DIR")
			case (len(args) == 1) == (person != ""):
				return usageError("erase wants a TOKEN or --person, one of them")
			case reason == "":
				return usageError("erase leaves a record: give --reason")
			}
			what := person
			if len(args) == 1 {
				what = args[0]
			}
			done, err := audit.Erase(cmd.Context(), c.data, what, person != "", localUser(), reason)
			if err != nil {
				return err
			}
			if c.output == "json" || c.output == "yaml" {
				return c.encode(done)
			}
			for _, e := range done {
				_, _ = fmt.Fprintf(c.out, "erased %s, record %d\n", e.Token, e.Seq)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "all words that mention this `NAME` or address")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record; it must not name the person")
	return cmd
}
