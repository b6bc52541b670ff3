package audit

import (
	"context"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// firstLook is how many records are looked at first for the newest few lines.
const firstLook = 4096

// Lines tells what a filter wants, in the order of the log, up to now: without
// reading what comes before, where the newest lines or those since a time are wanted.
// It gives what goes on telling from the record after them.
func (a *Archive) Lines(ctx context.Context, f report.Filter, each func(report.Line) error) (report.Teller, state.Seq, error) {
	begin, end, err := a.bounds(&f)
	if err != nil {
		return report.Teller{}, 0, err
	}
	if f.Limit == 0 {
		t, err := a.tell(ctx, &f, begin, end, each)
		return t, end + 1, err
	}
	look := state.Seq(max(a.look(), 32*f.Limit)) //nolint:gosec // both are positive
	for ; ; look *= 8 {
		from := begin
		if end > look {
			from = max(begin, end-look+1)
		}
		var lines []report.Line
		t, err := a.tell(ctx, &f, from, end, func(l report.Line) error {
			lines = append(lines, l)
			return nil
		})
		if err != nil {
			return t, 0, err
		}
		if len(lines) < f.Limit && from > begin {
			continue // what is wanted is rarer: look further back
		}
		for _, l := range lines[max(0, len(lines)-f.Limit):] {
			if err := each(l); err != nil {
				return t, 0, err
			}
		}
		return t, end + 1, nil
	}
}

func (a *Archive) look() int {
	if a.Look > 0 {
		return a.Look
	}
	return firstLook
}

// bounds are the first and the last record that a filter can want.
func (a *Archive) bounds(f *report.Filter) (begin, end state.Seq, err error) {
	begin, end = max(f.From, 1), a.Store.Head().Seq
	if !f.Since.IsZero() {
		before, err := a.Store.Time(f.Since.UnixNano() - 1)
		if err != nil {
			return 0, 0, err
		}
		begin = max(begin, before+1)
	}
	if !f.Until.IsZero() {
		last, err := a.Store.Time(f.Until.UnixNano())
		if err != nil {
			return 0, 0, err
		}
		end = min(end, last)
	}
	if f.To > 0 {
		end = min(end, f.To)
	}
	return begin, end, nil
}

// tell tells the records from one to another. What they name was known before them.
func (a *Archive) tell(ctx context.Context, f *report.Filter, from, end state.Seq, each func(report.Line) error) (report.Teller, error) {
	if from > end {
		from = end + 1
	}
	s := state.New(a.Blobs)
	if from > 1 {
		var err error
		if s, err = a.Fold(ctx, from-1); err != nil {
			return report.Teller{}, err
		}
	}
	t := report.NewTeller(s, a.Words)
	for r, err := range a.Store.Read(ctx, from) {
		if err != nil {
			return t, err
		}
		if r.Seq > end {
			break
		}
		if l := t.Tell(r); f.Match(&l) {
			if err := each(l); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}
