package reconciler

import (
	"fmt"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// notes is what the machine knows of deployment notes besides the fold: what was
// asked for. After a restart it is asked again.
type notes struct {
	dirty map[state.AppName]bool
	asked map[state.AppName]*askedNote
}

type askedNote struct {
	asked
	want state.NoteWanted
}

func newNotes() notes {
	return notes{dirty: map[state.AppName]bool{}, asked: map[state.AppName]*askedNote{}}
}

// wake is when a note is due to be tried again; 0: never.
func (n *notes) wake() time.Duration {
	var at time.Duration
	for _, a := range n.asked {
		at = soonest(at, a.next)
	}
	return at
}

// touchNotes marks the applications of which a record may want a note.
func (m *Machine) touchNotes(r *state.Record) {
	switch r.Fact.(type) {
	case *state.Converged, *state.RevisionSeen, *state.RevisionApplied, *state.AppDeclared, *state.AppRemoved, *state.DeploymentNoted:
		m.notes.dirty[r.App] = true
	case *state.ControllerStarted:
		for name := range m.fold.Apps {
			m.notes.dirty[name] = true
		}
	}
}

// wantedNote is the note that an application wants, if any: all of the commit is
// there, and the repository doesn't say so yet.
func (m *Machine) wantedNote(name state.AppName) (state.NoteWanted, bool) {
	a := m.fold.Apps[name]
	if a == nil || a.Removed || a.Spec.Notes == "" || !a.Converged || a.Commit.Hash == "" || a.Noted == a.Commit.Hash {
		return state.NoteWanted{}, false
	}
	return state.NoteWanted{App: name, Source: a.Spec.Source, Ref: a.Spec.NotesRef(), Commit: a.Commit.Hash, Seq: a.AppliedSeq, At: a.ConvergedAt}, true
}

// askNotes asks for the notes that are wanted, and again, with back-off, for
// those that couldn't be written.
func (m *Machine) askNotes() {
	for _, name := range sorted(m.notes.dirty) {
		want, ok := m.wantedNote(name)
		switch had := m.notes.asked[name]; {
		case !ok:
			delete(m.notes.asked, name)
		case had == nil || had.want != want:
			m.notes.asked[name] = &askedNote{want: want}
		}
	}
	clear(m.notes.dirty)
	due := map[state.AppName]bool{}
	for name, a := range m.notes.asked {
		if a.tries == 0 || a.next != 0 && a.next <= m.now.Mono {
			due[name] = true
		}
	}
	for _, name := range sorted(due) {
		a := m.notes.asked[name]
		a.tries++
		a.next = 0
		want := a.want
		m.out.Effects = append(m.out.Effects, &want)
	}
}

func (m *Machine) notedEvent(e *state.Noted) {
	a := m.notes.asked[e.App]
	switch {
	case a == nil || a.want.Commit != e.Commit || a.want.Ref != e.Ref:
	case e.Outcome == 0:
		a.again(m.now.Mono)
	default:
		cause := m.cause
		if m.cause == 0 {
			m.cause = e.Seq
		}
		m.emit(e.App, &state.DeploymentNoted{Ref: e.Ref, Commit: e.Commit, Of: e.Seq, Outcome: e.Outcome, Found: e.Found, Detail: e.Detail})
		m.cause = cause
	}
}

// checkNotes is Check's part: looking at every application asks for nothing that
// this step didn't.
func (m *Machine) checkNotes() error {
	for name := range m.fold.Apps {
		want, ok := m.wantedNote(name)
		if had := m.notes.asked[name]; ok != (had != nil) || ok && had.want != want {
			return fmt.Errorf("application %s: incremental planning missed a note", name)
		}
	}
	return nil
}
