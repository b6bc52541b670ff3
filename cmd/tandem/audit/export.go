package audit

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// The formats of an export.
const (
	FormatJSONL  = "jsonl"
	FormatCSV    = "csv"
	FormatBundle = "bundle"
)

// Export writes the records that a filter wants, or, as a bundle, all.
func (a *Archive) Export(ctx context.Context, w io.Writer, format string, f report.Filter, path string) error {
	switch format {
	case FormatJSONL:
		return a.JSONL(ctx, w, f)
	case FormatCSV:
		return a.CSV(ctx, w, f)
	case FormatBundle:
		return a.Bundle(ctx, w, path)
	default:
		return fmt.Errorf("format %q: want jsonl, csv or bundle", format)
	}
}

// each gives the records that a filter wants, each with its line.
func (a *Archive) each(ctx context.Context, f report.Filter, do func(*state.Record, report.Line) error) error {
	teller := report.NewTeller(nil, a.Words)
	for r, err := range a.Store.Read(ctx, 1) {
		if err != nil {
			return err
		}
		l := teller.Tell(r)
		if !f.Match(&l) {
			continue
		}
		if err := do(r, l); err != nil {
			return err
		}
	}
	return nil
}

// JSONL writes a line of JSON a record: the record itself, and its words.
func (a *Archive) JSONL(ctx context.Context, w io.Writer, f report.Filter) error {
	return a.each(ctx, f, func(r *state.Record, _ report.Line) error {
		raw, err := history.JSON(r, a.Store.Texts())
		if err != nil {
			return err
		}
		_, err = w.Write(append(raw, '\n'))
		return err
	})
}

// CSV writes a row a record, in words. A field that a spreadsheet would take
// for a formula begins with an apostrophe.
func (a *Archive) CSV(ctx context.Context, w io.Writer, f report.Filter) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{
		"seq", "time", "kind", "what", "application", "object", "namespace", "name", "uid", "node", "outcome", "actor", "commit", "reason", "cause",
	}); err != nil {
		return err
	}
	if err := a.each(ctx, f, func(_ *state.Record, l report.Line) error {
		cause := ""
		if l.Cause > 0 {
			cause = strconv.FormatUint(uint64(l.Cause), 10)
		}
		row := []string{
			strconv.FormatUint(uint64(l.Seq), 10), l.At.Format(time.RFC3339Nano), l.Kind, l.What, string(l.App), l.Object.Kind, l.Object.Namespace,
			l.Object.Name, l.UID, l.Node, l.Outcome, l.Actor, l.Commit, l.Reason, cause,
		}
		for i := range row {
			if row[i] != "" && strings.ContainsRune("=+-@\t\r", rune(row[i][0])) {
				row[i] = "'" + row[i]
			}
		}
		return out.Write(row)
	}); err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// about is the README of a bundle.
const about = `This is a history that Tandem exported: the log, its signed checkpoint, and what
its records name: manifests, templates and words. It has the layout of a data
directory, without keys and caches. A Secret's values are replaced by tokens.

  tandem verify BUNDLE --key tandem.pub     is it whole, and signed by that key?
  tandem history at TIME --data BUNDLE      what ran then
  tandem history --data BUNDLE              what happened

checkpoint and log.pub are a signed note (golang.org/x/mod/sumdb/note, C2SP
tlog-checkpoint); the log's leaves are RFC 6962 over the records' bytes. log.pub
proves nothing by itself: compare it with the key that you were given.
`

// Bundle writes all that a stranger needs to check and read the history, as of
// the checkpoint that this archive was opened at.
func (a *Archive) Bundle(ctx context.Context, w io.Writer, path string) error {
	disk, file, err := diskOf(path)
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	s, err := openShelf(disk)
	if err != nil {
		return err
	}
	b := &bundler{ctx: ctx, archive: a, shelf: s, tar: tar.NewWriter(w)}
	if head := a.Store.Head(); head.Seq > 0 {
		last, err := a.Store.ReadAt(head.Seq)
		if err != nil {
			return err
		}
		b.at = last.At.Time().Truncate(time.Second)
	}
	for _, step := range []func() error{func() error { return b.statement(about) }, b.log, b.blobs} {
		if err := step(); err != nil {
			return fmt.Errorf("write the bundle: %w", err)
		}
	}
	return b.tar.Close()
}

type bundler struct {
	ctx     context.Context //nolint:containedctx // of this one call
	archive *Archive
	shelf   *shelf
	tar     *tar.Writer
	at      time.Time
}

func (b *bundler) add(name string, size int64, content io.Reader) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: b.at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.CopyN(b.tar, content, size)
	return err
}

func (b *bundler) bytes(name string, content []byte) error {
	return b.add(name, int64(len(content)), bytes.NewReader(content))
}

func (b *bundler) statement(readme string) error {
	note, err := b.archive.Store.Checkpoint()
	if err != nil {
		return err
	}
	content, name, key, err := history.CheckpointFile(note)
	if err != nil {
		return err
	}
	if readme != "" {
		if err := b.bytes("README", []byte(readme)); err != nil {
			return err
		}
	}
	if chain := b.archive.Store.Chain(); len(chain) > 0 {
		if err := b.bytes(history.ChainFile, chain); err != nil {
			return err
		}
	}
	return errors.Join(
		b.bytes(key, []byte(b.archive.Store.PublicKey()+"\n")),
		b.bytes(name, content),
	)
}

func (b *bundler) log() error {
	extents, err := b.archive.Store.Extents()
	if err != nil {
		return err
	}
	for _, e := range extents {
		r, err := b.archive.Store.ReadExtent(e)
		if err != nil {
			return err
		}
		err = b.add(e.Name, e.Size, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// blobs are templates as they are, and manifests with tokens for secret values.
func (b *bundler) blobs() error {
	digests, err := b.shelf.blobs.Digests()
	if err != nil {
		return err
	}
	slices.SortFunc(digests, func(x, y state.Digest) int { return slices.Compare(x[:], y[:]) })
	for _, d := range digests {
		raw, err := b.shelf.blobs.Blob(d)
		if err != nil {
			return err
		}
		if state.DigestOf(raw) != d && !manifest.HasTokens(raw) {
			if raw, err = b.reveal(raw); err != nil {
				return fmt.Errorf("manifest %s: %w", d.Short(), err)
			}
		}
		name, content, err := history.BlobFile(d, raw)
		if err != nil {
			return err
		}
		if err := b.bytes(name, content); err != nil {
			return err
		}
	}
	return nil
}

func (b *bundler) reveal(raw []byte) ([]byte, error) {
	if b.shelf.secrets == nil {
		return nil, errors.New("its Secrets' values can't be replaced by tokens: the directory has no keys")
	}
	m, err := manifest.DecodeManifest(raw, b.shelf.secrets)
	if err != nil {
		return nil, err
	}
	return manifest.EncodeTokens(m, b.shelf.secrets)
}
