package plan

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// displace stops pods that can't stay where they are: their node is drained, its
// machine can't run them any more, or it has a NoExecute taint. Taints don't
// wait (Kubernetes's rule); the others go within the PodDisruptionBudgets that
// cover them, and where none does within the workload's own update budget. A pod
// that isn't ready costs neither where its machine can't run it.
func displace(d *Decision, s *state.State, w *state.Workload, now state.Instant) {
	if w.Deleting || len(d.Stop) > 0 {
		return
	}
	var budgets []schedule.Disruption
	var blocked, by []string
	own, looked := 0, false
	var machines schedule.Machines
	for _, p := range restless(s, w) {
		why := leaves(d, s, w, p, now, &machines)
		if why == 0 {
			continue
		}
		if !looked {
			looked, budgets, own = true, schedule.Disruptions(s), spare(w, now)
		}
		if why != state.StopTaint {
			refuses, covered := schedule.May(budgets, p)
			if why == state.StopMisplaced && !p.Ready {
				refuses = nil // it can't become healthy there: to wait for it is to wait for ever
			}
			if refuses != nil || !covered && p.Ready && own <= 0 {
				blocked = append(blocked, p.Key.Name)
				if refuses != nil {
					by = append(by, state.BudgetParam+refuses.Ref.Name)
				}
				continue
			}
			if p.Ready {
				own--
			}
		}
		schedule.Take(budgets, p)
		d.Stop = append(d.Stop, rollout.Stop{Pod: p, Why: why})
	}
	if len(blocked) > 0 {
		slices.Sort(blocked)
		slices.Sort(by)
		params := slices.Concat(blocked, slices.Compact(by))
		d.Held = append(d.Held, state.Held{Object: w.Ref, Code: state.HoldBudget, Count: int32(len(blocked)), Params: params})
	}
}

// restless are the workload's pods on nodes that a pod may have to leave, in the
// order in which they go.
func restless(s *state.State, w *state.Workload) []*state.Pod {
	there := 0
	for _, n := range s.Restless {
		there += len(n.Pods)
	}
	if there == 0 || len(w.Pods) == 0 {
		return nil
	}
	var pods []*state.Pod
	if there < len(w.Pods) {
		for _, n := range s.Restless {
			for _, p := range n.Pods {
				if p.Workload == w.Ref && w.Has(p) {
					pods = append(pods, p)
				}
			}
		}
		slices.SortFunc(pods, func(a, b *state.Pod) int { return cmp.Compare(a.PlacedSeq, b.PlacedSeq) })
	} else {
		for _, p := range w.Pods {
			if s.Restless[p.Node] != nil {
				pods = append(pods, p)
			}
		}
	}
	if w.Ref.Kind == "StatefulSet" {
		slices.SortStableFunc(pods, func(a, b *state.Pod) int { return cmp.Compare(b.Ordinal, a.Ordinal) })
	}
	return pods
}

// leaves says why a pod can't stay where it is; 0: it can. With a toleration for
// a while, the decision wakes at its end.
func leaves(d *Decision, s *state.State, w *state.Workload, p *state.Pod, now state.Instant, machines *schedule.Machines) state.StopReason {
	n := s.Nodes[p.Node]
	if n == nil || p.Stopping || p.Lost || p.Ended() {
		return 0
	}
	if at, ok := schedule.EndsAt(p, n); ok {
		if now.Mono >= at {
			return state.StopTaint
		}
		if d.Wake == 0 || at < d.Wake {
			d.Wake = at
		}
	}
	if n.Duty.Changed > p.PlacedSeq {
		if reason, _ := machines.Runs(p.Template, n); reason != state.NodeFits {
			return state.StopMisplaced
		}
	}
	if n.Duty.Draining && w.Ref.Kind != "DaemonSet" {
		return state.StopDrained
	}
	return 0
}

// spare is how many more pods a workload's own update budget lets be away.
func spare(w *state.Workload, now state.Instant) int {
	var away *intstr.IntOrString
	least := time.Duration(0)
	switch b := w.Owned.Object.First().(type) {
	case *appsv1.Deployment:
		if r := b.Spec.Strategy.RollingUpdate; r != nil {
			away = r.MaxUnavailable
		}
		least = time.Duration(b.Spec.MinReadySeconds) * time.Second
	case *appsv1.StatefulSet:
		if r := b.Spec.UpdateStrategy.RollingUpdate; r != nil {
			away = r.MaxUnavailable
		}
		least = time.Duration(b.Spec.MinReadySeconds) * time.Second
	default:
		return len(w.Pods)
	}
	want := int(w.Replicas())
	budget := 1
	if away != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(away, want, false); err == nil {
			budget = max(1, n)
		}
	}
	up := 0
	for _, p := range w.Pods {
		if p.Available(now, least) {
			up++
		}
	}
	return budget - max(0, want-up)
}

// preempt stops pods of lower priority, of whatever workload, where that makes
// room for pods that found none: room that is made for one, which is returned
// with what was made before, is not made or given a second time.
func (p *Planner) preempt(d *Decision, s *state.State, req schedule.Request, made []schedule.Placed) []schedule.Placed {
	if !schedule.MayPreempt(s, req.Template) {
		return made
	}
	disruptions := schedule.Disruptions(s)
	for _, stop := range d.Stop {
		schedule.Take(disruptions, stop.Pod)
		req.Gone = append(req.Gone, stop.Pod)
	}
	var budgets []schedule.Budget
	for _, b := range disruptions {
		budgets = append(budgets, b.Budget)
	}
	req.After = slices.Concat(req.After, made)
	room := schedule.Placed{Workload: req.Workload, Template: req.Template}
	for _, x := range p.roster.Preempt(s, req, budgets) {
		room.Spots = append(room.Spots, x.Spot)
		for _, victim := range x.Victims {
			d.Stop = append(d.Stop, rollout.Stop{Pod: victim, Why: state.StopPreempted})
		}
	}
	return append(made, room)
}
