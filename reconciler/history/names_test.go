package history_test

import (
	"fmt"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/history"
)

// Somebody's name has one token for ever, however much is written in between and
// after a start: with two, one person could approve twice.
func TestNamesHaveOneToken(t *testing.T) {
	const remembered = 1 << 16 // other texts
	dir := t.TempDir()
	store, err := history.Open(dir, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	name := func(texts *history.Texts) string {
		t.Helper()
		token, err := texts.Name("sam")
		if err != nil {
			t.Fatal(err)
		}
		return token.String()
	}
	many := func(texts *history.Texts, what string) {
		t.Helper()
		for i := range remembered + 10 {
			if _, err := texts.Put(fmt.Sprint(what, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	texts := store.Texts()
	many(texts, "before")
	want := name(texts)
	many(texts, "after")
	if got := name(texts); got != want {
		t.Errorf("sam is %s, and was %s", got, want)
	}
	if token, err := texts.Put("sam"); err != nil || token.String() != want {
		t.Errorf("as a text sam is %s (%v)", token, err)
	}
	if _, err := store.Append(t.Context(), store.Head(), batchAfter(store.Head(), 1)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if got := name(open(t, dir, history.Options{}).Texts()); got != want {
		t.Errorf("after a start sam is %s, and was %s", got, want)
	}
}
