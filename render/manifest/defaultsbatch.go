package manifest

import (
	"math"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pkg/apis/apps/v1/defaults.go: SetDefaults_DaemonSet.
func defaultDaemonSet(s *appsv1.DaemonSetSpec) {
	orDefault(&s.RevisionHistoryLimit, 10)
	if s.UpdateStrategy.Type == "" {
		s.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if s.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		orDefault(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		orDefault(&s.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		orDefault(&s.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	defaultTemplate(&s.Template)
}

// pkg/apis/batch/v1/defaults.go: SetDefaults_Job.
func defaultJob(s *batchv1.JobSpec) {
	if s.Completions == nil && s.Parallelism == nil {
		orDefault(&s.Completions, 1)
	}
	orDefault(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		orDefault(&s.BackoffLimit, math.MaxInt32)
	}
	orDefault(&s.BackoffLimit, 6)
	orDefault(&s.CompletionMode, batchv1.NonIndexedCompletion)
	orDefault(&s.Suspend, false)
	replace := batchv1.TerminatingOrFailed
	if s.PodFailurePolicy != nil {
		replace = batchv1.Failed
		for i := range s.PodFailurePolicy.Rules {
			conditions := s.PodFailurePolicy.Rules[i].OnPodConditions
			for j := range conditions {
				if conditions[j].Status == "" {
					conditions[j].Status = corev1.ConditionTrue
				}
			}
		}
	}
	orDefault(&s.PodReplacementPolicy, replace)
	defaultTemplate(&s.Template)
}

// SetDefaults_CronJob.
func defaultCronJob(s *batchv1.CronJobSpec) {
	if s.ConcurrencyPolicy == "" {
		s.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	orDefault(&s.Suspend, false)
	orDefault(&s.SuccessfulJobsHistoryLimit, 3)
	orDefault(&s.FailedJobsHistoryLimit, 1)
	defaultJob(&s.JobTemplate.Spec)
}
