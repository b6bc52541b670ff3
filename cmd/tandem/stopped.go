package main

import (
	"context"
	"errors"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// stopped reads a data directory without a controller, or a bundle.
type stopped struct {
	data  *audit.Archive
	state *state.State
}

func openStopped(ctx context.Context, path string) (*stopped, error) {
	data, err := audit.Open(path)
	if err != nil {
		return nil, err
	}
	s := &stopped{data: data}
	if s.state, err = data.Fold(ctx, 0); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close lets go of the directory.
func (s *stopped) Close() error { return s.data.Close() }

func (s *stopped) words(t state.Text) string { return s.data.Words(t) }

func (s *stopped) status(_ context.Context, inventory bool) (_ *report.Status, err error) {
	v := report.NewStatus(s.state, s.words)
	if inventory {
		v.Inventory, err = report.NewInventory(forecast.Copy(s.state))
	}
	return &v, err
}

func (s *stopped) detail(_ context.Context, object, namespace string) (*report.Detail, error) {
	ref, err := report.Find(s.state, object, namespace)
	if err != nil {
		return nil, err
	}
	v := report.NewDetail(s.state, ref, s.words)
	return &v, nil
}

func (s *stopped) why(ctx context.Context, object, namespace string) (*report.Why, error) {
	ref, err := report.Find(s.state, object, namespace)
	if err != nil {
		return nil, err
	}
	q := report.NewInquiry(ref)
	q.Begin(s.state)
	for r, err := range s.data.Store.Read(ctx, 1) {
		if err != nil {
			return nil, err
		}
		q.Read(r)
	}
	v := q.Answer(s.state, s.words)
	return &v, nil
}

func (s *stopped) history(ctx context.Context, f report.Filter, each func(report.Line) error) error {
	f, err := report.ParseFilter(f.Query(), time.Now())
	if err != nil {
		return err
	}
	_, _, err = s.data.Lines(ctx, f, each)
	return err
}
