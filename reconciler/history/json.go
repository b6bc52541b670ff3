package history

import (
	"encoding/json"
	"fmt"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Words gives what a text's token stands for. *Texts is one.
type Words interface {
	Clear(token state.Text) (string, bool)
}

// JSON is a record for people and other programs: its own fields, the fact with
// its kind, and under "texts" the words that its tokens stand for, where they
// weren't erased. words may be nil.
func JSON(r *state.Record, words Words) ([]byte, error) {
	fact, err := json.Marshal(r.Fact)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", r.Seq, err)
	}
	kind, err := json.Marshal(r.Fact.Kind().String())
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", r.Seq, err)
	}
	tagged := append([]byte(`{"kind":`), kind...)
	if len(fact) > len("{}") {
		tagged = append(tagged, ',')
	}
	tagged = append(tagged, fact[1:]...)
	out := struct {
		Seq   state.Seq         `json:"seq"`
		Time  string            `json:"time"`
		At    state.Instant     `json:"at"`
		Cause state.Seq         `json:"cause,omitempty"`
		Actor state.Text        `json:"actor,omitzero"`
		App   state.AppName     `json:"app,omitempty"`
		Fact  json.RawMessage   `json:"fact"`
		Texts map[string]string `json:"texts,omitempty"`
	}{r.Seq, r.At.Time().Format("2006-01-02T15:04:05.000000Z07:00"), r.At, r.Cause, r.Actor, r.App, tagged, nil}
	if words != nil {
		for _, t := range TextsOf(r) {
			if s, ok := words.Clear(t); ok {
				if out.Texts == nil {
					out.Texts = map[string]string{}
				}
				out.Texts[t.String()] = s
			}
		}
	}
	return json.Marshal(out)
}
