package reconciler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// A commit that touches nothing of many applications is one record; whoever a
// pipeline or a note asks about it has one of its own, and few have too.
func TestUnchangedAll(t *testing.T) {
	t.Parallel()
	m := reconciler.New(&shelf{map[state.Digest]*state.Manifest{}, map[state.Digest]*state.Template{}})
	now := state.Instant{Mono: time.Second, Wall: time.Unix(1_800_000_000, 0).UnixNano()}
	m.Start(now, state.Digest{1}, "test")
	var apps []state.Application
	var names []state.AppName
	for i := range 40 {
		name := state.AppName(fmt.Sprintf("app-%02d", i))
		apps, names = append(apps, state.Application{Name: name, Path: string(name)}), append(names, name)
	}
	apps[7].Notes = "tandem/prod"
	m.Step(now, []state.Event{&state.RootRendered{Revision: "main@sha1:" + hash40(1), Apps: apps}})
	var rendered []state.Event
	for _, name := range names {
		rendered = append(rendered, &state.Rendered{App: name, Revision: "main@sha1:" + hash40(1), Commit: state.Commit{Hash: string(hash40(1))}, Manifest: &state.Manifest{App: name, Digest: manifest.Digest(nil)}})
	}
	m.Step(now, rendered)

	see := func(n int, apps []state.AppName) (each []state.AppName, all int) {
		rev := "main@sha1:" + hash40(n)
		out := m.Step(now, []state.Event{&state.UnchangedAll{Apps: apps, Revision: rev, Commit: state.Commit{Hash: string(hash40(n))}}})
		for _, r := range out.Records {
			switch f := r.Fact.(type) {
			case *state.RevisionSeen:
				each = append(each, r.App)
			case *state.RevisionsSeen:
				all += len(f.Apps)
			}
		}
		for _, name := range apps {
			if a := m.State().Apps[name]; a.Revision != rev || a.Commit.Hash != string(hash40(n)) || a.ChangedRev == rev {
				t.Errorf("%s is at %s, last changed by %s, want to have seen %s", name, a.Revision, a.ChangedRev, rev)
			}
		}
		return each, all
	}
	if each, all := see(2, names); len(each) != 1 || each[0] != names[7] || all != 39 {
		t.Errorf("records of their own: %v; %d in one, want %s and 39", each, all, names[7])
	}
	if each, all := see(2, names); len(each)+all > 0 {
		t.Errorf("the same again is recorded of %v and %d", each, all)
	}
	if each, all := see(3, names[:10]); len(each) != 10 || all != 0 {
		t.Errorf("ten applications: %d records of their own, %d in one", len(each), all)
	}
}

func hash40(n int) state.Revision { return state.Revision(fmt.Sprintf("%040x", n)) }
