package state

import (
	"slices"
	"time"
)

// Rollout says when an application's revision counts as failed, and what then.
type Rollout struct {
	OnFailure OnFailure `json:"onFailure,omitempty" pb:"1"`
	// HealthTimeout is how long a revision may take to be reached whole; 0: as
	// long as each of its workloads makes progress within its own deadline.
	HealthTimeout time.Duration `json:"healthTimeout,omitempty" pb:"2"`
}

// DefaultRollout is what an Application asks for that says nothing. It is
// written into AppDeclared: a log from before restoring was the default folds
// to what it meant then.
func DefaultRollout() Rollout { return Rollout{OnFailure: RestoreGood} }

// OnFailure is what becomes of a revision that failed.
type OnFailure uint8

// What becomes of a revision that failed.
const (
	HoldOn      OnFailure = iota // it stays, and waits for a newer commit
	RestoreGood                  // the last one that was reached whole is applied again
)

// String is the word as it is written.
func (o OnFailure) String() string {
	if o == RestoreGood {
		return "restore"
	}
	return "hold"
}

// A Good is the last revision that an application reached whole.
type Good struct {
	Revision Revision `pb:"1"`
	Commit   Commit   `pb:"2"`
	Manifest Digest   `pb:"3"`
}

// A FailedRevision is a revision that an application was taken back from. Its render
// isn't applied again unless a person says so.
type FailedRevision struct {
	Revision Revision `pb:"1"`
	Manifest Digest   `pb:"2"`
	Workload Ref      `pb:"3"` // the first that made no progress
	At       Instant  `pb:"4"`
	Good     Revision `pb:"5"` // that was restored
}

// maxFailed is how many renders that failed an application remembers, besides the
// newest.
const maxFailed = 64

// FailedAs is how a render failed; false where it didn't, or a person has let it
// go on since.
func (a *App) FailedAs(manifest Digest) (FailedRevision, bool) {
	if a.Failed.Manifest == manifest {
		return a.Failed, true
	}
	i := slices.IndexFunc(a.FailedBefore, func(f FailedRevision) bool { return f.Manifest == manifest })
	if i < 0 {
		return FailedRevision{}, false
	}
	return a.FailedBefore[i], true
}

// shelve puts the newest failure with those before it, and forgets that of a
// render that is applied now, or failed again.
func (a *App) shelve(now Digest) {
	before := slices.Clone(a.FailedBefore)
	if !a.Failed.Manifest.IsZero() {
		before = append(before, a.Failed)
	}
	before = slices.DeleteFunc(before, func(f FailedRevision) bool { return f.Manifest == now })
	a.Failed, a.FailedBefore = FailedRevision{}, before[max(0, len(before)-maxFailed):]
}

// AppQuarantined says that an application's revision failed; the record after
// it applies the last good one again.
type AppQuarantined struct {
	Revision Revision `json:"revision" pb:"1"`
	Manifest Digest   `json:"manifest" pb:"2"`
	Workload Ref      `json:"workload" pb:"3"`
	Good     Revision `json:"good" pb:"4"`
}

// Kind implements Fact.
func (*AppQuarantined) Kind() Kind { return KindAppQuarantined }

// reached notes that an application's revision was reached whole. What its image
// names meant is kept for as long as it may be restored.
func (s *State) reached(a *App) {
	if a.Good.Manifest != a.Manifest {
		s.forgetImages(a, a.Good.Manifest)
	}
	a.Good = Good{Revision: a.Revision, Commit: a.Commit, Manifest: a.Manifest}
}
