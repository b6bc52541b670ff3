package state

import (
	"fmt"
	"maps"
	"slices"
)

// PipelineDeclared adds or changes a pipeline.
type PipelineDeclared struct {
	Pipeline Pipeline `json:"pipeline" pb:"1"`
}

// PipelineRemoved says that a pipeline left the root.
type PipelineRemoved struct {
	Name PipelineName `json:"name" pb:"1"`
}

// CandidateReviewed is what was found out about a commit that may be promoted.
type CandidateReviewed struct {
	Pipeline PipelineName `json:"pipeline" pb:"1"`
	Stage    string       `json:"stage" pb:"2"`
	From     string       `json:"from" pb:"3"` // the branch's head
	To       string       `json:"to" pb:"4"`
	Commits  int32        `json:"commits" pb:"5"` // between the two
	Authors  []Text       `json:"authors,omitempty" pb:"6"`
	Unsigned int32        `json:"unsigned,omitempty" pb:"7"` // commits without a verified signature
	Forward  bool         `json:"forward,omitempty" pb:"8"`  // From is an ancestor of To
	Problems int32        `json:"problems,omitempty" pb:"9"` // of the target's own render
	Held     int32        `json:"held,omitempty" pb:"10"`    // workloads of it that would be held
	Detail   Text         `json:"detail,omitzero" pb:"11"`   // the problems, as printed
}

// PromotionRequested opens a promotion; the record's actor asked for it, or
// nobody had to.
type PromotionRequested struct {
	ID       string       `json:"id" pb:"1"`
	Pipeline PipelineName `json:"pipeline" pb:"2"`
	Stage    string       `json:"stage" pb:"3"`
	Commit   Commit       `json:"commit" pb:"4"`
	Trial    Seq          `json:"trial,omitempty" pb:"5"` // the record that began the commit's test
	Rollback bool         `json:"rollback,omitempty" pb:"6"`
	Override bool         `json:"override,omitempty" pb:"7"` // of the quarantine
}

// PromotionVoted is a person's yes or no, by the record's actor.
type PromotionVoted struct {
	ID      string   `json:"id" pb:"1"`
	Approve bool     `json:"approve,omitempty" pb:"2"`
	As      []string `json:"as,omitempty" pb:"3"` // groups of the actor that the gates name
}

// Evidence is how one gate stood when a promotion went.
type Evidence struct {
	Gate  GateKind `json:"gate" pb:"1"`
	Name  string   `json:"name,omitempty" pb:"2"`
	Have  int64    `json:"have,omitempty" pb:"3"` // nanoseconds of soak, approvals, signed commits
	Want  int64    `json:"want,omitempty" pb:"4"`
	Votes []Seq    `json:"votes,omitempty" pb:"5"` // the records of those who said yes
}

// PromotionStarted is the intent to move a branch: after a crash, what became
// of it is found out by looking at the branch.
type PromotionStarted struct {
	ID       string     `json:"id" pb:"1"`
	Source   AppSource  `json:"source" pb:"2"`
	Old      string     `json:"old" pb:"3"` // what the branch must be at
	New      string     `json:"new" pb:"4"`
	Tree     string     `json:"tree" pb:"5"`
	Object   []byte     `json:"object,omitempty" pb:"6"` // the commit to make; empty: New is there already
	Key      Digest     `json:"key" pb:"7"`              // of idempotency
	Evidence []Evidence `json:"evidence,omitempty" pb:"8"`
}

// PromotionOutcome says how a promotion ended.
type PromotionOutcome uint8

// How promotions end.
const (
	PromotionDone      PromotionOutcome = iota + 1
	PromotionConflict                   // the branch was elsewhere: nothing was pushed
	PromotionRefused                    // the server refuses the push
	PromotionRejected                   // a person said no
	PromotionSkipped                    // a newer one went first, or the branch has the tree
	PromotionWithdrawn                  // its pipeline or stage is gone
)

// String is the outcome for people.
func (o PromotionOutcome) String() string {
	names := [...]string{"", "done", "conflict", "refused", "rejected", "skipped", "withdrawn"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// PromotionEnded is the outcome.
type PromotionEnded struct {
	ID      string           `json:"id" pb:"1"`
	Outcome PromotionOutcome `json:"outcome" pb:"2"`
	Found   string           `json:"found,omitempty" pb:"3"` // where the branch is
	Detail  Text             `json:"detail,omitzero" pb:"4"`
	// Grown says of a conflict that Found goes on from where the branch was expected:
	// what goes next goes from there, also before Found is applied. A branch that went
	// back is for its source to tell: that waits for a person.
	Grown bool `json:"grown,omitempty" pb:"5"`
}

// StageSuspended says whether anything is promoted to a stage.
type StageSuspended struct {
	Pipeline PipelineName `json:"pipeline" pb:"1"`
	Stage    string       `json:"stage" pb:"2"`
	On       bool         `json:"on,omitempty" pb:"3"`
	Until    int64        `json:"until,omitempty" pb:"4"`
	Reason   Text         `json:"reason,omitzero" pb:"115"`
}

// CheckReported is what a system outside said of a commit.
type CheckReported struct {
	Pipeline PipelineName `json:"pipeline" pb:"1"`
	Stage    string       `json:"stage" pb:"2"`
	Name     string       `json:"name" pb:"3"`
	Commit   string       `json:"commit" pb:"4"`
	OK       bool         `json:"ok,omitempty" pb:"5"`
	Detail   Text         `json:"detail,omitzero" pb:"6"`
	Time     int64        `json:"time,omitempty" pb:"115"` // when it was said, by whoever said it
}

// Kind implements Fact.
func (*PipelineDeclared) Kind() Kind { return KindPipelineDeclared }

// Kind implements Fact.
func (*PipelineRemoved) Kind() Kind { return KindPipelineRemoved }

// Kind implements Fact.
func (*CandidateReviewed) Kind() Kind { return KindCandidateReviewed }

// Kind implements Fact.
func (*PromotionRequested) Kind() Kind { return KindPromotionRequested }

// Kind implements Fact.
func (*PromotionVoted) Kind() Kind { return KindPromotionVoted }

// Kind implements Fact.
func (*PromotionStarted) Kind() Kind { return KindPromotionStarted }

// Kind implements Fact.
func (*PromotionEnded) Kind() Kind { return KindPromotionEnded }

// Kind implements Fact.
func (*StageSuspended) Kind() Kind { return KindStageSuspended }

// Kind implements Fact.
func (*CheckReported) Kind() Kind { return KindCheckReported }

func (s *State) applyPromotion(r *Record) error {
	switch f := r.Fact.(type) {
	case *PipelineDeclared:
		s.declareLine(r, &f.Pipeline)
	case *PipelineRemoved:
		delete(s.Lines, f.Name)
	case *PromotionRequested:
		s.PromotionCount++
		s.Promotions[f.ID] = &Promotion{
			ID: f.ID, Pipeline: f.Pipeline, Stage: f.Stage, Commit: f.Commit, Trial: f.Trial, Rollback: f.Rollback, Override: f.Override,
			By: r.Actor, Seq: r.Seq, At: r.At,
		}
	case *PromotionVoted:
		return s.vote(r, f)
	case *PromotionStarted:
		p := s.Promotions[f.ID]
		if p == nil || p.Started != nil {
			return fmt.Errorf("promotion %s isn't waiting", f.ID)
		}
		p.Started = f
	case *PromotionEnded:
		return s.endPromotion(f)
	case *CandidateReviewed:
		if u := s.lineUp(f.Pipeline, f.Stage); u != nil {
			u.Reviews = slices.DeleteFunc(slices.Clone(u.Reviews), func(o Review) bool { return o.From != f.From || o.To == f.To })
			u.Reviews = last(append(u.Reviews, Review{f.From, f.To, f.Commits, f.Authors, f.Unsigned, f.Forward, f.Problems, f.Held, f.Detail, r.At}), maxReviews)
		}
	case *StageSuspended:
		if u := s.lineUp(f.Pipeline, f.Stage); u != nil {
			u.Suspended, u.Until, u.Why, u.By = f.On, f.Until, f.Reason, Text{}
			if f.On {
				u.By = r.Actor
			}
		}
	case *CheckReported:
		if u := s.lineUp(f.Pipeline, f.Stage); u != nil {
			u.Checks = slices.DeleteFunc(slices.Clone(u.Checks), func(c Check) bool { return c.Name == f.Name && c.Commit == f.Commit })
			u.Checks = last(append(u.Checks, Check{f.Name, f.Commit, f.OK, r.Seq, f.Time, f.Detail}), maxChecks)
		}
	}
	return nil
}

func (s *State) lineUp(name PipelineName, stage string) *LineUp {
	if l := s.Lines[name]; l != nil {
		_, u := l.Stage(stage)
		return u
	}
	return nil
}

func last[T any](list []T, most int) []T { return list[max(0, len(list)-most):] }

// declareLine keeps what is known of stages that stay.
func (s *State) declareLine(r *Record, p *Pipeline) {
	l := &Line{Spec: *p, Declared: r.At}
	old := s.Lines[p.Name]
	if old != nil {
		l.Failed = old.Failed
	}
	for i := range p.Stages {
		spec := &p.Stages[i]
		var u *LineUp
		if old != nil {
			if _, u = old.Stage(spec.Name); u != nil && u.App != spec.App {
				u = nil
			}
		}
		if u == nil {
			u = &LineUp{Name: spec.Name, App: spec.App}
			if a := s.Apps[spec.App]; a != nil && a.Commit.Hash != "" {
				u.Head = a.Commit
				u.begin(r, a.Commit, a.Converged)
				if a.Rejected != nil {
					u.Head = a.Rejected.Commit
				}
			}
		}
		u.Reviews = nil // under other rules
		l.Stages = append(l.Stages, u)
	}
	s.Lines[p.Name] = l
}

func (s *State) vote(r *Record, f *PromotionVoted) error {
	p := s.Promotions[f.ID]
	if p == nil {
		return fmt.Errorf("there is no promotion %s", f.ID)
	}
	p.Votes = slices.DeleteFunc(slices.Clone(p.Votes), func(v Vote) bool { return v.By == r.Actor })
	p.Votes = append(p.Votes, Vote{By: r.Actor, Approve: f.Approve, As: f.As, Seq: r.Seq})
	return nil
}

func (s *State) endPromotion(f *PromotionEnded) error {
	p := s.Promotions[f.ID]
	if p == nil {
		return fmt.Errorf("there is no promotion %s", f.ID)
	}
	delete(s.Promotions, f.ID)
	l := s.Lines[p.Pipeline]
	if l == nil {
		return nil
	}
	_, u := l.Stage(p.Stage)
	if u == nil {
		return nil
	}
	from := u.Head.Hash
	if p.Started != nil {
		from = p.Started.Old
	}
	if f.Outcome == PromotionRejected {
		from = ""
	}
	if !p.Rollback {
		u.Tried = last(append(slices.Clone(u.Tried), Tried{Trial: p.Trial, From: from}), maxTried)
	}
	if f.Grown && f.Found != "" && u.Head.Hash == from {
		u.Head = Commit{Hash: f.Found}
	}
	if f.Outcome != PromotionDone {
		return nil
	}
	if p.Rollback {
		l.fail(u.Head.Tree, u.Name, p.Seq) // what was rolled back from
	} else {
		u.Passed = max(u.Passed, p.Trial)
	}
	// Until the branch is looked at again it is known to be here.
	u.Head = Commit{Hash: p.Started.New, Tree: p.Started.Tree}
	return nil
}

// fail quarantines a tree.
func (l *Line) fail(tree, stage string, seq Seq) {
	if tree != "" && !l.Quarantined(tree) {
		l.Failed = last(append(slices.Clone(l.Failed), Quarantine{tree, stage, seq}), maxQuarantine)
	}
}

// begin starts the trial of another commit.
func (u *LineUp) begin(r *Record, c Commit, healthy bool) {
	u.Head = c
	if t := u.Current(); t != nil {
		if t.Commit.Hash == c.Hash {
			return
		}
		t.Soaked = t.Soak(r.At)
		t.Healthy = false
	}
	t := Trial{Seq: r.Seq, Commit: c, Healthy: healthy, Proven: healthy}
	if healthy {
		t.Since = r.At
	}
	u.Trials = last(append(slices.Clone(u.Trials), t), maxTrials)
}

// unsettle ends a soak; on says whether another begins at once.
func (u *LineUp) unsettle(at Instant, on bool) {
	if t := u.Current(); t != nil {
		t.Healthy, t.Since, t.Soaked = on, at, 0
		t.Proven = t.Proven || on
	}
}

// trials follows what a record means for the commits on the stages. It sees the
// state after the record.
func (s *State) trials(r *Record, before Instant) {
	if len(s.Lines) == 0 {
		return
	}
	if _, ok := r.Fact.(*ControllerStarted); ok {
		for _, l := range s.Lines {
			for _, u := range l.Stages {
				if t := u.Current(); t != nil && t.Healthy {
					t.Since = t.Since.Add(r.At.Since(before))
				}
			}
		}
		return
	}
	app := r.App
	if app == "" {
		return
	}
	for _, l := range s.Lines {
		for _, u := range l.Stages {
			if u.App == app {
				s.trial(r, l, u)
			}
		}
	}
}

// redeclared forgets what was tested under another spec: of another source
// everything, of another path all but what runs, whose soak starts again.
func (s *State) redeclared(r *Record, old, now *Application) {
	if old.Source == now.Source && old.Path == now.Path && maps.Equal(old.Substitute, now.Substitute) && slices.Equal(old.Variants, now.Variants) &&
		old.Helm.Release == now.Helm.Release && slices.Equal(old.Helm.ValueFiles, now.Helm.ValueFiles) && slices.Equal(old.IgnoreKinds, now.IgnoreKinds) {
		return
	}
	for _, l := range s.Lines {
		for _, u := range l.Stages {
			if u.App != now.Name {
				continue
			}
			u.Reviews = nil
			l.forgetJobs()
			if old.Source != now.Source {
				u.Trials, u.Head = nil, Commit{}
			}
			if t := u.Current(); t != nil {
				t.Since, t.Proven = r.At, t.Healthy
				u.Trials = []Trial{*t}
			}
		}
	}
}

// soakAgain starts the soak of an application anew: one of its containers did.
func (s *State) soakAgain(r *Record) {
	for _, l := range s.Lines {
		for _, u := range l.Stages {
			if t := u.Current(); u.App == r.App && t != nil && t.Healthy {
				t.Since = r.At
			}
		}
	}
}

func (s *State) trial(r *Record, l *Line, u *LineUp) {
	switch f := r.Fact.(type) {
	case *RevisionApplied:
		head := u.Head
		u.begin(r, f.Commit, false)
		u.unsettle(r.At, false)
		if f.Restores {
			u.Head = head // what runs went back, the branch didn't
		}
	case *RevisionSeen:
		u.begin(r, f.Commit, s.Apps[r.App].Converged)
	case *RevisionRejected:
		u.Head = f.Commit
	case *Converged:
		u.unsettle(r.At, true)
	case *Degraded:
		u.unsettle(r.At, false)
	case *Stalled:
		if t := u.Current(); t != nil {
			t.Failed = true
			u.unsettle(r.At, false)
			l.fail(t.Commit.Tree, u.Name, r.Seq)
		}
	case *AppRemoved:
		u.Trials, u.Head, u.Reviews = nil, Commit{}, nil
	}
}

// clone copies what the fold may change.
func (u *LineUp) clone() *LineUp {
	c := *u
	c.Trials, c.Checks = slices.Clone(u.Trials), slices.Clone(u.Checks)
	c.Reviews, c.Tried, c.Jobs = slices.Clone(u.Reviews), slices.Clone(u.Tried), slices.Clone(u.Jobs)
	return &c
}

// Clone copies what the fold may change.
func (l *Line) Clone() *Line {
	c := *l
	c.Failed = slices.Clone(l.Failed)
	c.Stages = nil
	for _, u := range l.Stages {
		c.Stages = append(c.Stages, u.clone())
	}
	return &c
}

func (s *State) snapPromotion(out *Snapshot) {
	for _, l := range s.SortedLines() {
		out.Lines = append(out.Lines, *l.Clone())
	}
	for _, p := range s.SortedPromotions() {
		c := *p
		c.Votes = slices.Clone(p.Votes)
		out.Promotions = append(out.Promotions, c)
	}
	out.PromotionCount = s.PromotionCount
}

func (s *State) restorePromotion(snap *Snapshot) {
	for i := range snap.Lines {
		l := snap.Lines[i].Clone()
		s.Lines[l.Spec.Name] = l
	}
	for i := range snap.Promotions {
		p := snap.Promotions[i]
		p.Votes = slices.Clone(p.Votes)
		s.Promotions[p.ID] = &p
	}
	s.PromotionCount = snap.PromotionCount
}
