package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// RotateKey gives a stopped log another signing key; who asked and why is recorded
// before it.
func RotateKey(ctx context.Context, dir, actor, reason string) ([]history.Key, error) {
	store, err := openStopped(dir)
	if err != nil {
		return nil, err
	}
	keys, err := rotateKey(ctx, store, actor, reason)
	return keys, errors.Join(err, store.Close())
}

// openStopped opens the log of a controller that doesn't run.
func openStopped(dir string) (*history.Store, error) {
	store, err := history.Open(dir, history.Options{Logger: slog.New(slog.DiscardHandler)})
	if errors.Is(err, history.ErrLocked) {
		return nil, fmt.Errorf("%s: a controller runs there: stop it first: %w", dir, err)
	}
	return store, err
}

func rotateKey(ctx context.Context, store *history.Store, actor, reason string) ([]history.Key, error) {
	head := store.Head()
	if head.Seq == 0 {
		return nil, fmt.Errorf("change the signing key: %w", history.ErrNoLog)
	}
	who, why, at, err := stoppedRecord(store, actor, reason)
	if err != nil {
		return nil, err
	}
	_, err = store.Rotate(ctx, head, func(public string) []*state.Record {
		asked := head.Seq + 1
		return []*state.Record{
			{Seq: asked, At: at, Actor: who, Fact: &state.Commanded{Verb: state.CmdRotateKey, Reason: why}},
			{Seq: asked + 1, At: at, Cause: asked, Actor: who, Fact: &state.SigningKeyRotated{Key: public}},
		}
	})
	if err != nil {
		return nil, err
	}
	return store.Keys(), nil
}

// stoppedRecord is what a record of a stopped log holds: who asked, why, and a time
// that doesn't go back.
func stoppedRecord(store *history.Store, actor, reason string) (who, why state.Text, at state.Instant, err error) {
	if who, err = store.Texts().Name(actor); err != nil {
		return who, why, at, err
	}
	if why, err = store.Texts().Put(reason); err != nil {
		return who, why, at, err
	}
	last, err := store.ReadAt(store.Head().Seq)
	if err != nil {
		return who, why, at, err
	}
	return who, why, last.At.Add(time.Duration(max(0, time.Now().UnixNano()-last.At.Wall))), nil
}
