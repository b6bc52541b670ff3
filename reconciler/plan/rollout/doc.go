// Package rollout says when a workload's pods start and stop.
//
//	desired ──► plan ──► [ rollout: when ] ──► schedule: where ──► records
//
// In: a workload as the records tell it, and the time. Out: what to start and
// stop now, and when the answer changes by itself. It keeps no plan between
// calls: order comes from looking again after each change. It refuses to know
// where pods go.
package rollout

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Start is a number of pods of one variant and template.
type Start struct {
	Variant  *state.WorkloadVariant
	Template *state.Template
	Count    int
	Ordinal  int32   // of a StatefulSet, where Count is 1; else -1
	Ordinals []int32 // of an Indexed Job: one for each pod, in order
	Surge    bool    // a rollout that lets no pod be away begins with it
}

// A Stop is a pod that is to end.
type Stop struct {
	Pod *state.Pod
	Why state.StopReason
}

// A Step is the answer for one workload now.
type Step struct {
	Start    []Start
	Stop     []Stop
	Scaled   []Scaled      // of a Deployment: shares that this step gives
	Held     []state.Held  // without IDs
	Complete bool          // everything wanted is there and available
	Partial  bool          // with Complete: a partition or OnDelete keeps some pods on an older template
	Gone     bool          // a deleted workload has no pod left
	Stalled  bool          // no progress within the deadline
	Count    []Count       // of a Job: ends that count; they come alone
	Job      *Move         // of a Job: its next stage; it comes alone
	Expired  bool          // of a CronJob's Job: its ttlSecondsAfterFinished is over
	Wake     time.Duration // steady time at which the answer changes by itself; 0: never
}

// wake keeps the earliest wake-up.
func (s *Step) wake(at time.Duration) {
	if s.Wake == 0 || at < s.Wake {
		s.Wake = at
	}
}

// Next is the step for a workload.
func Next(w *state.Workload, now state.Instant) Step {
	var step Step
	switch b := w.Owned.Object.First().(type) {
	case *appsv1.StatefulSet:
		step = statefulSet(w, &b.Spec, now)
	case *appsv1.Deployment:
		step = deployment(w, b, now)
	case *batchv1.Job:
		step = jobStep(w, &b.Spec, now)
	case *corev1.Pod:
		step = podStep(w)
	}
	if w.Deleting {
		step.Gone = len(w.Pods) == 0
	}
	return step
}

// percent resolves a count or percentage of total; Kubernetes rounds surge up
// and unavailability down.
func percent(v *intstr.IntOrString, total int, up bool, otherwise string) int {
	if v == nil {
		p := intstr.Parse(otherwise)
		v = &p
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, total, up)
	if err != nil || n < 0 {
		// Validation refused such text before it came here.
		return 0
	}
	return n
}

// Share is a count, or a percentage of total rounded up: a DaemonSet's budgets.
func Share(v *intstr.IntOrString, total int, otherwise string) int {
	return percent(v, total, true, otherwise)
}

// seconds is a duration from an API field.
func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// available says whether the pod counts as available; if it will by itself,
// the step wakes then.
func (s *Step) available(p *state.Pod, now state.Instant, least time.Duration) bool {
	if p.Available(now, least) {
		return true
	}
	if p.Ready && !p.Stopping && !p.Lost {
		s.wake(p.ReadySince.Mono + least)
	}
	return false
}

// stalled notes a rollout that made no progress within the deadline.
func (s *Step) stalled(w *state.Workload, now state.Instant, least, deadline time.Duration) {
	if s.Complete || w.Deleting || w.IsStalled || w.Complete {
		return
	}
	last := w.Progress.Mono
	for _, p := range w.Pods {
		// One that comes to count as available is progress too, when it does.
		if p.Ready && !p.Stopping && !p.Lost && w.IsCurrent(p) {
			last = max(last, p.ReadySince.Mono+least)
		}
	}
	if now.Mono-last >= deadline {
		s.Stalled = true
		return
	}
	s.wake(last + deadline)
}

// DefaultDeadline is Kubernetes's progressDeadlineSeconds, used for
// StatefulSets too.
const DefaultDeadline = 600 * time.Second
