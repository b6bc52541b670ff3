package state

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
)

// A Job is how far a workload of kind Job has come. Each end of a pod is counted
// once, by its own record, before the pod may go (Kubernetes: the finalizer
// batch.kubernetes.io/job-tracking).
type Job struct {
	Stage       JobStage  `pb:"1"`
	Why         JobReason `pb:"2"` // of Complete and Failed
	Started     Instant   `pb:"3"` // when it was last let run
	Ended       Instant   `pb:"4"`
	Succeeded   int32     `pb:"5"`
	Failed      int32     `pb:"6"`
	Done        []Span    `pb:"7"` // Indexed: indexes that succeeded
	Broken      []Span    `pb:"8"` // backoffLimitPerIndex: indexes that are given up
	Streak      int32     `pb:"9"` // failures since the last success
	LastFailure Instant   `pb:"10"`
	Tries       []Try     `pb:"11"` // backoffLimitPerIndex: sorted by index
	Abandoned   bool      `pb:"12"` // podFailurePolicy said FailJob
}

// A Span is the indexes From to To, both in it.
type Span struct {
	From int32 `json:"from" pb:"1"`
	To   int32 `json:"to" pb:"2"`
}

// A Try is how often one index has failed, and when last.
type Try struct {
	Index    int32   `pb:"1"`
	Failures int32   `pb:"2"`
	Last     Instant `pb:"3"`
}

// JobStage is what a Job is at.
type JobStage uint8

// The stages of a Job. The last two are its end.
const (
	JobRunning JobStage = iota + 1
	JobSuspended
	JobComplete
	JobFailed
)

// String is the stage for people.
func (s JobStage) String() string {
	names := [...]string{"waiting", "running", "suspended", "complete", "failed"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// JobReason is why a Job ended.
type JobReason uint8

// Why a Job ended, in Kubernetes's words.
const (
	JobCompletionsReached JobReason = iota + 1
	JobSuccessPolicy
	JobBackoffLimitExceeded
	JobDeadlineExceeded
	JobPodFailurePolicy
	JobFailedIndexes
	JobMaxFailedIndexesExceeded
)

// String is Kubernetes's spelling.
func (r JobReason) String() string {
	names := [...]string{
		"", "CompletionsReached", "SuccessPolicy", "BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "FailedIndexes",
		"MaxFailedIndexesExceeded",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "Unknown"
}

// Verdict is what the end of a Job's pod counts for.
type Verdict uint8

// The verdicts on a pod that ended.
const (
	CountSucceeded Verdict = iota + 1
	CountFailed
	CountIgnored   // podFailurePolicy: replaced, and not counted
	CountFailIndex // failed, and its index is given up
	CountFailJob   // failed, and the Job with it
)

// String is the verdict for people.
func (v Verdict) String() string {
	names := [...]string{"", "succeeded", "failed", "ignored", "failed its index", "failed the Job"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// PodCounted says what the end of a Job's pod counts for. There is one for each
// pod, and it comes before PodGone.
type PodCounted struct {
	UID     UID     `json:"uid" pb:"1"`
	Verdict Verdict `json:"verdict" pb:"2"`
}

// JobMoved says that a Job came to another stage.
type JobMoved struct {
	Workload Ref       `json:"workload" pb:"1"`
	Stage    JobStage  `json:"stage" pb:"2"`
	Why      JobReason `json:"why,omitempty" pb:"3"`
}

// Kind implements Fact.
func (*PodCounted) Kind() Kind { return KindPodCounted }

// Kind implements Fact.
func (*JobMoved) Kind() Kind { return KindJobMoved }

// BatchJob returns the workload's object as a Job.
func (w *Workload) BatchJob() (*batchv1.Job, bool) {
	j, ok := w.Owned.Object.First().(*batchv1.Job)
	return j, ok
}

// Over says whether the Job came to its end.
func (j *Job) Over() bool { return j.Stage == JobComplete || j.Stage == JobFailed }

// Holds says whether an index is within the spans.
func Holds(spans []Span, index int32) bool {
	i, ok := slices.BinarySearchFunc(spans, index, func(s Span, n int32) int {
		switch {
		case s.To < n:
			return -1
		case s.From > n:
			return 1
		default:
			return 0
		}
	})
	return ok && i < len(spans)
}

// Within is how many indexes the spans hold.
func Within(spans []Span) int32 {
	n := int32(0)
	for _, s := range spans {
		n += s.To - s.From + 1
	}
	return n
}

// Below are the spans' indexes that are less than n.
func Below(spans []Span, n int32) []Span {
	for i, s := range spans {
		if s.To >= n {
			out := slices.Clone(spans[:i])
			if s.From < n {
				out = append(out, Span{s.From, n - 1})
			}
			return out
		}
	}
	return spans
}

// with adds an index to spans, which stay sorted and as few as can be. They are
// cloned: a snapshot may share them.
func with(spans []Span, index int32) []Span {
	if Holds(spans, index) {
		return spans
	}
	out := make([]Span, 0, len(spans)+1)
	added := false
	for _, s := range spans {
		if !added && index < s.From {
			out, added = join(out, Span{index, index}), true
		}
		out = join(out, s)
	}
	if !added {
		out = join(out, Span{index, index})
	}
	return out
}

func join(spans []Span, s Span) []Span {
	if n := len(spans); n > 0 && spans[n-1].To+1 == s.From {
		spans[n-1].To = s.To
		return spans
	}
	return append(spans, s)
}

// Failures is how often an index has failed, and when last.
func (j *Job) Failures(index int32) Try {
	i, ok := slices.BinarySearchFunc(j.Tries, index, func(t Try, n int32) int { return int(t.Index) - int(n) })
	if !ok {
		return Try{Index: index}
	}
	return j.Tries[i]
}

// count folds the end of a pod.
func (j *Job) count(r *Record, p *Pod, v Verdict) {
	switch v {
	case CountSucceeded:
		j.Streak = 0
		if p.Ordinal >= 0 {
			j.Done = with(j.Done, p.Ordinal)
			j.Succeeded = Within(j.Done)
		} else {
			j.Succeeded++
		}
		return
	case CountIgnored:
		return
	case CountFailed:
	case CountFailIndex:
		j.Broken = with(j.Broken, p.Ordinal)
	case CountFailJob:
		j.Abandoned = true
	}
	j.Failed++
	j.Streak++
	j.LastFailure = r.At
	if p.Ordinal < 0 {
		return
	}
	try := j.Failures(p.Ordinal)
	try.Failures, try.Last = try.Failures+1, r.At
	i, ok := slices.BinarySearchFunc(j.Tries, p.Ordinal, func(t Try, n int32) int { return int(t.Index) - int(n) })
	j.Tries = slices.Clone(j.Tries)
	if ok {
		j.Tries[i] = try
	} else {
		j.Tries = slices.Insert(j.Tries, i, try)
	}
}

func (s *State) applyJob(r *Record) error {
	switch f := r.Fact.(type) {
	case *PodCounted:
		p := s.Pods[f.UID]
		if p == nil {
			return fmt.Errorf("there is no pod %s", f.UID)
		}
		p.Counted, p.Changed = true, r.Seq
		if w := s.Workloads[p.Workload]; w != nil && w.Job != nil {
			w.Job.count(r, p, f.Verdict)
			w.Progress = r.At
		}
	case *JobMoved:
		w, err := s.workload(f.Workload)
		if err != nil {
			return err
		}
		if w.Job == nil {
			return fmt.Errorf("%s is no Job", f.Workload)
		}
		w.Job.move(r, f)
		w.IsStalled = f.Stage == JobFailed
		if w.Parent != nil && w.Parent.Gate == "" && f.Stage == JobComplete {
			if cron := s.Workloads[w.Parent.CronJob]; cron != nil && cron.Cron != nil {
				cron.Cron.Success = r.At.Wall
			}
		}
		w.Complete = false
		if w.Parent != nil && w.Parent.Gate != "" {
			s.gateJobMoved(r, f)
		}
	}
	return nil
}

// move folds a stage: a Job that is let run again begins its time anew
// (Kubernetes: startTime).
func (j *Job) move(r *Record, f *JobMoved) {
	j.Stage, j.Why = f.Stage, f.Why
	switch f.Stage {
	case JobRunning:
		j.Started, j.Streak = r.At, 0
	case JobSuspended:
		j.Started = Instant{}
	case JobComplete, JobFailed:
		j.Ended = r.At
	}
}
