package state

import "fmt"

// NoteWanted asks to write in an application's repository that one of its
// commits is deployed, beside the log's signed head. The answer is Noted. It may
// come again: a note that is there already is done.
type NoteWanted struct {
	App    AppName
	Source AppSource
	Ref    string // "refs/notes/tandem/prod"
	Commit string
	Seq    Seq     // of the record that says so
	At     Instant // of that record
}

// Noted answers a NoteWanted.
type Noted struct {
	App     AppName
	Ref     string
	Commit  string
	Seq     Seq
	Outcome NoteOutcome // 0: the repository doesn't answer, it is tried again
	Found   string      // where the ref is then
	Detail  Text
}

// NoteOutcome says what became of a note.
type NoteOutcome uint8

// What becomes of notes.
const (
	NoteWritten NoteOutcome = iota + 1
	NoteRefused             // by the server, or because there is nowhere to write it
)

// DeploymentNoted is the outcome of writing a note: what was deployed is told by
// the record that it names.
type DeploymentNoted struct {
	Ref     string      `json:"ref" pb:"1"`
	Commit  string      `json:"commit" pb:"2"`
	Of      Seq         `json:"of" pb:"3"` // the record that the note tells of
	Outcome NoteOutcome `json:"outcome" pb:"4"`
	Found   string      `json:"found,omitempty" pb:"5"` // the notes' commit
	Detail  Text        `json:"detail,omitzero" pb:"6"`
}

// Kind implements Fact.
func (*DeploymentNoted) Kind() Kind { return KindDeploymentNoted }

func (*NoteWanted) effect() {}
func (*Noted) event()       {}

// NotesRef is the full name of the ref that an application's notes lie at; empty
// where none are wanted.
func (a *Application) NotesRef() string {
	if a.Notes == "" {
		return ""
	}
	return "refs/notes/" + a.Notes
}

func (s *State) noted(r *Record, f *DeploymentNoted) error {
	a := s.Apps[r.App]
	if a == nil {
		return fmt.Errorf("application %q is not declared", r.App)
	}
	a.Noted = f.Commit
	return nil
}
