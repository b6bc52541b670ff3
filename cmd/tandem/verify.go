package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *cli) verifyCommand() *cobra.Command {
	var key, seen, witness, chain string
	var every bool
	cmd := &cobra.Command{
		Use: "verify [DIR|BUNDLE|PROOF]", Short: "check a data directory, bundle or proof, offline", Args: args(cobra.MaximumNArgs(1)),
		Long: `Verify reads every record, recomputes the Merkle tree, checks the signed checkpoint,
folds the records anew, and holds snapshots, manifests, templates and words against
them. Of a proof it checks the one record. It needs no server and no network.`,
		Example: `  tandem verify --data /var/lib/tandem --key tandem.pub
  tandem verify shop-bundle.tar --key tandem.pub
  tandem verify shop-bundle.tar --key tandem.pub --witness https://git.example/shop.git
  tandem verify record-48121.proof --key tandem.pub
  tandem verify record-48121.proof --key tandem.pub --chain log.keys`,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := c.data
			if len(args) == 1 {
				path = args[0]
			}
			if path == "" {
				return usageError("verify wants a data directory, a bundle or a proof: tandem verify DIR, or --data DIR")
			}
			o := audit.Options{Every: every}
			for file, into := range map[string]func([]byte){
				chain: func(raw []byte) { o.Chain = raw },
				key:   func(raw []byte) { o.PublicKey = strings.TrimSpace(string(raw)) },
				seen:  func(raw []byte) { o.Seen = bytes.TrimRight(raw, "\x00") },
			} {
				if file == "" {
					continue
				}
				raw, err := os.ReadFile(file)
				if err != nil {
					return fmt.Errorf("read what to compare with: %w", err)
				}
				into(raw)
			}
			if witness != "" {
				var err error
				if o.Witnessed, err = audit.Witnesses(cmd.Context(), witness); err != nil {
					return err
				}
			}
			return c.verify(cmd.Context(), path, o)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&key, "key", "", "`FILE` with the log's public key, kept elsewhere")
	fl.StringVar(&chain, "chain", "", "`FILE` with the chain of keys (log.keys) from the one of --key on, for a proof that a later one signed")
	fl.StringVar(&seen, "seen", "", "`FILE` with an earlier checkpoint, kept elsewhere: tells an old copy and another history")
	fl.StringVar(&witness, "witness", "", "`REPO` whose notes at refs/notes/tandem/ hold earlier checkpoints: a path or URL")
	fl.BoolVar(&every, "every", false, "check the signature of every batch")
	return cmd
}

func (c *cli) verify(ctx context.Context, path string, o audit.Options) error {
	proof, err := readProof(path)
	if err != nil {
		return err
	}
	if proof != nil {
		return c.verifyProof(proof, o)
	}
	r, err := audit.Verify(ctx, path, o)
	if err != nil {
		return err
	}
	return c.verified(r)
}

// readProof is the content of a file that is a proof, nil of anything else.
func readProof(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer f.Close()
	head := make([]byte, len(history.ProofHeader))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != history.ProofHeader {
		return nil, nil
	}
	rest, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read the proof: %w", err)
	}
	return append(head, rest...), nil
}

func (c *cli) verifyProof(text []byte, o audit.Options) error {
	key := o.PublicKey
	if key == "" {
		return usageError("a proof is checked with the log's public key: --key FILE")
	}
	p, err := history.VerifyProof(text, key, o.Chain)
	if err != nil {
		return fmt.Errorf("the proof does not hold: %w", err)
	}
	raw, err := history.JSON(p.Record, nil)
	if err != nil {
		return err
	}
	if c.output == "json" {
		_, err = fmt.Fprintf(c.out, "%s\n", raw)
		return err
	}
	words := func(t state.Text) string {
		if t.IsZero() {
			return ""
		}
		return "(words are not in a proof)"
	}
	_, _ = fmt.Fprintf(c.out, "ok: record %s is in the log of %s records, checkpoint signed by %s, tree %s…\n",
		thousands(uint64(p.Record.Seq)), thousands(uint64(p.Checkpoint.Seq)), p.Signer, p.Checkpoint.Root.Short())
	teller := report.NewTeller(nil, words)
	report.Lines(c.out, []report.Line{teller.Tell(p.Record)}, true)
	_, err = fmt.Fprintf(c.out, "%s\n", raw)
	return err
}

func (c *cli) verified(r *history.Report) error {
	if c.output == "json" || c.output == "yaml" {
		if err := c.encode(r); err != nil {
			return err
		}
	} else if r.OK() {
		_, _ = fmt.Fprintf(c.out, "ok: %s records, checkpoint %d signed by %s, tree %s…; nothing missing from 1 to %d\n",
			thousands(uint64(r.Records)), r.Head.Seq, r.Signer, r.Head.Root.Short(), r.Head.Seq)
		_, _ = fmt.Fprintf(c.out, "   checked: %d files of the log, %d signatures, the fold, %d snapshots, %d manifests and templates, %d texts (%d erased)\n",
			r.Files, r.Signatures, r.Snapshots, r.Blobs, r.Texts, r.Erased)
		if r.Keys > 1 {
			_, _ = fmt.Fprintf(c.out, "   another key signs since: %d in all, each named by a record that the one before signed\n", r.Keys)
		}
		if r.Witnessed > 0 {
			_, _ = fmt.Fprintf(c.out, "   held against %s kept elsewhere: nothing before was changed or taken away\n", plural(r.Witnessed, "checkpoint"))
		}
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

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// thousands writes a number with commas.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}
