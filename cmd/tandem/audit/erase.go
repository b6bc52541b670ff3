package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An Erased text is one whose words were destroyed.
type Erased struct {
	Token state.Text `json:"token"`
	Seq   state.Seq  `json:"seq"` // the record of it
}

// Erase destroys words beside a stopped log: that of a token, or all that
// mention a person. The records stay, and stay provable; who asked and why is
// recorded first, for each.
func Erase(ctx context.Context, dir, what string, person bool, actor, reason string) ([]Erased, error) {
	store, err := openStopped(dir)
	if err != nil {
		return nil, err
	}
	out, err := erase(ctx, store, what, person, actor, reason)
	return out, errors.Join(err, store.Close())
}

func erase(ctx context.Context, store *history.Store, what string, person bool, actor, reason string) ([]Erased, error) {
	tokens, err := found(store.Texts(), what, person)
	if err != nil {
		return nil, err
	}
	who, why, at, err := stoppedRecord(store, actor, reason)
	if err != nil {
		return nil, err
	}
	head := store.Head()
	var records []*state.Record
	var out []Erased
	for i, t := range tokens {
		seq := head.Seq + 1 + state.Seq(i)
		records = append(records, &state.Record{Seq: seq, At: at, Actor: who, Fact: &state.Commanded{Verb: state.CmdErase, Reason: why, ID: t.String()}})
		out = append(out, Erased{t, seq})
	}
	if _, err := store.Append(ctx, head, records); err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if err := store.Texts().Erase(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// found are the tokens that are meant.
func found(texts *history.Texts, what string, person bool) ([]state.Text, error) {
	if !person {
		var t state.Text
		if err := t.UnmarshalText([]byte(what)); err != nil || t.IsZero() {
			return nil, fmt.Errorf("%q: want a text's token, 32 hexadecimal digits, as exports show them", what)
		}
		if _, live := texts.Clear(t); !live {
			return nil, fmt.Errorf("text %s: %w, or it was erased", t, history.ErrNoText)
		}
		return []state.Text{t}, nil
	}
	if strings.TrimSpace(what) == "" {
		return nil, errors.New("want a name or an address")
	}
	var out []state.Text
	for t, clear := range texts.All() {
		if strings.Contains(strings.ToLower(clear), strings.ToLower(what)) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no words mention %q: %w", what, history.ErrNoText)
	}
	return out, nil
}
