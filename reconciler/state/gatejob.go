package state

import (
	"fmt"
	"slices"
)

// GateJobStarted begins a Job that judges a commit for a stage: the intent. Its
// template is a CronJob's of the root, never of the commit that is judged.
type GateJobStarted struct {
	Pipeline PipelineName `json:"pipeline" pb:"1"`
	Stage    string       `json:"stage" pb:"2"` // that the commit would go to
	CronJob  Ref          `json:"cronJob" pb:"3"`
	Template Digest       `json:"template" pb:"4"`
	Job      Ref          `json:"job" pb:"5"`
	Commit   Commit       `json:"commit" pb:"6"`
	Trial    Seq          `json:"trial" pb:"7"` // that the stage before runs meanwhile
	Try      int32        `json:"try" pb:"8"`
}

// GateJobEnded is its outcome.
type GateJobEnded struct {
	Pipeline PipelineName `json:"pipeline" pb:"1"`
	Stage    string       `json:"stage" pb:"2"`
	Job      Ref          `json:"job" pb:"3"`
	Commit   string       `json:"commit" pb:"4"`
	Outcome  GateOutcome  `json:"outcome" pb:"5"`
	Why      JobReason    `json:"why,omitempty" pb:"6"` // in the Job's own words
}

// GateOutcome is how a gate's Job ended.
type GateOutcome uint8

// How gates' Jobs end.
const (
	GatePassed GateOutcome = iota + 1
	GateFailed
	GateVoid // the stage before went on, or the Job's text did: it says nothing of the commit
)

// String is the outcome for people.
func (o GateOutcome) String() string {
	names := [...]string{"", "succeeded", "failed", "void"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// Kind implements Fact.
func (*GateJobStarted) Kind() Kind { return KindGateJobStarted }

// Kind implements Fact.
func (*GateJobEnded) Kind() Kind { return KindGateJobEnded }

// A GateJob is the newest Job of one gate for one tree.
type GateJob struct {
	CronJob  Ref         `pb:"1"`
	Template Digest      `pb:"2"`
	Job      Ref         `pb:"3"`
	Commit   Commit      `pb:"4"`
	Trial    Seq         `pb:"5"`
	Try      int32       `pb:"6"`
	Stage    JobStage    `pb:"7"` // the Job's own, also after it is gone
	Why      JobReason   `pb:"8"`
	Outcome  GateOutcome `pb:"9"`  // 0: not yet
	Ended    Seq         `pb:"10"` // the record that says so
	Started  Seq         `pb:"11"` // the record that began it
	Moved    Seq         `pb:"12"` // the Job's newest
}

// forgetJobs lets no Job count that looked at another spec.
func (l *Line) forgetJobs() {
	for _, u := range l.Stages {
		u.Jobs = slices.DeleteFunc(slices.Clone(u.Jobs), func(j GateJob) bool { return j.Outcome != 0 })
		for i := range u.Jobs {
			u.Jobs[i].Trial = 0
		}
	}
}

// GateJob is the newest Job of a CronJob for a tree, or nil.
func (u *LineUp) GateJob(cron Ref, tree string) *GateJob {
	for i := range u.Jobs {
		if j := &u.Jobs[i]; j.CronJob == cron && j.Commit.Tree == tree {
			return j
		}
	}
	return nil
}

// maxGateJobs bounds what is remembered of a stage's Jobs.
const maxGateJobs = 32

func (s *State) applyGateJob(r *Record) error {
	switch f := r.Fact.(type) {
	case *GateJobStarted:
		if err := s.fire(r, f.Job, f.Template, &Fired{CronJob: f.CronJob, At: r.At.Wall, Gate: string(f.Pipeline) + "/" + f.Stage, Commit: f.Commit.Hash}); err != nil {
			return err
		}
		if u := s.lineUp(f.Pipeline, f.Stage); u != nil {
			u.Jobs = slices.DeleteFunc(slices.Clone(u.Jobs), func(j GateJob) bool { return j.CronJob == f.CronJob && j.Commit.Tree == f.Commit.Tree })
			u.Jobs = last(append(u.Jobs, GateJob{
				CronJob: f.CronJob, Template: f.Template, Job: f.Job, Commit: f.Commit, Trial: f.Trial, Try: f.Try, Started: r.Seq,
			}), maxGateJobs)
		}
	case *GateJobEnded:
		u := s.lineUp(f.Pipeline, f.Stage)
		if u == nil {
			return fmt.Errorf("there is no stage %s/%s", f.Pipeline, f.Stage)
		}
		u.Jobs = slices.Clone(u.Jobs)
		for i := range u.Jobs {
			if j := &u.Jobs[i]; j.Job == f.Job {
				j.Outcome, j.Ended = f.Outcome, r.Seq
			}
		}
	}
	return nil
}

// gateJobMoved follows a Job for the stage that waits for it: the Job itself may be
// gone before anybody looks.
func (s *State) gateJobMoved(r *Record, f *JobMoved) {
	for _, l := range s.Lines {
		for _, u := range l.Stages {
			for i := range u.Jobs {
				if u.Jobs[i].Job == f.Workload && u.Jobs[i].Outcome == 0 {
					u.Jobs = slices.Clone(u.Jobs)
					u.Jobs[i].Stage, u.Jobs[i].Why, u.Jobs[i].Moved = f.Stage, f.Why, r.Seq
				}
			}
		}
	}
}
