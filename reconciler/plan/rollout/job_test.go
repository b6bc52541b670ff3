package rollout_test

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Two pods succeed in one report, and one was enough: the other had been told to
// stop. The Job never counts more than its completions.
func TestJobCountsNoMoreThanItsCompletions(t *testing.T) {
	two := int32(2)
	ref := state.Ref{Kind: "Job", Namespace: "default", Name: "work"}
	job := &batchv1.Job{Spec: batchv1.JobSpec{Completions: &two}}
	w := &state.Workload{
		Ref: ref, Owned: &state.Owned{Object: &state.Object{Ref: ref, Variants: []state.Variant{{Body: job}}}},
		Job: &state.Job{Stage: state.JobRunning, Succeeded: 1}, Variants: []*state.WorkloadVariant{{OS: state.Linux, Update: templates()[0]}},
	}
	for i := range 2 {
		w.Pods = append(w.Pods, &state.Pod{Workload: ref, OS: state.Linux, Ordinal: -1, Template: templates()[0], Phase: state.Succeeded, Stopping: i == 0, StopWhy: state.StopScaledDown})
	}
	if step := rollout.Next(w, state.Instant{}); len(step.Count) != 1 || step.Count[0].Verdict != state.CountSucceeded {
		t.Fatalf("counts %+v, want one success", step.Count)
	}
	w.Job.Succeeded = 2
	if v := rollout.Verdict(w, w.Pods[1], true); v != 0 {
		t.Errorf("a pod beyond the completions counts: %s", v)
	}
}
