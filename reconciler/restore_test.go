package reconciler_test

import (
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A log from before restoring was the default folds to what it meant: its root
// holds, until a root that is rendered says otherwise, which is a record.
func TestAnOldLogKeepsItsPolicy(t *testing.T) {
	t.Parallel()
	now := state.Instant{Mono: time.Second, Wall: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC).UnixNano()}
	books := &shelf{map[state.Digest]*state.Manifest{}, map[state.Digest]*state.Template{}}
	first := reconciler.New(books).Start(now, state.DigestOf([]byte("old")), "old")
	m := reconciler.New(books)
	for _, r := range first.Records {
		if f, ok := r.Fact.(*state.AppDeclared); ok {
			if f.Application.Rollout.OnFailure != state.RestoreGood {
				t.Errorf("a new log's root is declared with %s", f.Application.Rollout.OnFailure)
			}
			f.Application.Rollout = state.Rollout{} // as it was written
		}
		if err := m.Replay(r); err != nil {
			t.Fatal(err)
		}
	}
	declared := func(out reconciler.Output) (n int) {
		for _, r := range out.Records {
			if f, ok := r.Fact.(*state.AppDeclared); ok && f.Application.Name == state.RootApp {
				n++
			}
		}
		return n
	}
	policy := func() state.OnFailure { return m.State().Apps[state.RootApp].Spec.Rollout.OnFailure }
	if n := declared(m.Start(now, state.DigestOf([]byte("old")), "new")); n != 0 || policy() != state.HoldOn {
		t.Errorf("the start of a newer version declares the root %d times, and its policy is %s", n, policy())
	}
	root := &state.RootRendered{Revision: "main@sha1:0000000000000000000000000000000000000001", Rollout: state.DefaultRollout()}
	if n := declared(m.Step(now, []state.Event{root})); n != 1 || policy() != state.RestoreGood {
		t.Errorf("a root that says otherwise is declared %d times, and its policy is %s", n, policy())
	}
	root.Revision = "main@sha1:0000000000000000000000000000000000000002"
	if n := declared(m.Step(now, []state.Event{root})); n != 0 {
		t.Errorf("a root that says the same is declared %d times", n)
	}
}
