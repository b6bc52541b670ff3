package plan

import (
	"encoding/json"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// jobAnnotation makes another run of a Job another template.
const jobAnnotation = "tandem.dev/job-fields"

// jobFields is a digest of what Kubernetes lets nobody change in a Job, beside its
// template: a change of it, like one of the template, is another run, as if the
// Job were deleted and made again. Empty for a Job that says nothing unusual.
func jobFields(w *state.Workload) string {
	j, ok := w.BatchJob()
	if !ok || w.Parent != nil {
		return ""
	}
	s := &j.Spec
	indexed := s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
	plain := !indexed && (s.Completions == nil || *s.Completions == 1)
	if plain && s.PodFailurePolicy == nil {
		return ""
	}
	of := struct {
		Completions   *int32
		Indexed       bool
		PerIndex      *int32
		FailurePolicy *batchv1.PodFailurePolicy
		SuccessPolicy *batchv1.SuccessPolicy
	}{s.Completions, indexed, s.BackoffLimitPerIndex, s.PodFailurePolicy, s.SuccessPolicy}
	if indexed {
		of.Completions = nil // an Indexed Job may grow and shrink
	}
	raw, err := json.Marshal(of)
	if err != nil {
		panic(fmt.Sprintf("Job of k8s.io/api does not marshal: %v", err))
	}
	return state.SafeHash(state.DigestOf(raw), 10)
}
