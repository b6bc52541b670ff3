package reconciler

import "github.com/tandem-gitops/tandem/reconciler/state"

// sessionOver records how something that a person did in a pod ended.
func (m *Machine) sessionOver(e *state.SessionOver) {
	x := m.fold.Sessions[e.Session]
	if x == nil {
		return // it was told before
	}
	m.endSession(x, &state.SessionEnded{Outcome: e.Outcome, Code: e.Code, Detail: e.Detail})
}

// lostSessions ends those of the controller before: their connections went with it.
func (m *Machine) lostSessions() {
	for _, x := range m.fold.SortedSessions() {
		if x.Verb.OfToken() {
			continue // the shell looks at the tokens, and tells
		}
		m.endSession(x, &state.SessionEnded{Outcome: state.SessionLost})
	}
}

func (m *Machine) endSession(x *state.Session, f *state.SessionEnded) {
	f.Session, f.Verb, f.Object = x.Seq, x.Verb, x.Object
	cause := m.cause
	defer func() { m.cause = cause }()
	m.cause = x.Seq
	m.emit(x.App, f)
}
