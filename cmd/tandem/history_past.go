package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A past answers questions about what was: a server, or the files themselves,
// also beside a running controller.
type past interface {
	at(ctx context.Context, when string) (*report.Moment, error)
	whyThen(ctx context.Context, object, namespace, when string) (*report.Why, error)
	diff(ctx context.Context, from, to string) (*report.Difference, error)
	prove(ctx context.Context, seq state.Seq) ([]byte, error)
	stats(ctx context.Context) (*report.Growth, error)
	keys(ctx context.Context) (kubeapi.KeysAnswer, error)
	export(ctx context.Context, w io.Writer, format string, f report.Filter) error
	Close() error
}

// look finds who answers: the files of --data, a directory or a bundle, else
// the server.
func (c *cli) look(ctx context.Context) (past, error) {
	if c.data == "" || c.server != "" {
		return c.connect(ctx)
	}
	a, err := audit.Open(c.data)
	if err != nil {
		return nil, err
	}
	return files{a, c.data}, nil
}

// files is a data directory or a bundle.
type files struct {
	*audit.Archive
	path string
}

func (f files) at(ctx context.Context, when string) (*report.Moment, error) {
	seq, err := f.Find(when, time.Now())
	if err != nil {
		return nil, err
	}
	return f.At(ctx, seq)
}

func (f files) whyThen(ctx context.Context, object, namespace, when string) (*report.Why, error) {
	seq, err := f.Find(when, time.Now())
	if err != nil {
		return nil, err
	}
	return f.Why(ctx, object, namespace, seq)
}

func (f files) diff(ctx context.Context, from, to string) (*report.Difference, error) {
	return f.Between(ctx, from, to, time.Now())
}

func (f files) prove(_ context.Context, seq state.Seq) ([]byte, error) { return f.Store.Prove(seq) }

func (f files) stats(ctx context.Context) (*report.Growth, error) { return f.Growth(ctx, f.path) }

func (f files) keys(context.Context) (kubeapi.KeysAnswer, error) {
	return kubeapi.KeysAnswer{Keys: f.Store.Keys(), Chain: string(f.Store.Chain())}, nil
}

func (f files) export(ctx context.Context, w io.Writer, format string, filter report.Filter) error {
	return f.Export(ctx, w, format, filter, f.path)
}

func (c *client) at(ctx context.Context, when string) (*report.Moment, error) {
	var v report.Moment
	return &v, c.ask(ctx, http.MethodGet, kubeapi.AtPath, url.Values{"time": {when}}, nil, &v)
}

func (c *client) whyThen(ctx context.Context, object, namespace, when string) (*report.Why, error) {
	var v report.Why
	q := objectQuery(object, namespace)
	q.Set("time", when)
	return &v, c.ask(ctx, http.MethodGet, kubeapi.WhyPath, q, nil, &v)
}

func (c *client) diff(ctx context.Context, from, to string) (*report.Difference, error) {
	var v report.Difference
	return &v, c.ask(ctx, http.MethodGet, kubeapi.DiffPath, url.Values{"from": {from}, "to": {to}}, nil, &v)
}

func (c *client) prove(ctx context.Context, seq state.Seq) ([]byte, error) {
	var b bytes.Buffer
	err := c.copy(ctx, &b, kubeapi.ProofPath, url.Values{"seq": {strconv.FormatUint(uint64(seq), 10)}})
	return b.Bytes(), err
}

func (c *client) stats(ctx context.Context) (*report.Growth, error) {
	var v report.Growth
	return &v, c.ask(ctx, http.MethodGet, kubeapi.StatsPath, nil, nil, &v)
}

func (c *client) keys(ctx context.Context) (kubeapi.KeysAnswer, error) {
	var v kubeapi.KeysAnswer
	err := c.ask(ctx, http.MethodGet, kubeapi.KeysPath, nil, nil, &v)
	return v, err
}

func (c *client) export(ctx context.Context, w io.Writer, format string, f report.Filter) error {
	q := f.Query()
	q.Set("format", format)
	return c.copy(ctx, w, kubeapi.ExportPath, q)
}

// copy writes an answer as it comes.
func (c *client) copy(ctx context.Context, w io.Writer, path string, q url.Values) error {
	resp, err := c.do(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.config.Host, err)
	}
	return nil
}

// asking runs a question about the past.
func (c *cli) asking(ctx context.Context, ask func(past) error) error {
	p, err := c.look(ctx)
	if err != nil {
		return err
	}
	return errors.Join(ask(p), p.Close())
}

func (c *cli) historyAtCommand() *cobra.Command {
	var node, app string
	cmd := &cobra.Command{
		Use: "at TIME|SEQ", Short: "what ran then: where, from which commit, by whom", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem history at \"2026-11-23 14:05\" --node windows-1\n  tandem history at 48121 --app shop-prod -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.asking(cmd.Context(), func(p past) error {
				m, err := p.at(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				m.Only(state.NodeName(node), state.AppName(app))
				return c.print(m)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "only what ran on this node, `NAME`")
	cmd.Flags().StringVar(&app, "app", "", "only of this Application, `NAME`")
	return cmd
}

func (c *cli) historyDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diff FROM [TO]", Short: "what changed between two moments: wanted per OS, placed, ready", Args: args(cobra.RangeArgs(1, 2)),
		Long:    "Diff compares two moments, each a time or the number of a record. Without TO: the newest.",
		Example: "  tandem history diff \"2026-11-23 14:05\" 15:00\n  tandem history diff 47810 48121",
		RunE: func(cmd *cobra.Command, args []string) error {
			to := "now"
			if len(args) == 2 {
				to = args[1]
			}
			return c.asking(cmd.Context(), func(p past) error {
				d, err := p.diff(cmd.Context(), args[0], to)
				if err != nil {
					return err
				}
				return c.print(d)
			})
		},
	}
}

func (c *cli) historyStatsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "how large the log is, of what, and how fast it grows", Args: args(cobra.NoArgs),
		Long: `Stats reads the whole log and says what it takes on the disk, how much was added a day, by
which kinds of records and Applications, and when the disk is full at that pace. Nothing of
the log is ever dropped: what flaps is summed up by one record a minute instead.`,
		Example: "  tandem history stats\n  tandem history stats --data /var/lib/tandem -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.asking(cmd.Context(), func(p past) error {
				g, err := p.stats(cmd.Context())
				if err != nil {
					return err
				}
				return c.print(g)
			})
		},
	}
}

func (c *cli) historyProveCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "prove SEQ", Short: "a file that proves one record to who has only the public key", Args: args(cobra.ExactArgs(1)),
		Long:    "Prove writes C2SP's tlog-proof with the record's bytes; `tandem verify FILE --key KEY` checks it, offline.",
		Example: "  tandem history prove 48121 --out record-48121.proof",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil || n == 0 {
				return usageError("record %q: want a number from 1", args[0])
			}
			return c.asking(cmd.Context(), func(p past) error {
				text, err := p.prove(cmd.Context(), state.Seq(n))
				if err != nil {
					return err
				}
				return c.writeOut(out, func(w io.Writer) error {
					_, err := w.Write(text)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write; by default standard output")
	return cmd
}

func (c *cli) historyExportCommand() *cobra.Command {
	var out, format string
	var only filterFlags
	var f report.Filter
	cmd := &cobra.Command{
		Use: "export", Short: "records for other programs, or a bundle for an auditor", Args: args(cobra.NoArgs),
		Long: `Export writes records as JSON lines or CSV, or the whole history as a bundle: the log
with its signed checkpoint, and what its records name. A bundle is checked and read
offline, by those who have it and the public key alone; Secrets' values are not in it.`,
		Example: "  tandem history export --format csv --since today --out today.csv\n  tandem history export --format jsonl --commit 3f2a91c --node windows-1\n  tandem history export --format bundle --out shop-bundle.tar",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := only.read(&f); err != nil {
				return err
			}
			switch format {
			case audit.FormatJSONL, audit.FormatCSV:
			case audit.FormatBundle:
				if f != (report.Filter{All: f.All}) {
					return usageError("a bundle is the whole history: it takes no filter")
				}
				if out == "" {
					return usageError("a bundle is a file: give --out FILE")
				}
			default:
				return usageError("--format %q: want jsonl, csv or bundle", format)
			}
			f.All = true
			return c.asking(cmd.Context(), func(p past) error {
				return c.writeOut(out, func(w io.Writer) error { return p.export(cmd.Context(), w, format, f) })
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&format, "format", audit.FormatJSONL, "`FORMAT`: jsonl, csv or bundle")
	fl.StringVar(&out, "out", "", "`FILE` to write; by default standard output")
	fl.StringVar(&f.Object, "object", "", "only about this `OBJECT`")
	only.add(fl, &f)
	return cmd
}

// writeOut writes standard output, or a file: whole, or not at all.
func (c *cli) writeOut(name string, write func(io.Writer) error) error {
	if name == "" {
		return write(c.out)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(f.Name()))
	}
	return nil
}
