package audit

import (
	"context"
	"fmt"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Why says why an object was as it was at a record, from what the log says up
// to there. The nodes' reasons are those that were recorded, in the amounts of
// the time of the decision: nothing is scheduled again.
func (a *Archive) Why(ctx context.Context, object, namespace string, seq state.Seq) (*report.Why, error) {
	s, err := a.Fold(ctx, seq)
	if err != nil {
		return nil, err
	}
	ref, err := report.Find(s, object, namespace)
	if err != nil {
		return nil, fmt.Errorf("as of record %d: %w", seq, err)
	}
	q := report.NewInquiry(ref)
	q.Begin(s)
	for r, err := range a.Store.Read(ctx, 1) {
		if err != nil {
			return nil, err
		}
		if r.Seq > seq {
			break
		}
		q.Read(r)
	}
	for _, d := range q.Decisions(s) {
		then, err := a.decided(ctx, d)
		if err != nil {
			return nil, err
		}
		q.Explain(then, d)
	}
	v := q.Answer(s, a.Words)
	v.AsOf = seq
	return &v, nil
}

// decided is the state just after a decision's pods were placed: the nodes that
// refused one more did so beside them.
func (a *Archive) decided(ctx context.Context, d *state.Record) (*state.State, error) {
	s, err := a.Fold(ctx, d.Seq)
	if err != nil {
		return nil, err
	}
	for r, err := range a.Store.Read(ctx, d.Seq+1) {
		if err != nil {
			return nil, err
		}
		if r.Cause != d.Seq {
			break
		}
		if err := s.Apply(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}
