package plan

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Fire begins a CronJob's next Job.
type Fire struct {
	Job    state.Ref
	At     int64 // wall nanoseconds: the time that was due
	Missed int32
}

// A Drop ends one of its Jobs.
type Drop struct {
	Job *state.Workload
	Why state.DropWhy
}

// cron decides for a CronJob: Kubernetes's cronjob_controllerv2.go. It goes by
// the wall clock; what passed while nothing ran is made up for once, by the
// newest time that was due.
func (p *Planner) cron(d *Decision, s *state.State, w *state.Workload, spec *batchv1.CronJobSpec, now state.Instant) {
	children := w.Children()
	if w.Deleting {
		d.Gone = len(children) == 0
		return
	}
	history(d, children, spec)
	if d.Waiting || len(d.Held) > 0 {
		return // it has no template to begin a Job with
	}
	d.Complete = true
	calendar, err := NewCalendar(spec.Schedule, spec.TimeZone)
	if err != nil || spec.Suspend != nil && *spec.Suspend {
		return // validation refused the one, a person wants the other
	}
	since := max(w.Cron.Since, w.Cron.Last)
	if limit := spec.StartingDeadlineSeconds; limit != nil {
		since = max(since, now.Wall-*limit*int64(time.Second)-1)
	}
	at, missed := calendar.due(since, now.Wall)
	if next := calendar.next(now.Wall); next != 0 {
		d.Wake = now.Mono + max(time.Second, time.Duration(next-now.Wall))
	}
	if at == 0 {
		return
	}
	var active []*state.Workload
	for _, c := range children {
		if !c.Job.Over() && !c.Deleting && c.Parent.Gate == "" {
			active = append(active, c)
		}
	}
	switch {
	case spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(active) > 0:
		return // its end is what is waited for
	case spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		for _, c := range active {
			d.Drop = append(d.Drop, Drop{c, state.DropReplaced})
		}
	}
	ref := state.Ref{Kind: "Job", Namespace: w.Ref.Namespace, Name: jobName(w, at)}
	if s.Workloads[ref] == nil && s.Objects[ref] == nil {
		d.Fire = &Fire{Job: ref, At: at, Missed: missed}
	}
}

// jobName is Kubernetes's: the minutes since 1970 of the time that was due.
func jobName(w *state.Workload, at int64) string {
	return fmt.Sprintf("%s-%d", w.Ref.Name, at/int64(time.Minute))
}

// history drops the oldest of the Jobs that ended, beyond what is kept.
func history(d *Decision, children []*state.Workload, spec *batchv1.CronJobSpec) {
	keep := map[state.JobStage]int{state.JobComplete: 3, state.JobFailed: 1}
	if n := spec.SuccessfulJobsHistoryLimit; n != nil {
		keep[state.JobComplete] = int(*n)
	}
	if n := spec.FailedJobsHistoryLimit; n != nil {
		keep[state.JobFailed] = int(*n)
	}
	for _, c := range slices.Backward(children) {

		if !c.Job.Over() || c.Deleting {
			continue
		}
		if keep[c.Job.Stage]--; keep[c.Job.Stage] < 0 {
			d.Drop = append(d.Drop, Drop{c, state.DropHistory})
		}
	}
}
