package state

import "slices"

// CmdPortForward says that a person connects to a port of a pod. Its number stands
// apart from those of iota.
const CmdPortForward CommandVerb = 176

// A Session is something that a person does beside the machine, and that hasn't ended:
// exec, port-forward, what is done with a join token.
type Session struct {
	Seq    Seq         `pb:"1"` // of the Commanded
	Verb   CommandVerb `pb:"2"`
	Object Ref         `pb:"3"` // the pod; the JoinToken; the Node that joins
	App    AppName     `pb:"4"`
	Token  string      `pb:"5"` // the ID of the token that a Node joins with
}

// SessionEnded is the outcome of what a person did in a pod.
type SessionEnded struct {
	Session Seq            `json:"session" pb:"1"` // of the Commanded
	Verb    CommandVerb    `json:"verb" pb:"2"`
	Object  Ref            `json:"object" pb:"3"`
	Outcome SessionOutcome `json:"outcome" pb:"4"`
	Code    int32          `json:"code,omitempty" pb:"5"` // exec: the command's exit status
	Detail  Text           `json:"detail,omitzero" pb:"6"`
}

// SessionOutcome says how a session ended.
type SessionOutcome uint8

// How sessions end.
const (
	SessionDone   SessionOutcome = iota + 1
	SessionFailed                // it never began, or broke off: Detail says why
	SessionLost                  // the controller ended meanwhile: nobody knows how it went
)

// String is the outcome for people.
func (o SessionOutcome) String() string {
	names := [...]string{"", "done", "failed", "lost"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// SessionOver tells how a session ended.
type SessionOver struct {
	Session Seq // of the Commanded
	Outcome SessionOutcome
	Code    int32
	Detail  Text
}

func (*SessionOver) event() {}

// Kind implements Fact.
func (*SessionEnded) Kind() Kind { return KindSessionEnded }

// IsSession says whether what a person asks for lasts, and has an end of its own.
func (v CommandVerb) IsSession() bool { return v == CmdExec || v == CmdPortForward }

// SortedSessions are the open sessions, the oldest first.
func (s *State) SortedSessions() []*Session {
	out := make([]*Session, 0, len(s.Sessions))
	for _, x := range s.Sessions {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *Session) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return out
}

func (s *State) applySession(r *Record) {
	switch f := r.Fact.(type) {
	case *Commanded:
		if f.Verb.IsSession() || f.Verb.OfToken() {
			s.Sessions[r.Seq] = &Session{Seq: r.Seq, Verb: f.Verb, Object: f.Object, App: r.App, Token: f.ID}
		}
	case *JoinTokenNoted:
		delete(s.Sessions, r.Cause)
	case *SessionEnded:
		delete(s.Sessions, f.Session)
	}
}
