package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// budget says how much a rollout may take away and add: of the sum over all
// variants, as the manifest's numbers or percentages come to.
func budget(w *state.Workload) string {
	d, ok := w.Deployment()
	if !ok || d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return ""
	}
	want := int(w.Replicas())
	surge, away := rollout.Allowance(d, want)
	return fmt.Sprintf("≤ %d unavailable, ≤ %d in all", away, want+surge)
}

// says is what is particular to a kind, a line each.
func says(s *state.State, ref state.Ref) []string {
	w := s.Workloads[ref]
	if w == nil {
		return rule(s, ref)
	}
	switch b := w.Owned.Object.First().(type) {
	case *appsv1.Deployment:
		return deploymentSays(w, b)
	case *appsv1.DaemonSet:
		out := orderSays(w, b)
		if d := NewDaemon(s, w); len(d.Lacks) > 0 {
			out = append(out, "not on "+strings.Join(d.Lacks, ", ")+": the image has nothing for their OS, architecture or build")
		}
		return out
	case *batchv1.Job:
		return jobSays(s, w, b)
	case *batchv1.CronJob:
		return cronSays(s, w, b)
	}
	return nil
}

func deploymentSays(w *state.Workload, d *appsv1.Deployment) []string {
	old := 0
	for _, p := range w.Pods {
		if !p.Stopping && !w.IsCurrent(p) {
			old++
		}
	}
	var out []string
	if d.Spec.Paused {
		out = append(out, "paused: spec.paused is true")
	}
	out = append(out, orderSays(w, d)...)
	if old > 0 {
		out = append(out, fmt.Sprintf("rolling out revision %d: %s of an older one", w.Revision, plural(old, "pod")))
	}
	return out
}

// orderSays is for a workload whose rollout finishes one OS before the next.
func orderSays(w *state.Workload, b state.Body) []string {
	if order := b.GetAnnotations()[rollout.OSOrder]; order != "" && len(w.Variants) > 1 {
		return []string{"one OS after the other: " + order}
	}
	return nil
}

func jobSays(s *state.State, w *state.Workload, j *batchv1.Job) []string {
	active := 0
	for _, p := range w.Pods {
		if !p.Ended() && !p.Stopping {
			active++
		}
	}
	line := fmt.Sprintf("%s: %d succeeded, %d active, %d failed", w.Job.Stage, w.Job.Succeeded, active, w.Job.Failed)
	if j.Spec.BackoffLimitPerIndex == nil && j.Spec.BackoffLimit != nil {
		line += fmt.Sprintf(" (backoffLimit %d)", *j.Spec.BackoffLimit)
	}
	out := []string{line}
	if w.Job.Why != 0 {
		out[0] += "; " + w.Job.Why.String()
	}
	if j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion {
		indexes := "indexes done: " + orDash(Indexes(w.Job.Done))
		if len(w.Job.Broken) > 0 {
			indexes += ", given up: " + Indexes(w.Job.Broken)
		}
		out = append(out, indexes)
	}
	switch {
	case w.Job.Started.IsZero():
	case w.Job.Over():
		out = append(out, "ran for "+w.Job.Ended.Since(w.Job.Started).Round(time.Second).String())
	case j.Spec.ActiveDeadlineSeconds != nil:
		left := time.Duration(*j.Spec.ActiveDeadlineSeconds)*time.Second - s.At.Since(w.Job.Started)
		out = append(out, "must end within "+max(0, left).Round(time.Second).String()+" (activeDeadlineSeconds)")
	}
	return out
}

// Indexes is "0-2,5", as Kubernetes writes indexes.
func Indexes(spans []state.Span) string {
	var parts []string
	for _, s := range spans {
		switch {
		case s.From == s.To:
			parts = append(parts, fmt.Sprint(s.From))
		case s.From+1 == s.To:
			parts = append(parts, fmt.Sprintf("%d,%d", s.From, s.To))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", s.From, s.To))
		}
	}
	return strings.Join(parts, ",")
}

func cronSays(s *state.State, w *state.Workload, c *batchv1.CronJob) []string {
	zone := "UTC"
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	out := []string{fmt.Sprintf("%s (%s), %s", c.Spec.Schedule, zone, c.Spec.ConcurrencyPolicy)}
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		out = append(out, "suspended: spec.suspend is true")
	} else if next, ok := plan.NextRun(c, s.At.Wall); ok {
		out = append(out, "next  "+time.Unix(0, next).UTC().Format("2006-01-02 15:04 UTC"))
	}
	if w.Cron.Last != 0 {
		out = append(out, "last  "+time.Unix(0, w.Cron.Last).UTC().Format("2006-01-02 15:04 UTC"))
	}
	for _, child := range w.Children() {
		out = append(out, fmt.Sprintf("%s  %s", Short(child.Ref), child.Job.Stage))
	}
	return out
}

// rule says how a PodDisruptionBudget or a PriorityClass stands.
func rule(s *state.State, ref state.Ref) []string {
	owned := s.Rules[ref]
	if owned == nil {
		return nil
	}
	switch b := owned.Object.First().(type) {
	case *policyv1.PodDisruptionBudget:
		all := schedule.Disruptions(s)
		i := slices.IndexFunc(all, func(d schedule.Disruption) bool { return d.Ref == ref })
		if i < 0 {
			return nil
		}
		d := all[i]
		return []string{fmt.Sprintf("%s may go now: %d of %d healthy, %d must stay", plural(max(0, d.Left), "pod"), d.Healthy, d.Expected, d.Desired)}
	case *schedulingv1.PriorityClass:
		line := fmt.Sprintf("priority %d", b.Value)
		if b.GlobalDefault {
			line += ", of pods that name no class"
		}
		if b.PreemptionPolicy != nil && *b.PreemptionPolicy == "Never" {
			line += ", takes no room from others"
		}
		return []string{line}
	}
	return nil
}
