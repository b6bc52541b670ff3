package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Cron is how far a CronJob has come.
type Cron struct {
	Since   int64 `pb:"1"` // wall nanoseconds: no time before it is made up for
	Last    int64 `pb:"2"` // wall nanoseconds: the newest time for which a Job began
	Success int64 `pb:"3"` // wall nanoseconds: when a Job last ended well
}

// A Fired is what began a CronJob's Job. The Job's text is the CronJob's, as it
// was in that manifest.
type Fired struct {
	CronJob  Ref    `pb:"1"`
	Manifest Digest `pb:"2"`
	At       int64  `pb:"3"`   // wall nanoseconds: the time that was due
	Gate     string `pb:"175"` // "shop/prod": it judges a commit for that stage; empty: its time came
	Commit   string `pb:"176"` // that it judges
}

// CronFired begins a Job of a CronJob.
type CronFired struct {
	CronJob Ref   `json:"cronJob" pb:"1"`
	Job     Ref   `json:"job" pb:"2"`
	At      int64 `json:"at" pb:"3"`               // wall nanoseconds: the time that was due
	Missed  int32 `json:"missed,omitempty" pb:"4"` // times before it that passed without a Job
}

// JobDropped says that a CronJob's Job is no longer wanted; it is gone with its
// last pod.
type JobDropped struct {
	Job Ref     `json:"job" pb:"1"`
	Why DropWhy `json:"why" pb:"2"`
}

// DropWhy is why a CronJob's Job is no longer wanted.
type DropWhy uint8

// Why a Job is dropped.
const (
	DropHistory  DropWhy = iota + 1 // more have ended than are kept
	DropReplaced                    // concurrencyPolicy Replace
	DropExpired                     // ttlSecondsAfterFinished
	DropVoid                        // what it would say of a commit no longer counts
)

// String says it in words.
func (w DropWhy) String() string {
	names := [...]string{"", "history limit", "replaced", "expired", "void"}
	if int(w) < len(names) {
		return names[w]
	}
	return "unknown"
}

// Kind implements Fact.
func (*CronFired) Kind() Kind { return KindCronFired }

// Kind implements Fact.
func (*JobDropped) Kind() Kind { return KindJobDropped }

// CronJob returns the workload's object as a CronJob.
func (w *Workload) CronJob() (*batchv1.CronJob, bool) {
	c, ok := w.Owned.Object.First().(*batchv1.CronJob)
	return c, ok
}

// Children are the Jobs of a CronJob, the earliest due first.
func (w *Workload) Children() []*Workload {
	return slices.SortedFunc(maps.Values(w.jobs), func(a, b *Workload) int {
		return cmp.Or(cmp.Compare(a.Parent.At, b.Parent.At), a.Ref.Compare(b.Ref))
	})
}

func (s *State) applyCron(r *Record) error {
	switch f := r.Fact.(type) {
	case *CronFired:
		if err := s.fire(r, f.Job, Digest{}, &Fired{CronJob: f.CronJob, At: f.At}); err != nil {
			return err
		}
		s.Workloads[f.CronJob].Cron.Last = f.At
	case *JobDropped:
		w, err := s.workload(f.Job)
		if err != nil {
			return err
		}
		w.Deleting, w.Since, w.Complete = true, r.At, false
	}
	return nil
}

// fire begins a Job, with the templates that its CronJob has now; only if it has
// this one, where one is named.
func (s *State) fire(r *Record, job Ref, template Digest, parent *Fired) error {
	cron, err := s.workload(parent.CronJob)
	if err != nil {
		return err
	}
	if cron.Cron == nil || s.Workloads[job] != nil || !template.IsZero() && !cron.makes(template) {
		return fmt.Errorf("%s can't begin %s", parent.CronJob, job)
	}
	parent.Manifest = cron.Owned.Manifest
	w := &Workload{
		Ref: job, App: cron.App, Created: r.At, Since: r.At, Progress: r.At, Holds: map[string]*Hold{}, Job: &Job{}, Parent: parent,
		Revision: cron.Revision,
	}
	w.Owned = jobOf(cron.Owned, job, parent)
	w.Owned.Created, w.Owned.Changed = r.At, r.Seq
	for i := range w.Owned.Object.Variants {
		v := variantOf(&w.Owned.Object.Variants[i])
		if from := cron.Variants[i]; from.Update != nil {
			v.Update, v.Current, v.History = from.Update, from.Update, slices.Clone(from.History[len(from.History)-1:])
		}
		w.Variants = append(w.Variants, v)
	}
	s.Enroll(w)
	s.adopt(w)
	return nil
}

// makes says whether the workload's pods are to be made from a template.
func (w *Workload) makes(template Digest) bool {
	return slices.ContainsFunc(w.Variants, func(v *WorkloadVariant) bool { return v.Update != nil && v.Update.Digest == template })
}

// adopt makes a Job known to its CronJob.
func (s *State) adopt(w *Workload) {
	if w.Parent == nil {
		return
	}
	if cron := s.Workloads[w.Parent.CronJob]; cron != nil {
		if cron.jobs == nil {
			cron.jobs = map[Ref]*Workload{}
		}
		cron.jobs[w.Ref] = w
	}
}

// What a gate's Job says of itself: the stage that waits for it, and the commit.
const (
	GateAnnotation   = "tandem.dev/gate"
	CommitAnnotation = "tandem.dev/commit"
)

// jobOf makes a Job's object from its CronJob's.
func jobOf(cron *Owned, ref Ref, parent *Fired) *Owned {
	o := &Object{Ref: ref}
	for _, v := range cron.Object.Variants {
		from, ok := v.Body.(*batchv1.CronJob)
		if !ok {
			continue
		}
		t := &from.Spec.JobTemplate
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{
				Name: ref.Name, Namespace: ref.Namespace, Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations),
			},
			Spec: *t.Spec.DeepCopy(),
		}
		if job.Annotations == nil {
			job.Annotations = map[string]string{}
		}
		if parent.Gate != "" {
			job.Annotations[GateAnnotation], job.Annotations[CommitAnnotation] = parent.Gate, parent.Commit
		} else {
			job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = time.Unix(0, parent.At).UTC().Format(time.RFC3339)
		}
		o.Variants = append(o.Variants, Variant{OS: v.OS, Body: job, Digest: v.Digest, Origin: v.Origin})
	}
	return &Owned{Object: o, App: cron.App, Manifest: cron.Manifest}
}
