package audit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Looking only as far back as is needed tells what reading the whole log does, whatever
// is asked for; and what it gives goes on telling.
func TestLinesAreThoseOfTheWholeLog(t *testing.T) {
	t.Parallel()
	a := open(t, lived(t))
	head := a.Store.Head().Seq
	var all []*state.Record
	for r, err := range a.Store.Read(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	middle := all[len(all)/2].At.Time()
	whole := func(f report.Filter) []report.Line {
		teller, pick := report.NewTeller(nil, a.Words), report.NewPicker(f)
		var out []report.Line
		for _, r := range all {
			out = append(out, pick.Take(teller.Tell(r))...)
		}
		return append(out, pick.Rest()...)
	}
	found := 0
	for _, f := range []report.Filter{
		{},
		{All: true},
		{Object: "deploy/web"},
		{Object: "db-0"},
		{Node: "windows-1"},
		{Kind: "PodPlaced"},
		{Actor: "eva"},
		{Outcome: report.OutcomeBad},
		{Since: middle},
		{Until: middle},
		{Since: middle, Until: middle.Add(time.Millisecond)},
		{From: head / 2},
		{From: head / 2, To: head/2 + 3, All: true},
		{To: 4},
		{Since: middle.Add(time.Hour)},
		{Until: middle.Add(-time.Hour)},
		{App: state.RootApp, Kind: "apply"},
	} {
		for _, limit := range []int{0, 1, 3, 1000} {
			for _, look := range []int{1, 7, 0} {
				f.Limit, a.Look = limit, look
				want := whole(f)
				got := []report.Line(nil)
				teller, next, err := a.Lines(t.Context(), f, func(l report.Line) error { got = append(got, l); return nil })
				name := fmt.Sprintf("%+v, look %d", f, look)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s:\n%s", name, d)
				}
				found += len(got)
				again := report.NewTeller(nil, a.Words)
				for _, r := range all {
					l := again.Tell(r)
					if r.Seq < next {
						continue
					}
					if d := cmp.Diff(l, teller.Tell(r)); d != "" {
						t.Errorf("%s, going on with record %d:\n%s", name, r.Seq, d)
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("nothing was found at all")
	}
}
