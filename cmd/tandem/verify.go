package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *cli) verifyCommand() *cobra.Command {
	var key, seen string
	var every bool
	cmd := &cobra.Command{
		Use: "verify [DIR]", Short: "check a data directory, offline", Args: args(cobra.MaximumNArgs(1)),
		Long:    "Verify reads every record, recomputes the Merkle tree, folds the records to a state, and checks the signed checkpoint and what lies beside the log.",
		Example: "  tandem verify --data /var/lib/tandem --key tandem.pub",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := c.data
			if len(args) == 1 {
				dir = args[0]
			}
			if dir == "" {
				return usageError("verify wants a data directory: tandem verify DIR, or --data DIR")
			}
			o := history.VerifyOptions{Every: every}
			if key != "" {
				raw, err := os.ReadFile(key)
				if err != nil {
					return fmt.Errorf("read the key: %w", err)
				}
				o.PublicKey = strings.TrimSpace(string(raw))
			}
			if seen != "" {
				raw, err := os.ReadFile(seen)
				if err != nil {
					return fmt.Errorf("read the checkpoint: %w", err)
				}
				o.Seen = raw
			}
			// What is damaged may not open; then Verify says so in its own words.
			if data, err := serve.OpenData(dir, true); err == nil {
				defer data.Store.Close()
				o.Record = state.New(data.Library).Apply
			}
			r, err := history.Verify(cmd.Context(), dir, o)
			if err != nil {
				return err
			}
			return c.verified(r)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "`FILE` with the log's public key, kept elsewhere")
	cmd.Flags().StringVar(&seen, "seen", "", "`FILE` with a checkpoint that was kept elsewhere: the log must lead on from it")
	cmd.Flags().BoolVar(&every, "every", false, "check the signature of every batch")
	return cmd
}

func (c *cli) verified(r *history.Report) error {
	if c.output == "json" || c.output == "yaml" {
		if err := c.encode(r); err != nil {
			return err
		}
	} else if r.OK() {
		_, _ = fmt.Fprintf(c.out, "ok: %d records, %d files, %d signatures; checkpoint %d, tree %s; nothing missing from 1 to %d\n",
			r.Records, r.Files, r.Signatures, r.Head.Seq, r.Head.Root.Short(), r.Head.Seq)
		for _, n := range r.Notes {
			_, _ = fmt.Fprintf(c.out, "   note: %s\n", n)
		}
		for _, n := range r.NotChecked {
			_, _ = fmt.Fprintf(c.out, "   not checked: %s\n", n)
		}
	}
	if r.OK() {
		return nil
	}
	for i := range r.Findings {
		_, _ = fmt.Fprintf(c.errs, "damaged: %v\n", &r.Findings[i])
	}
	return failed()
}
