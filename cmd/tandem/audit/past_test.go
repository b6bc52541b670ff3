package audit_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func open(t testing.TB, path string) *audit.Archive {
	t.Helper()
	a, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// last is the number of the last record that a test is true of.
func last(t testing.TB, a *audit.Archive, holds func(*state.Record) bool) state.Seq {
	t.Helper()
	var seq state.Seq
	for r, err := range a.Store.Read(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if holds(r) {
			seq = r.Seq
		}
	}
	if seq == 0 {
		t.Fatal("there is no such record")
	}
	return seq
}

// The record at which the first commit had converged, and the end.
func moments(t testing.TB, a *audit.Archive) (first, end state.Seq) {
	t.Helper()
	second := last(t, a, func(r *state.Record) bool {
		_, ok := r.Fact.(*state.RevisionApplied)
		return ok
	})
	first = last(t, a, func(r *state.Record) bool {
		_, ok := r.Fact.(*state.Converged)
		return ok && r.Seq < second
	})
	return first, a.Store.Head().Seq
}

func TestAtNamesTheCommitOfEachPod(t *testing.T) {
	a := open(t, lived(t))
	first, end := moments(t, a)
	then, err := a.At(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	now, err := a.At(t.Context(), end)
	if err != nil {
		t.Fatal(err)
	}
	count := func(m *report.Moment, image, author string) int {
		n := 0
		for i := range m.Pods {
			p := &m.Pods[i]
			if p.Images[0].Image != image {
				continue
			}
			n++
			if p.Commit.Author != author || p.Commit.Committer != author || !p.Ready || p.Images[0].Digest.IsZero() {
				t.Errorf("%s at record %d: %+v", p.Pod, m.Seq, p)
			}
		}
		return n
	}
	ada, bob := "Ada <ada@shop.example>", "Bob <bob@shop.example>"
	for _, c := range []struct {
		m      *report.Moment
		image  string
		author string
		want   int
	}{
		{then, "shop.example/web:1", ada, 2},
		{then, "shop.example/web:2", bob, 0},
		{then, "shop.example/db:1", ada, 2},
		{now, "shop.example/web:1", ada, 0},
		{now, "shop.example/web:2", bob, 3},
		{now, "shop.example/db:1", ada, 2}, // the second commit didn't change it
	} {
		if got := count(c.m, c.image, c.author); got != c.want {
			t.Errorf("record %d: %d pods of %s, want %d", c.m.Seq, got, c.image, c.want)
		}
	}
	if now.Applications[0].Rejected == "" {
		t.Error("the refused commit is not told")
	}
	var text bytes.Buffer
	then.Only("windows-1", "")
	then.Text(&text)
	if s := text.String(); !strings.Contains(s, "web:1") || strings.Contains(s, "db:1") || !strings.Contains(s, "Ada") || strings.Contains(s, "ada@") {
		t.Errorf("as text:\n%s", s)
	}
}

// The state at a moment is the same with and without snapshots.
func TestAtIsTheSameWithoutSnapshots(t *testing.T) {
	dir := lived(t)
	bare := copied(t, dir)
	if err := os.RemoveAll(filepath.Join(bare, "snapshots")); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, dir), open(t, bare)
	for seq := state.Seq(1); seq <= a.Store.Head().Seq; seq += 7 {
		x, err := a.At(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.At(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if asJSON(t, x) != asJSON(t, y) {
			t.Errorf("record %d: it differs", seq)
		}
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFindReadsTimesAndNumbers(t *testing.T) {
	a := open(t, lived(t))
	for seq := state.Seq(1); seq <= a.Store.Head().Seq; seq++ {
		r, err := a.Store.ReadAt(seq)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Find(r.At.Time().Format(time.RFC3339Nano), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		found, err := a.Store.ReadAt(got)
		if err != nil {
			t.Fatal(err)
		}
		if got < seq || found.At.Wall != r.At.Wall {
			t.Errorf("the time of record %d finds record %d", seq, got)
		}
	}
}

func TestDiffTellsEachChangeOnce(t *testing.T) {
	a := open(t, lived(t))
	first, end := moments(t, a)
	d, err := a.Diff(t.Context(), first, end)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Apps) != 1 || d.Apps[0].Commit.Author != "Bob <bob@shop.example>" {
		t.Errorf("applications: %+v", d.Apps)
	}
	if len(d.Desired) != 1 || d.Desired[0].Ref.Name != "web" || len(d.Desired[0].Fields) != 2 {
		t.Errorf("desired: %+v", d.Desired)
	}
	if len(d.Replicas) != 1 || d.Replicas[0].OS != "windows" || d.Replicas[0].To != (report.Ratio{Ready: 3, Wanted: 3}) {
		t.Errorf("readiness: %+v", d.Replicas)
	}
	if d.SamePods != 2 || d.SameWants != 2 {
		t.Errorf("%d pods and %d objects are said to be the same", d.SamePods, d.SameWants)
	}
	same, err := a.Diff(t.Context(), end, end)
	if err != nil {
		t.Fatal(err)
	}
	if len(same.Apps)+len(same.Desired)+len(same.Replicas)+len(same.Pods)+len(same.Nodes) != 0 {
		t.Errorf("between a moment and itself: %+v", same)
	}
}

// A bundle says what the directory says, without its keys.
func TestABundleSaysWhatItsDirectorySays(t *testing.T) {
	dir := lived(t)
	name := filepath.Join(t.TempDir(), "shop.tar")
	a := open(t, dir)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Bundle(t.Context(), f, dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, name, audit.Options{PublicKey: publicKey(t, dir), Every: true})
	if !r.OK() || r.Records != int(a.Store.Head().Seq) {
		t.Fatalf("%+v", r)
	}
	for _, n := range r.NotChecked {
		if strings.Contains(n, "Secrets") {
			t.Errorf("left unchecked: %s", n)
		}
	}
	b := open(t, name)
	for _, seq := range []state.Seq{10, a.Store.Head().Seq / 2, a.Store.Head().Seq} {
		x, err := a.At(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.At(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if asJSON(t, x) != asJSON(t, y) {
			t.Errorf("record %d: it differs", seq)
		}
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(raw); at += max(1, len(raw)/400) {
		damaged := bytes.Clone(raw)
		damaged[at] ^= 1 << (at % 8)
		if bytes.Equal(damaged[at:at+1], raw[at:at+1]) || padding(raw, at) {
			continue
		}
		other := filepath.Join(t.TempDir(), "damaged.tar")
		if err := os.WriteFile(other, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := audit.Verify(t.Context(), other, audit.Options{PublicKey: publicKey(t, dir)}); err == nil && r.OK() && len(r.Notes) == 0 && same(t, name, other) {
			continue // a header's or the README's bit, and all that counts is the same
		} else if err == nil && r.OK() && len(r.Notes) == 0 {
			t.Errorf("bit %d of byte %d was flipped unnoticed", at%8, at)
		}
	}
}

// padding says whether a byte is one of zeros that fill a block up.
func padding(raw []byte, at int) bool {
	return raw[at] == 0 && at > 0 && raw[at-1] == 0
}

// same says whether two bundles answer the same.
func same(t testing.TB, x, y string) bool {
	t.Helper()
	a, err := audit.Open(x)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := audit.Open(y)
	if err != nil {
		return false
	}
	defer b.Close()
	var p, q bytes.Buffer
	if err := a.JSONL(t.Context(), &p, report.Filter{All: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.JSONL(t.Context(), &q, report.Filter{All: true}); err != nil {
		return false
	}
	return bytes.Equal(p.Bytes(), q.Bytes())
}

func TestExportsHoldEveryRecord(t *testing.T) {
	a := open(t, lived(t))
	var lines, rows bytes.Buffer
	if err := a.JSONL(t.Context(), &lines, report.Filter{All: true}); err != nil {
		t.Fatal(err)
	}
	if err := a.CSV(t.Context(), &rows, report.Filter{All: true}); err != nil {
		t.Fatal(err)
	}
	want := int(a.Store.Head().Seq)
	if got := bytes.Count(lines.Bytes(), []byte("\n")); got != want {
		t.Errorf("%d lines of JSON for %d records", got, want)
	}
	table, err := csv.NewReader(&rows).ReadAll()
	if err != nil || len(table) != want+1 {
		t.Errorf("%d rows for %d records, %v", len(table), want, err)
	}
}

// A commit message that a spreadsheet would run is made harmless.
func TestCSVHasNoFormulas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.do(&state.Command{
		Verb: state.CmdCordon, Object: state.Ref{Kind: "Node", Name: "linux-1"}, Actor: w.ctl.Text("=cmd()"), Reason: w.ctl.Text("@SUM(1)"),
	})
	w.end()
	var rows bytes.Buffer
	if err := open(t, dir).CSV(t.Context(), &rows, report.Filter{All: true}); err != nil {
		t.Fatal(err)
	}
	if s := rows.String(); !strings.Contains(s, ",'=cmd(),") || !strings.Contains(s, ",'@SUM(1),") {
		t.Errorf("%s", s)
	}
}
