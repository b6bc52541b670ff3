package rollout

import (
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Kubernetes's job controller waits 10 s after a failure, twice as long after
// each further one, and 10 minutes at most.
const (
	firstBackoff = 10 * time.Second
	lastBackoff  = 10 * time.Minute
)

// A Count is what the end of a Job's pod counts for.
type Count struct {
	Pod     *state.Pod
	Verdict state.Verdict
}

// batch is a Job as its controller sees it: Kubernetes's job_controller.go.
type batch struct {
	step   *Step
	w      *state.Workload
	spec   *batchv1.JobSpec
	job    *state.Job
	now    state.Instant
	active []*state.Pod // of the template wanted now, not ended and not stopping
	ended  []*state.Pod // of it, and left where they ran
	ending int          // told to stop and not yet ended
	old    int          // of another template
	done   []state.Span // Indexed: of the indexes that there are, as the next
	broken []state.Span
}

// jobStep is one pass. What a pod's end counts for is recorded first, then where
// that brings the Job, then what follows: each is planned once the one before
// is in the state.
func jobStep(w *state.Workload, spec *batchv1.JobSpec, now state.Instant) Step {
	var s Step
	b := &batch{step: &s, w: w, spec: spec, job: w.Job, now: now}
	if w.Deleting {
		for _, p := range w.Pods {
			if !p.Stopping {
				s.Stop = append(s.Stop, Stop{p, state.StopPruned})
			}
		}
		return s
	}
	if w.Variants[0].Update == nil {
		return s
	}
	succeeded := w.Job.Succeeded
	for _, p := range w.Pods {
		v := Verdict(w, p, false)
		if v == state.CountSucceeded {
			if spec.Completions != nil && !b.indexed() && succeeded >= *spec.Completions {
				continue
			}
			succeeded++
		}
		if v != 0 {
			s.Count = append(s.Count, Count{p, v})
		}
	}
	if len(s.Count) > 0 {
		return s
	}
	b.done, b.broken = b.job.Done, b.job.Broken
	if b.indexed() {
		// An Indexed Job may be made larger or smaller while it runs.
		n := limit(spec.Completions, 1)
		b.done, b.broken = state.Below(b.done, n), state.Below(b.broken, n)
	}
	b.sort()
	if b.move() {
		return s
	}
	switch {
	case b.job.Stage == state.JobSuspended:
		s.stopAll(b.active, state.StopScaledDown)
		s.Complete = len(b.active) == 0
	case b.job.Over():
		b.over()
	case b.old == 0:
		b.run()
	}
	return s
}

// sort tells the pods apart. Those of another template go, and nothing starts
// before they are gone: a Job that changed runs again, as if it were replaced.
func (b *batch) sort() {
	for _, p := range b.w.Pods {
		switch {
		case !b.w.IsCurrent(p):
			b.old++
			if !p.Stopping {
				b.step.Stop = append(b.step.Stop, Stop{p, state.StopOutdated})
			}
		case p.Ended():
			b.ended = append(b.ended, p)
		case p.Stopping:
			b.ending++
		case p.Lost:
			b.step.Stop = append(b.step.Stop, Stop{p, state.StopNodeLost})
			b.ending++
		default:
			b.active = append(b.active, p)
		}
	}
}

func (b *batch) to(stage state.JobStage, why state.JobReason) bool {
	b.step.Job = &Move{stage, why}
	return true
}

// A Move is the stage that a Job comes to.
type Move struct {
	Stage state.JobStage
	Why   state.JobReason
}

// move says whether the Job comes to another stage now.
func (b *batch) move() bool {
	suspend := b.spec.Suspend != nil && *b.spec.Suspend
	switch {
	case b.job.Over():
		return false
	case suspend && b.job.Stage != state.JobSuspended:
		return b.to(state.JobSuspended, 0)
	case suspend:
		return false
	case b.job.Stage != state.JobRunning:
		return b.to(state.JobRunning, 0)
	case b.job.Abandoned:
		return b.to(state.JobFailed, state.JobPodFailurePolicy)
	case b.failed() > limit(b.spec.BackoffLimit, 6):
		return b.to(state.JobFailed, state.JobBackoffLimitExceeded)
	case b.spec.MaxFailedIndexes != nil && state.Within(b.broken) > *b.spec.MaxFailedIndexes:
		return b.to(state.JobFailed, state.JobMaxFailedIndexesExceeded)
	case b.late():
		return b.to(state.JobFailed, state.JobDeadlineExceeded)
	case b.succeeds():
		return b.to(state.JobComplete, state.JobSuccessPolicy)
	case !b.finished():
		return false
	case len(b.broken) > 0:
		return b.to(state.JobFailed, state.JobFailedIndexes)
	default:
		return b.to(state.JobComplete, state.JobCompletionsReached)
	}
}

func limit(n *int32, otherwise int32) int32 {
	if n == nil {
		return otherwise
	}
	return *n
}

// failed is what backoffLimit limits. With restartPolicy OnFailure the restarts
// of the containers count (Kubernetes: pastBackoffLimitOnFailure).
func (b *batch) failed() int32 {
	n := b.job.Failed
	if b.spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		restarts := int32(0)
		for _, p := range b.active {
			restarts += p.Restarts
		}
		if restarts > 0 {
			// There it is "at least", where for pods it is "more than".
			n = max(n, restarts+1)
		}
	}
	return n
}

// late says whether activeDeadlineSeconds has passed; else it wakes then.
func (b *batch) late() bool {
	if b.spec.ActiveDeadlineSeconds == nil {
		return false
	}
	at := b.job.Started.Mono + time.Duration(*b.spec.ActiveDeadlineSeconds)*time.Second
	if b.now.Mono >= at {
		return true
	}
	b.step.wake(at)
	return false
}

// succeeds says whether a rule of successPolicy is met.
func (b *batch) succeeds() bool {
	if b.spec.SuccessPolicy == nil {
		return false
	}
	for i := range b.spec.SuccessPolicy.Rules {
		rule := &b.spec.SuccessPolicy.Rules[i]
		done := b.done
		need := state.Within(done)
		if rule.SucceededIndexes != nil {
			wanted, err := ParseIndexes(*rule.SucceededIndexes, math.MaxInt32)
			if err != nil {
				continue // validation refused it
			}
			done, need = both(done, wanted), state.Within(wanted)
		} else if rule.SucceededCount == nil {
			continue
		}
		if rule.SucceededCount != nil {
			need = *rule.SucceededCount
		}
		if state.Within(done) >= need {
			return true
		}
	}
	return false
}

// both are the indexes that are in each of two lists of spans.
func both(a, b []state.Span) []state.Span {
	var out []state.Span
	for i, j := 0, 0; i < len(a) && j < len(b); {
		s := state.Span{From: max(a[i].From, b[j].From), To: min(a[i].To, b[j].To)}
		if s.From <= s.To {
			out = append(out, s)
		}
		if a[i].To < b[j].To {
			i++
		} else {
			j++
		}
	}
	return out
}

func (b *batch) indexed() bool {
	return b.spec.CompletionMode != nil && *b.spec.CompletionMode == batchv1.IndexedCompletion
}

// finished says whether as many have succeeded as are wanted.
func (b *batch) finished() bool {
	switch {
	case b.indexed():
		return state.Within(b.done)+state.Within(b.broken) >= limit(b.spec.Completions, 1)
	case b.spec.Completions == nil:
		return b.job.Succeeded > 0 && len(b.active) == 0 && b.ending == 0
	default:
		return b.job.Succeeded >= *b.spec.Completions
	}
}

// over is a Job that ended: what still runs is stopped, and what ended stays to
// be looked at until its time is up.
func (b *batch) over() {
	b.step.stopAll(b.active, state.StopFinished)
	b.step.Complete = b.job.Stage == state.JobComplete && len(b.active) == 0
	if b.spec.TTLSecondsAfterFinished == nil {
		return
	}
	at := b.job.Ended.Mono + time.Duration(*b.spec.TTLSecondsAfterFinished)*time.Second
	if b.now.Mono < at {
		b.step.wake(at)
		return
	}
	for _, p := range b.ended {
		if !p.Stopping {
			b.step.Stop = append(b.step.Stop, Stop{p, state.StopFinished})
		}
	}
	b.step.Expired = b.w.Parent != nil
}

// run starts what is missing and stops what is too much.
func (b *batch) run() {
	parallelism := int(limit(b.spec.Parallelism, 1))
	want := parallelism
	switch {
	case b.indexed():
		if b.beyond() {
			return
		}
	case b.spec.Completions == nil:
		if b.job.Succeeded > 0 {
			want = min(want, len(b.active)) // one has the answer: no others start
		}
	default:
		want = min(want, int(*b.spec.Completions-b.job.Succeeded))
	}
	if n := len(b.active) - want; n > 0 {
		pods := slices.Clone(b.active)
		sortGoing(pods, pods)
		b.step.stopAll(pods[:n], state.StopScaledDown)
		return
	}
	taken := len(b.active)
	if b.spec.PodReplacementPolicy != nil && *b.spec.PodReplacementPolicy == batchv1.Failed {
		taken += b.ending
	}
	lack := want - taken
	if lack <= 0 {
		return
	}
	v := b.w.Variants[0]
	if b.indexed() {
		if indexes := b.missing(lack); len(indexes) > 0 {
			b.step.Start = append(b.step.Start, Start{Variant: v, Template: v.Update, Count: len(indexes), Ordinal: -1, Ordinals: indexes})
		}
		return
	}
	if !b.rests(b.job.Streak, b.job.LastFailure) {
		b.step.Start = append(b.step.Start, Start{Variant: v, Template: v.Update, Count: lack, Ordinal: -1})
	}
}

// beyond stops the pods of indexes that there are no more, and says whether there
// were any.
func (b *batch) beyond() bool {
	n := len(b.step.Stop)
	for _, p := range b.active {
		if p.Ordinal >= limit(b.spec.Completions, 1) {
			b.step.Stop = append(b.step.Stop, Stop{p, state.StopScaledDown})
		}
	}
	return len(b.step.Stop) > n
}

// rests says whether a failure is too fresh to try again; it wakes when it isn't.
func (b *batch) rests(failures int32, last state.Instant) bool {
	if failures == 0 {
		return false
	}
	wait := lastBackoff
	if failures <= 6 {
		wait = min(wait, firstBackoff<<(failures-1))
	}
	if at := last.Mono + wait; b.now.Mono < at {
		b.step.wake(at)
		return true
	}
	return false
}

// missing are the lowest indexes that neither have succeeded nor run nor are
// given up.
func (b *batch) missing(most int) []int32 {
	perIndex := b.spec.BackoffLimitPerIndex != nil
	if !perIndex && b.rests(b.job.Streak, b.job.LastFailure) {
		return nil
	}
	busy := map[int32]bool{}
	hold := b.spec.PodReplacementPolicy != nil && *b.spec.PodReplacementPolicy == batchv1.Failed
	for _, p := range b.w.Pods {
		busy[p.Ordinal] = busy[p.Ordinal] || !p.Ended() && (!p.Stopping || hold)
	}
	var out []int32
	for i := int32(0); i < limit(b.spec.Completions, 1) && len(out) < most; i++ {
		if state.Holds(b.job.Done, i) || state.Holds(b.job.Broken, i) || busy[i] {
			continue
		}
		if try := b.job.Failures(i); perIndex && b.rests(try.Failures, try.Last) {
			continue
		}
		out = append(out, i)
	}
	return out
}
