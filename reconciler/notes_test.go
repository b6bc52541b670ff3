package reconciler_test

import (
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A note is wanted once an application has all of a commit: asked for again until
// the repository has it, after a crash too, and then no more.
func TestDeploymentNotes(t *testing.T) {
	t.Parallel()
	w := newModel(t)
	step := func(events ...state.Event) { w.take(w.m.Step(w.now, events)) }
	var apps []state.Application
	for _, s := range modelStages() {
		apps = append(apps, state.Application{Name: state.AppName(s), Path: s, Source: state.AppSource{Ref: s}})
	}
	apps[2].Notes = "tandem/prod"
	step(&state.RootRendered{Revision: "main@sha1:" + state.Revision(modelHash(100)), Apps: apps, Pipelines: []state.Pipeline{modelPipeline()}})
	if len(w.notes) != 1 || w.notes[0].App != "prod" || w.notes[0].Ref != "refs/notes/tandem/prod" || w.notes[0].Commit != modelHash(1) {
		t.Fatalf("asked %+v, want one note of prod", w.notes)
	}
	answer := func(o state.NoteOutcome) *state.Noted {
		a := w.notes[len(w.notes)-1]
		return &state.Noted{App: a.App, Ref: a.Ref, Commit: a.Commit, Seq: a.Seq, Outcome: o}
	}
	step(answer(0)) // the repository doesn't answer
	if len(w.notes) != 1 {
		t.Fatal("asked again without a pause")
	}
	w.now = w.now.Add(time.Minute)
	step()
	if len(w.notes) != 2 {
		t.Fatalf("asked %d times after a minute, want twice", len(w.notes))
	}
	// The answer is lost with the controller.
	w.m = reconciler.New(w.shelf)
	for _, r := range w.log {
		if err := w.m.Replay(r); err != nil {
			t.Fatal(err)
		}
	}
	w.take(w.m.Start(w.now, state.Digest{}, "test"))
	step()
	if len(w.notes) != 3 {
		t.Fatalf("asked %d times, want once more after the crash", len(w.notes))
	}
	recorded := func() (n int) {
		for _, r := range w.log {
			if f, ok := r.Fact.(*state.DeploymentNoted); ok && r.App == "prod" && f.Of > 0 && r.Cause == f.Of {
				n++
			}
		}
		return n
	}
	step(answer(state.NoteWritten))
	step(answer(state.NoteWritten)) // sent twice
	if got := recorded(); got != 1 {
		t.Errorf("%d records of the note, want one, caused by what it tells of", got)
	}
	had := len(w.notes)
	w.now = w.now.Add(time.Hour)
	step()
	if len(w.notes) != had {
		t.Error("asked again for a note that is there")
	}
	// Another commit wants another; where it is refused, that is said once.
	w.do("hotfix")
	w.see("prod")
	if len(w.notes) != had+1 {
		t.Fatalf("another commit: asked %d times, want once more", len(w.notes)-had)
	}
	step(answer(state.NoteRefused))
	w.now = w.now.Add(time.Hour)
	step()
	if len(w.notes) != had+1 || recorded() != 2 {
		t.Error("a refusal isn't recorded once and left alone")
	}
}
