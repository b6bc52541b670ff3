package reconciler_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// accessOf is an Access whose group release has these members.
func accessOf(members ...string) *state.Access {
	g := state.AccessGroup{Name: "release"}
	for _, m := range members {
		g.Members = append(g.Members, person(m))
	}
	return &state.Access{Groups: []state.AccessGroup{g}, Grants: []state.AccessGrant{{Role: state.RoleReleaseManager, Groups: []string{"release"}}}}
}

// root tells the machine what the root says.
func (w *modelWorld) root(a *state.Access) []*state.Record {
	had := len(w.log)
	var apps []state.Application
	for _, s := range modelStages() {
		apps = append(apps, state.Application{Name: state.AppName(s), Path: s, Source: state.AppSource{Ref: s}})
	}
	w.take(w.m.Step(w.now, []state.Event{&state.RootRendered{
		Revision: "main@sha1:" + state.Revision(modelHash(100)), Commit: state.Commit{Hash: modelHash(100)}, Apps: apps,
		Pipelines: []state.Pipeline{modelPipeline()}, Access: a,
	}}))
	return w.log[had:]
}

func accessKinds(records []*state.Record) (out []state.Kind) {
	for _, r := range records {
		if k := r.Fact.Kind(); k == state.KindAccessDeclared || k == state.KindAccessRemoved {
			out = append(out, k)
		}
	}
	return out
}

// Every change of who may do what is a record with the commit that says so, and
// what doesn't change is none.
func TestAccessIsRecorded(t *testing.T) {
	t.Parallel()
	w := playModel(t, nil)
	moved := accessOf("rita", "sam")
	moved.At.Line = 7
	for i, c := range []struct {
		access *state.Access
		want   []state.Kind
	}{
		{accessOf("rita", "sam"), []state.Kind{state.KindAccessDeclared}},
		{moved, nil},
		{accessOf("rita"), []state.Kind{state.KindAccessDeclared}},
		{nil, []state.Kind{state.KindAccessRemoved}},
		{nil, nil},
	} {
		if got := accessKinds(w.root(c.access)); !slices.Equal(got, c.want) {
			t.Errorf("step %d: recorded %v, want %v", i, got, c.want)
		}
	}
	for _, r := range w.log {
		if f, ok := r.Fact.(*state.AccessDeclared); ok && f.Commit.Hash != modelHash(100) {
			t.Errorf("record %d names commit %q", r.Seq, f.Commit.Hash)
		}
	}
	// A root that has become empty takes nobody's role away.
	w.root(accessOf("rita"))
	had := len(w.log)
	w.take(w.m.Step(w.now, []state.Event{&state.RootRendered{Revision: "main@sha1:" + state.Revision(modelHash(101))}}))
	if got := accessKinds(w.log[had:]); got != nil {
		t.Errorf("an empty root: recorded %v", got)
	}
	snap := w.m.State().Snapshot()
	restored, err := state.Restore(snap, w.shelf)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w.m.State().Access, restored.Access); d != "" || restored.Access == nil {
		t.Errorf("a snapshot gives another access:\n%s", d)
	}
}

// An approval counts only as long as who gave it may give it: who left the group
// before the branch moved has said nothing.
func TestApprovalEndsWithTheRole(t *testing.T) {
	t.Parallel()
	tested := []string{"commit", "see dev", "tick", "push", "see staging", "promote rita"}
	pushed := func(after func(*modelWorld)) bool {
		w := playModel(t, tested)
		w.root(accessOf("rita", "sam"))
		after(w)
		w.do("tick")
		w.do("tick")
		return slices.ContainsFunc(w.pending, func(p *state.Push) bool { return p.Source.Ref == "prod" })
	}
	if !pushed(func(w *modelWorld) { w.do("approve sam") }) {
		t.Error("two members approved, and nothing moved")
	}
	if pushed(func(w *modelWorld) { w.do("approve sam"); w.root(accessOf("rita")) }) {
		t.Error("prod moved on the approval of somebody who may no longer approve")
	}
	if pushed(func(w *modelWorld) { w.root(accessOf("rita")); w.do("approve sam") }) {
		t.Error("prod moved on the approval of somebody who could not approve any more, whatever the API said of his groups")
	}
}

func TestPatternsOfApplications(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []string
		app  state.AppName
		want bool
	}{
		{nil, "shop", true},
		{nil, "", true},
		{[]string{"shop"}, "shop", true},
		{[]string{"shop"}, "shop2", false},
		{[]string{"shop"}, "", false},
		{[]string{"shop-*"}, "shop-prod", true},
		{[]string{"shop-*"}, "shop", false},
		{[]string{"*"}, "", false},
		{[]string{"*"}, "x", true},
		{[]string{"a*b*c"}, "aXbYc", true},
		{[]string{"a*b*c"}, "abc", true},
		{[]string{"a*b*c"}, "acb", false},
		{[]string{"a*a"}, "a", false},
		{[]string{"x", "*-prod"}, "shop-prod", true},
	} {
		if got := state.CoversApp(c.list, c.app); got != c.want {
			t.Errorf("%v covers %q: %t, want %t", c.list, c.app, got, c.want)
		}
	}
}
