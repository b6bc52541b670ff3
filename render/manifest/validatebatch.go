package manifest

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
)

// Kubernetes's limits (pkg/apis/batch/validation).
const (
	maxIndexed        = 100_000
	maxIndexedAtOnce  = 10_000
	maxFailureRules   = 20
	maxSuccessRules   = 20
	maxExitCodes      = 255
	maxPodsInParallel = 100_000 // Tandem's own: of a Job that isn't Indexed
)

func (c *validator) daemonSet(p Path, s *appsv1.DaemonSetSpec) {
	c.everyNode = true
	c.notNegative(p.Key("minReadySeconds"), int64(s.MinReadySeconds))
	c.notNegative(p.Key("revisionHistoryLimit"), int64(*s.RevisionHistoryLimit))
	c.selector(p, s.Selector, s.Template.Labels)
	up := p.Key("updateStrategy")
	switch s.UpdateStrategy.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		if s.UpdateStrategy.RollingUpdate != nil {
			c.fail(up.Key("rollingUpdate"), "has no meaning with type OnDelete", "remove one of them")
		}
	case appsv1.RollingUpdateDaemonSetStrategyType:
		r := s.UpdateStrategy.RollingUpdate
		noSurge := c.countOrPercent(up.Key("rollingUpdate", "maxSurge"), r.MaxSurge, true)
		noAway := c.countOrPercent(up.Key("rollingUpdate", "maxUnavailable"), r.MaxUnavailable, true)
		switch {
		case noSurge && noAway:
			c.fail(up.Key("rollingUpdate"), "maxSurge and maxUnavailable are both 0: no pod could ever be replaced", "set maxUnavailable to 1")
		case !noSurge && !noAway:
			c.fail(up.Key("rollingUpdate"), "maxSurge and maxUnavailable are both given", "set maxUnavailable to 0, or remove maxSurge")
		}
	default:
		c.fail(up.Key("type"), fmt.Sprintf("want RollingUpdate or OnDelete, got %q", clip(string(s.UpdateStrategy.Type))), "type: RollingUpdate")
	}
	c.template(p.Key("template"), &s.Template, corev1.RestartPolicyAlways)
}

func (c *validator) job(p Path, s *batchv1.JobSpec) {
	for name, n := range map[string]*int32{
		"parallelism": s.Parallelism, "completions": s.Completions, "backoffLimit": s.BackoffLimit, "ttlSecondsAfterFinished": s.TTLSecondsAfterFinished,
		"backoffLimitPerIndex": s.BackoffLimitPerIndex, "maxFailedIndexes": s.MaxFailedIndexes,
	} {
		if n != nil {
			c.notNegative(p.Key(name), int64(*n))
		}
	}
	if *s.Parallelism > maxPodsInParallel {
		c.fail(p.Key("parallelism"), fmt.Sprintf("is more than %d", maxPodsInParallel), "lower it")
	}
	if d := s.ActiveDeadlineSeconds; d != nil {
		c.notNegative(p.Key("activeDeadlineSeconds"), *d)
	}
	switch *s.CompletionMode {
	case batchv1.NonIndexedCompletion:
		if s.BackoffLimitPerIndex != nil {
			c.fail(p.Key("backoffLimitPerIndex"), "has no meaning without indexes", "add completionMode: Indexed")
		}
		if s.SuccessPolicy != nil {
			c.fail(p.Key("successPolicy"), "has no meaning without indexes", "add completionMode: Indexed")
		}
	case batchv1.IndexedCompletion:
		c.indexed(p, s)
	default:
		c.fail(p.Key("completionMode"), fmt.Sprintf("want NonIndexed or Indexed, got %q", clip(string(*s.CompletionMode))), "completionMode: Indexed")
	}
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		c.fail(p.Key("maxFailedIndexes"), "has no meaning without backoffLimitPerIndex", "add backoffLimitPerIndex")
	}
	switch r := *s.PodReplacementPolicy; {
	case r != batchv1.TerminatingOrFailed && r != batchv1.Failed:
		c.fail(p.Key("podReplacementPolicy"), fmt.Sprintf("want TerminatingOrFailed or Failed, got %q", clip(string(r))), "podReplacementPolicy: Failed")
	case s.PodFailurePolicy != nil && r != batchv1.Failed:
		c.fail(p.Key("podReplacementPolicy"), "must be Failed with podFailurePolicy", "podReplacementPolicy: Failed")
	}
	if s.PodFailurePolicy != nil {
		c.failurePolicy(p.Key("podFailurePolicy"), s)
	}
	c.template(p.Key("template"), &s.Template, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
}

func (c *validator) indexed(p Path, s *batchv1.JobSpec) {
	if s.Completions == nil {
		c.missing(p.Key("completions"), "say how many indexes there are: completions: 3")
		return
	}
	switch {
	case *s.Completions > maxIndexed:
		c.fail(p.Key("completions"), fmt.Sprintf("is more than %d", maxIndexed), "split the work into several Jobs")
	case *s.Parallelism > maxIndexedAtOnce && *s.Completions > maxIndexedAtOnce:
		c.fail(p.Key("parallelism"), fmt.Sprintf("is more than %d", maxIndexedAtOnce), "lower it")
	case s.MaxFailedIndexes != nil && *s.MaxFailedIndexes > *s.Completions:
		c.fail(p.Key("maxFailedIndexes"), "is more than completions", "lower it")
	}
	if s.SuccessPolicy == nil {
		return
	}
	rp := p.Key("successPolicy", "rules")
	rules := s.SuccessPolicy.Rules
	if len(rules) == 0 || len(rules) > maxSuccessRules {
		c.fail(rp, fmt.Sprintf("want 1 to %d rules, has %d", maxSuccessRules, len(rules)), "add a rule with succeededCount or succeededIndexes")
	}
	for i := range rules {
		r, at := &rules[i], rp.At(i, "")
		most := *s.Completions
		if r.SucceededIndexes != nil {
			spans, err := rollout.ParseIndexes(*r.SucceededIndexes, *s.Completions)
			if err != nil {
				c.fail(at.Key("succeededIndexes"), err.Error(), "write indexes that ascend, such as 1,3-5,7")
				continue
			}
			most = 0
			for _, x := range spans {
				most += x.To - x.From + 1
			}
		}
		switch {
		case r.SucceededCount == nil && r.SucceededIndexes == nil:
			c.fail(at, "has neither succeededCount nor succeededIndexes", "give one of them")
		case r.SucceededCount != nil && (*r.SucceededCount < 1 || *r.SucceededCount > most):
			c.fail(at.Key("succeededCount"), fmt.Sprintf("must be between 1 and %d", most), "give a count in that range")
		}
	}
}

func (c *validator) failurePolicy(p Path, s *batchv1.JobSpec) {
	if s.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		c.fail(p, "needs restartPolicy Never: with another, a failed container doesn't end its pod", "set spec.template.spec.restartPolicy to Never")
	}
	rules := s.PodFailurePolicy.Rules
	if len(rules) > maxFailureRules {
		c.fail(p.Key("rules"), fmt.Sprintf("has more than %d rules", maxFailureRules), "write fewer")
	}
	for i := range rules {
		r, at := &rules[i], p.Key("rules").At(i, "")
		switch r.Action {
		case batchv1.PodFailurePolicyActionFailIndex:
			if s.BackoffLimitPerIndex == nil {
				c.fail(at.Key("action"), "FailIndex needs backoffLimitPerIndex", "add backoffLimitPerIndex, or use FailJob")
			}
		case batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyActionCount:
		default:
			c.fail(at.Key("action"), fmt.Sprintf("want FailJob, FailIndex, Ignore or Count, got %q", clip(string(r.Action))), "action: FailJob")
		}
		if (r.OnExitCodes == nil) == (len(r.OnPodConditions) == 0) {
			c.fail(at, "want exactly one of onExitCodes and onPodConditions", "keep one")
		}
		if r.OnExitCodes != nil {
			c.exitCodes(at.Key("onExitCodes"), r.OnExitCodes, &s.Template.Spec)
		}
		for j := range r.OnPodConditions {
			x, xp := &r.OnPodConditions[j], at.Key("onPodConditions").At(j, "")
			if x.Type != corev1.DisruptionTarget || x.Status != corev1.ConditionTrue {
				c.fail(xp, fmt.Sprintf("not supported yet: a pod has no condition %s=%s here", clip(string(x.Type)), clip(string(x.Status))), "use type: DisruptionTarget")
			}
		}
	}
}

func (c *validator) exitCodes(p Path, r *batchv1.PodFailurePolicyOnExitCodesRequirement, spec *corev1.PodSpec) {
	named := func(ct corev1.Container) bool { return r.ContainerName != nil && ct.Name == *r.ContainerName }
	if r.ContainerName != nil && !slices.ContainsFunc(spec.Containers, named) && !slices.ContainsFunc(spec.InitContainers, named) {
		c.fail(p.Key("containerName"), fmt.Sprintf("there is no container %q", clip(*r.ContainerName)), "name a container of the template")
	}
	switch r.Operator {
	case batchv1.PodFailurePolicyOnExitCodesOpIn:
		if slices.Contains(r.Values, 0) {
			c.fail(p.Key("values"), "0 is no failure", "remove it")
		}
	case batchv1.PodFailurePolicyOnExitCodesOpNotIn:
	default:
		c.fail(p.Key("operator"), fmt.Sprintf("want In or NotIn, got %q", clip(string(r.Operator))), "operator: In")
	}
	if len(r.Values) == 0 || len(r.Values) > maxExitCodes || !slices.IsSorted(r.Values) || len(slices.Compact(slices.Clone(r.Values))) != len(r.Values) {
		c.fail(p.Key("values"), fmt.Sprintf("want 1 to %d codes, ascending, none twice", maxExitCodes), "write one such as [42, 43]")
	}
}

// longestCronJob leaves room for the minutes that a Job's name ends with.
const longestCronJob = 52

func (c *validator) cronJob(p Path, o *batchv1.CronJob) {
	s := &o.Spec
	c.jobName(o.Name, longestCronJob)
	if _, err := plan.NewCalendar(s.Schedule, nil); err != nil {
		c.fail(p.Key("schedule"), fmt.Sprintf("%q is no schedule: %v", clip(s.Schedule), err), "write minute, hour, day, month and weekday, such as \"30 4 * * *\"")
	} else if _, err := plan.NewCalendar(s.Schedule, s.TimeZone); err != nil {
		c.fail(p.Key("timeZone"), err.Error(), "use a name of the IANA database, such as Europe/Berlin")
	}
	switch s.ConcurrencyPolicy {
	case batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent:
	default:
		c.fail(p.Key("concurrencyPolicy"), fmt.Sprintf("want Allow, Forbid or Replace, got %q", clip(string(s.ConcurrencyPolicy))), "concurrencyPolicy: Forbid")
	}
	c.notNegative(p.Key("successfulJobsHistoryLimit"), int64(*s.SuccessfulJobsHistoryLimit))
	c.notNegative(p.Key("failedJobsHistoryLimit"), int64(*s.FailedJobsHistoryLimit))
	if d := s.StartingDeadlineSeconds; d != nil {
		c.notNegative(p.Key("startingDeadlineSeconds"), *d)
	}
	c.meta(p.Key("jobTemplate", "metadata"), s.JobTemplate.Labels, s.JobTemplate.Annotations)
	c.noName(p.Key("jobTemplate", "metadata"))
	c.job(p.Key("jobTemplate", "spec"), &s.JobTemplate.Spec)
}

// jobName keeps to what a pod's label can hold.
func (c *validator) jobName(name string, longest int) {
	if len(name) > longest {
		c.fail(Path(nil).Key("metadata", "name"), fmt.Sprintf("is longer than %d characters, and names pods and labels", longest), "shorten it")
	}
}

// barePod validates a Pod that no workload keeps.
func (c *validator) barePod(o *corev1.Pod) {
	c.jobName(o.Name, validation.DNS1123LabelMaxLength)
	c.podSpec(Path(nil).Key("spec"), &o.Spec, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
}
