package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Verdict is what the end of a Job's pod counts for; 0 where it has none: it
// runs, was counted, is of another run, or the Job itself told it to stop. With
// gone, the pod is about to leave the state.
func Verdict(w *state.Workload, p *state.Pod, gone bool) state.Verdict {
	j, ok := w.BatchJob()
	if !ok || w.Job == nil || w.Deleting || p.Counted || w.Job.Over() || !w.IsCurrent(p) {
		return 0
	}
	if p.Phase == state.Succeeded {
		if enough(j, w.Job.Succeeded) {
			return 0 // one that was told to stop succeeded after all
		}
		return state.CountSucceeded // also while it is suspended: the work is done
	}
	if w.Job.Stage != state.JobRunning {
		return 0
	}
	if p.Phase != state.Failed && !gone || p.Stopping && !disrupted(p) && p.StopWhy != state.StopRequested {
		return 0
	}
	v := byPolicy(j.Spec.PodFailurePolicy, p)
	if v == state.CountFailed && j.Spec.BackoffLimitPerIndex != nil && w.Job.Failures(p.Ordinal).Failures >= *j.Spec.BackoffLimitPerIndex {
		return state.CountFailIndex
	}
	return v
}

// enough says whether a Job without indexes has had all its completions.
func enough(j *batchv1.Job, succeeded int32) bool {
	indexed := j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion
	return !indexed && j.Spec.Completions != nil && succeeded >= *j.Spec.Completions
}

// disrupted says whether something other than the pod and its Job ended it
// (Kubernetes: the condition DisruptionTarget).
func disrupted(p *state.Pod) bool {
	switch p.StopWhy {
	case state.StopNodeLost, state.StopDrained, state.StopPreempted, state.StopMisplaced, state.StopTaint:
		return true
	case state.StopOutdated, state.StopScaledDown, state.StopPruned, state.StopFailed, state.StopRequested, state.StopFinished:
		return false
	default:
		// Nobody stopped it, and its node has it no more, or put it out.
		return p.Phase != state.Failed || p.Reason == state.ReasonEvicted
	}
}

// byPolicy takes the first rule that matches, as Kubernetes does.
func byPolicy(policy *batchv1.PodFailurePolicy, p *state.Pod) state.Verdict {
	if policy == nil {
		return state.CountFailed
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		matches := rule.OnExitCodes != nil && exits(rule.OnExitCodes, p) || len(rule.OnPodConditions) > 0 && disrupted(p)
		if !matches {
			continue
		}
		switch rule.Action {
		case batchv1.PodFailurePolicyActionIgnore:
			return state.CountIgnored
		case batchv1.PodFailurePolicyActionFailJob:
			return state.CountFailJob
		case batchv1.PodFailurePolicyActionFailIndex:
			return state.CountFailIndex
		case batchv1.PodFailurePolicyActionCount:
		}
		return state.CountFailed
	}
	return state.CountFailed
}

// exits says whether a container ended with a code that the rule is about; a
// success never is.
func exits(rule *batchv1.PodFailurePolicyOnExitCodesRequirement, p *state.Pod) bool {
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.State != state.ContainerTerminated || c.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != c.Name {
			continue
		}
		if slices.Contains(rule.Values, c.ExitCode) == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return true
		}
	}
	return false
}

// ParseIndexes reads "1,3-5,7": ascending, each below bound.
func ParseIndexes(text string, bound int32) ([]state.Span, error) {
	var out []state.Span
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		a, err := strconv.ParseInt(from, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no index", from)
		}
		b, err := strconv.ParseInt(to, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is no index", to)
		}
		switch n := len(out); {
		case a < 0 || ranged && b <= a:
			return nil, fmt.Errorf("%q is no range", part)
		case b >= int64(bound):
			return nil, fmt.Errorf("there is no index %d: completions is %d", b, bound)
		case n > 0 && int64(out[n-1].To) >= a:
			return nil, fmt.Errorf("%q is not after what comes before it", part)
		}
		out = append(out, state.Span{From: int32(a), To: int32(b)})
	}
	return out, nil
}
