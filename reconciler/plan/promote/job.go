package promote

import (
	"fmt"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// How a job gate stands, in Result.Have.
const (
	JobLacks   = -3 // the root has no such CronJob
	JobNotMade = -2 // the CronJob is held: its pods can't be made
	JobWaits   = -1 // for the stages before to run the commit
	JobFailed  = 0
	JobPassed  = 1
	JobRuns    = 2
)

// job asks that the root's Job succeeded while the stages before ran the commit.
// The Job is one of a CronJob's template at the root's ref: a commit brings no
// judge of its own.
func (v *view) job(g *state.Gate, commit *state.Commit) Result {
	r := Result{Gate: g.Kind, Name: cronOf(g).String(), Have: JobWaits, Want: JobPassed}
	cron, template := v.cronJob(g)
	switch {
	case cron == nil:
		r.Have = JobLacks
		return r
	case template == nil:
		r.Have = JobNotMade
		return r
	}
	j := v.up.GateJob(cron.Ref, commit.Tree)
	if j == nil || !v.counts(j, template) {
		return r
	}
	switch j.Outcome {
	case 0:
		r.Have = JobRuns
	case state.GatePassed:
		r.Have, r.Pass = JobPassed, true
		r.Votes = []state.Seq{j.Ended}
	case state.GateFailed:
		r.Have = JobFailed
		r.Votes = []state.Seq{j.Ended}
	case state.GateVoid:
	}
	return r
}

// JobSays is how a job gate stands, for people.
func (r *Result) JobSays() string {
	switch r.Have {
	case JobLacks:
		return "the root has no " + r.Name
	case JobNotMade:
		return r.Name + " is held"
	case JobFailed:
		return r.Name + " failed"
	case JobPassed:
		return r.Name + " succeeded"
	case JobRuns:
		return r.Name + " runs"
	default:
		return r.Name + " waits for the commit to run on the stages before"
	}
}

func cronOf(g *state.Gate) state.Ref {
	return state.Ref{Kind: "CronJob", Namespace: g.Namespace, Name: g.Name}
}

// cronJob is what a gate's Job is made from: the root's own, and the template that
// its newest text makes; nil while it makes none.
func (v *view) cronJob(g *state.Gate) (*state.Workload, *state.Template) {
	w := v.s.Workloads[cronOf(g)]
	if w == nil || w.App != state.RootApp || w.Deleting {
		return nil, nil
	}
	if !w.Complete || len(w.Variants) != 1 {
		return w, nil
	}
	return w, w.Variants[0].Update
}

// counts says whether a Job is of the template as it is now, and of the commit's
// newest time on the stage before.
func (v *view) counts(j *state.GateJob, template *state.Template) bool {
	t := v.trial(v.stage.After[0], j.Commit.Tree)
	return t != nil && t.Seq == j.Trial && j.Template == template.Digest
}

// meanwhile says whether every stage before runs the tree now.
func (v *view) meanwhile(tree string) bool {
	for _, name := range v.stage.After {
		_, up := v.line.Stage(name)
		if t := up.Current(); t == nil || t.Commit.Tree != tree {
			return false
		}
	}
	return true
}

// jobs ends what came to its end or no longer counts, and begins what is missing:
// for what waits, and for what could be asked for, so that asking is answered at
// once.
func (v *view) jobs() state.Fact {
	for i := range v.up.Jobs {
		if f := v.jobEnded(&v.up.Jobs[i]); f != nil {
			return f
		}
	}
	if v.up.Suspended || len(v.stage.After) == 0 {
		return nil
	}
	for _, p := range v.open() {
		if p.Rollback {
			continue
		}
		if f := v.jobStarted(&p.Commit, p); f != nil {
			return f
		}
	}
	if t := v.candidate(func(*state.Trial) bool { return true }); t != nil {
		return v.jobStarted(&t.Commit, nil)
	}
	return nil
}

// jobEnded is the outcome of a Job; nil: it goes on, or its outcome is known.
func (v *view) jobEnded(j *state.GateJob) state.Fact {
	if j.Outcome != 0 {
		return nil
	}
	f := &state.GateJobEnded{Pipeline: v.line.Spec.Name, Stage: v.stage.Name, Job: j.Job, Commit: j.Commit.Hash, Why: j.Why}
	w := v.s.Workloads[j.Job]
	over := j.Stage == state.JobComplete || j.Stage == state.JobFailed
	switch {
	case !v.wanted(j) || !over && (w == nil || w.Deleting):
		f.Outcome = state.GateVoid
	case j.Stage == state.JobComplete:
		f.Outcome = state.GatePassed
	case j.Stage == state.JobFailed:
		f.Outcome = state.GateFailed
	default:
		return nil
	}
	return f
}

// wanted says whether a gate still asks for what the Job says.
func (v *view) wanted(j *state.GateJob) bool {
	for i := range v.stage.Gates {
		g := &v.stage.Gates[i]
		if g.Kind != state.GateJobs || cronOf(g) != j.CronJob {
			continue
		}
		_, template := v.cronJob(g)
		return template != nil && v.counts(j, template) && v.meanwhile(j.Commit.Tree)
	}
	return false
}

// jobStarted begins the first Job that a commit lacks, while all stages before run
// it and are available. One that failed runs again where a person asked for the
// promotion after it did.
func (v *view) jobStarted(commit *state.Commit, p *state.Promotion) state.Fact {
	if v.line.Quarantined(commit.Tree) && (p == nil || !p.Override) || !v.meanwhile(commit.Tree) || !v.available() {
		return nil
	}
	for i := range v.stage.Gates {
		g := &v.stage.Gates[i]
		if g.Kind != state.GateJobs {
			continue
		}
		cron, template := v.cronJob(g)
		if template == nil {
			continue
		}
		try := int32(1)
		if j := v.up.GateJob(cron.Ref, commit.Tree); j != nil {
			again := j.Outcome == state.GateFailed && p != nil && !p.By.IsZero() && p.Seq > j.Ended
			if v.counts(j, template) && j.Outcome != state.GateVoid && !again {
				continue
			}
			try = j.Try + 1
		}
		f := &state.GateJobStarted{
			Pipeline: v.line.Spec.Name, Stage: v.stage.Name, CronJob: cron.Ref, Template: template.Digest, Commit: *commit,
			Trial: v.trial(v.stage.After[0], commit.Tree).Seq, Try: try,
		}
		// One that was forgotten, under another spec of the stage, may still be there.
		for f.Job = jobName(f); v.s.Workloads[f.Job] != nil || v.s.Objects[f.Job] != nil; f.Job = jobName(f) {
			f.Try++
		}
		return f
	}
	return nil
}

// available says whether all stages before are, as a whole.
func (v *view) available() bool {
	for _, name := range v.stage.After {
		if _, up := v.line.Stage(name); !up.Current().Healthy {
			return false
		}
	}
	return true
}

// jobName follows from what the Job is for: a CronJob's name and eight hexadecimal
// digits.
func jobName(f *state.GateJobStarted) state.Ref {
	d := state.DigestOf(fmt.Appendf(nil, "%s/%s/%s/%x/%d/%d", f.Pipeline, f.Stage, f.Commit.Tree, f.Template[:], f.Trial, f.Try))
	return state.Ref{Kind: "Job", Namespace: f.CronJob.Namespace, Name: fmt.Sprintf("%s-%x", f.CronJob.Name, d[:4])}
}
