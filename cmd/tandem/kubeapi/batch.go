package kubeapi

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// jobTally is what of a Job's pods is there.
type jobTally struct{ active, ready, ending int32 }

func countJob(w *state.Workload) jobTally {
	var t jobTally
	for _, p := range w.Pods {
		switch {
		case p.Ended():
		case p.Stopping:
			t.ending++
		default:
			t.active++
			if p.Ready && !p.Lost {
				t.ready++
			}
		}
	}
	return t
}

func (a *api) scanJobs(s *scan) {
	for ref, w := range s.state.Workloads {
		j, ok := w.BatchJob()
		if !ok || w.Job == nil {
			continue
		}
		t := countJob(w)
		k, uid := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, w.Created))
		f := fingerStart.num(uint64(t.active)).num(uint64(t.ready)).num(uint64(t.ending)).num(uint64(w.Job.Succeeded)).num(uint64(w.Job.Failed)).
			num(uint64(w.Job.Stage)).at(w.Job.Started).num(uint64(w.Owned.Changed)).flag(w.Deleting).num(uint64(state.Within(w.Job.Broken)))
		for _, h := range w.Holds {
			f = f.num(uint64(h.Seq))
		}
		if !s.same(k, uid, f) {
			s.put(k, uid, f, a.job(s.state, w, j, t))
		}
	}
}

func (a *api) job(s *state.State, w *state.Workload, j *batchv1.Job, t jobTally) *batchv1.Job {
	out := &batchv1.Job{ObjectMeta: workloadMeta(s, w), Spec: *j.Spec.DeepCopy()}
	yes := true
	if w.Parent != nil {
		out.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "batch/v1", Kind: "CronJob", Name: w.Parent.CronJob.Name, UID: parentUID(s, w), Controller: &yes, BlockOwnerDeletion: &yes,
		}}
	}
	out.Spec.Template.Spec = *podSpec(&j.Spec.Template.Spec)
	out.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.JobNameLabel: w.Ref.Name}}
	st := &out.Status
	st.Active, st.Succeeded, st.Failed, st.Ready, st.Terminating = t.active, w.Job.Succeeded, w.Job.Failed, &t.ready, &t.ending
	if !w.Job.Started.IsZero() {
		at := metav1.NewTime(w.Job.Started.Time())
		st.StartTime = &at
	}
	if j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion {
		st.CompletedIndexes = report.Indexes(w.Job.Done)
		if j.Spec.BackoffLimitPerIndex != nil {
			broken := report.Indexes(w.Job.Broken)
			st.FailedIndexes = &broken
		}
	}
	a.jobConditions(w, st, t.active+t.ending > 0)
	return out
}

// jobConditions are Kubernetes's: while pods of a Job that has its outcome still
// run, only what it will be is said (SuccessCriteriaMet, FailureTarget).
func (a *api) jobConditions(w *state.Workload, st *batchv1.JobStatus, runs bool) {
	set := func(t batchv1.JobConditionType, at state.Instant, reason, message string) {
		when := metav1.NewTime(at.Time())
		st.Conditions = append(st.Conditions, batchv1.JobCondition{
			Type: t, Status: corev1.ConditionTrue, LastTransitionTime: when, LastProbeTime: when, Reason: reason, Message: message,
		})
	}
	switch w.Job.Stage {
	case state.JobComplete:
		set(batchv1.JobSuccessCriteriaMet, w.Job.Ended, w.Job.Why.String(), jobWords(w))
		if !runs {
			at := metav1.NewTime(w.Job.Ended.Time())
			st.CompletionTime = &at
			set(batchv1.JobComplete, w.Job.Ended, w.Job.Why.String(), jobWords(w))
		}
	case state.JobFailed:
		set(batchv1.JobFailureTarget, w.Job.Ended, w.Job.Why.String(), jobWords(w))
		if !runs {
			set(batchv1.JobFailed, w.Job.Ended, w.Job.Why.String(), jobWords(w))
		}
	case state.JobSuspended:
		set(batchv1.JobSuspended, w.Progress, "JobSuspended", "Job suspended")
	case state.JobRunning:
	}
	if words := a.holdWords(w); words != "" {
		set("Held", w.Since, "Held", words)
	}
}

// jobWords say why a Job ended.
func jobWords(w *state.Workload) string {
	switch w.Job.Why {
	case state.JobCompletionsReached:
		return "as many pods succeeded as spec.completions asks for"
	case state.JobSuccessPolicy:
		return "a rule of spec.successPolicy is met"
	case state.JobBackoffLimitExceeded:
		return "more pods failed than spec.backoffLimit lets"
	case state.JobDeadlineExceeded:
		return "it ran for longer than spec.activeDeadlineSeconds"
	case state.JobPodFailurePolicy:
		return "a rule of spec.podFailurePolicy says that the Job has failed"
	case state.JobFailedIndexes:
		return "indexes failed: " + report.Indexes(w.Job.Broken)
	case state.JobMaxFailedIndexesExceeded:
		return "more indexes failed than spec.maxFailedIndexes lets: " + report.Indexes(w.Job.Broken)
	}
	return ""
}

// parentUID is the UID of a Job's CronJob.
func parentUID(s *state.State, w *state.Workload) types.UID {
	if cron := s.Workloads[w.Parent.CronJob]; cron != nil {
		return uidOf(s, cron.Ref, cron.Created)
	}
	return ""
}

func jobColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Status", "Completions", "Duration", "Age", "+Containers", "+Images", "+Selector")
}

func jobRow(o object, now time.Time) []any {
	j, ok := o.(*batchv1.Job)
	if !ok {
		return nil
	}
	wanted := fmt.Sprintf("1 of %d", *j.Spec.Parallelism)
	if j.Spec.Completions != nil {
		wanted = strconv.Itoa(int(*j.Spec.Completions))
	} else if *j.Spec.Parallelism < 2 {
		wanted = "1"
	}
	status := jobWord(j)
	took := ""
	if j.Status.StartTime != nil {
		end := metav1.NewTime(now)
		if j.Status.CompletionTime != nil {
			end = *j.Status.CompletionTime
		}
		took = age(*j.Status.StartTime, end.Time)
	}
	names, images := containerWords(&j.Spec.Template.Spec)
	return []any{
		j.Name, status, fmt.Sprintf("%d/%s", j.Status.Succeeded, wanted), took, age(j.CreationTimestamp, now), names, images,
		metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

// jobWord is a Job's status in one word, as kubectl has it.
func jobWord(j *batchv1.Job) string {
	has := func(t batchv1.JobConditionType) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == t })
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if has(t) {
			return string(t)
		}
	}
	if j.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet, "Held"} {
		if has(t) {
			return string(t)
		}
	}
	return "Running"
}

func (a *api) scanCronJobs(s *scan) {
	for ref, w := range s.state.Workloads {
		c, ok := w.CronJob()
		if !ok || w.Cron == nil {
			continue
		}
		k, uid := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, w.Created))
		f := fingerStart.num(uint64(w.Cron.Last)).num(uint64(w.Cron.Success)).num(uint64(w.Owned.Changed)).flag(w.Deleting)
		for _, child := range w.Children() {
			f = f.str(child.Ref.Name).flag(child.Job.Over())
		}
		if !s.same(k, uid, f) {
			s.put(k, uid, f, cronJob(s.state, w, c))
		}
	}
}

func cronJob(s *state.State, w *state.Workload, c *batchv1.CronJob) *batchv1.CronJob {
	out := &batchv1.CronJob{ObjectMeta: workloadMeta(s, w), Spec: *c.Spec.DeepCopy()}
	out.Spec.JobTemplate.Spec.Template.Spec = *podSpec(&c.Spec.JobTemplate.Spec.Template.Spec)
	for _, child := range w.Children() {
		if !child.Job.Over() {
			out.Status.Active = append(out.Status.Active, corev1.ObjectReference{
				APIVersion: "batch/v1", Kind: "Job", Namespace: child.Ref.Namespace, Name: child.Ref.Name, UID: uidOf(s, child.Ref, child.Created),
			})
		}
	}
	if w.Cron.Last != 0 {
		at := metav1.NewTime(time.Unix(0, w.Cron.Last).UTC())
		out.Status.LastScheduleTime = &at
	}
	if w.Cron.Success != 0 {
		at := metav1.NewTime(time.Unix(0, w.Cron.Success).UTC())
		out.Status.LastSuccessfulTime = &at
	}
	return out
}

func cronJobColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age", "+Containers", "+Images")
}

func cronJobRow(o object, now time.Time) []any {
	c, ok := o.(*batchv1.CronJob)
	if !ok {
		return nil
	}
	zone, last := "<none>", "<none>"
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	if c.Status.LastScheduleTime != nil {
		last = age(*c.Status.LastScheduleTime, now)
	}
	names, images := containerWords(&c.Spec.JobTemplate.Spec.Template.Spec)
	return []any{
		c.Name, c.Spec.Schedule, zone, fmt.Sprint(c.Spec.Suspend != nil && *c.Spec.Suspend), strconv.Itoa(len(c.Status.Active)), last,
		age(c.CreationTimestamp, now), names, images,
	}
}
