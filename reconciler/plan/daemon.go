package plan

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A post is a node that a DaemonSet belongs on, with the pods that it has there.
type post struct {
	schedule.Host
	current *state.Pod // of the template wanted now
	old     *state.Pod
	ending  bool // a pod there is told to stop
}

// daemons is a DaemonSet as its controller sees it: Kubernetes's
// daemon_controller.go and update.go.
type daemons struct {
	d     *Decision
	w     *state.Workload
	spec  *appsv1.DaemonSetSpec
	now   state.Instant
	posts []*post // where pods are wanted, by node name
	start map[*state.WorkloadVariant][]state.NodeName
}

// daemon decides for a DaemonSet: one pod on each node that fits one of its
// variants, and one budget over both OSes.
func (p *Planner) daemon(d *Decision, s *state.State, w *state.Workload, spec *appsv1.DaemonSetSpec, now state.Instant) {
	if w.Deleting {
		for _, pod := range w.Pods {
			if !pod.Stopping {
				d.Stop = append(d.Stop, rollout.Stop{Pod: pod, Why: state.StopPruned})
			}
		}
		d.Gone = len(w.Pods) == 0
		return
	}
	x := &daemons{d: d, w: w, spec: spec, now: now, start: map[*state.WorkloadVariant][]state.NodeName{}}
	x.sort(p.roster.Hosts(s, w))
	x.fill()
	if spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
		x.update()
	}
	x.complete()
	for _, v := range w.Variants {
		nodes := x.start[v]
		if len(nodes) == 0 {
			continue
		}
		start := rollout.Start{Variant: v, Template: v.Update, Count: len(nodes), Ordinal: -1}
		answer := p.roster.Each(s, schedule.Request{Workload: w, Variant: v, Template: v.Update, Count: len(nodes)}, nodes)
		d.Decided = append(d.Decided, Placement{Start: start, Answer: answer})
		if lack := len(nodes) - len(answer.Spots); lack > 0 {
			d.Waiting = true
			d.Held = append(d.Held, noRoom(w, start, answer, lack))
		}
	}
}

// sort gives each wanted node its pods. What may not stay where it is goes; what
// is there twice loses the younger one.
func (x *daemons) sort(hosts []schedule.Host) {
	at := map[state.NodeName]*post{}
	stays := map[state.NodeName]bool{}
	for _, h := range hosts {
		stays[h.Node.Name] = h.Stays
		if h.Reason == state.NodeFits || h.Stays {
			at[h.Node.Name] = &post{Host: h}
			if h.Reason == state.NodeFits && h.Node.Ready {
				x.posts = append(x.posts, at[h.Node.Name])
			}
		}
	}
	for _, pod := range x.w.Pods {
		post := at[pod.Node]
		switch {
		case pod.Stopping:
			if post != nil {
				post.ending = true
			}
		case pod.Lost:
			// It may run there still, and nothing can be done about it.
		case x.unknown(pod.OS):
			// What it should be isn't known yet.
		case !stays[pod.Node] || post == nil:
			x.stop(pod, state.StopMisplaced)
		case pod.Ended():
			post.ending = true
			if at := pod.Placed.Mono + rollout.FailedWait; x.now.Mono < at {
				x.wake(at)
			} else {
				x.stop(pod, state.StopFailed)
			}
		default:
			x.assign(post, pod)
		}
	}
}

// unknown says whether the variant of an OS has no template yet.
func (x *daemons) unknown(os state.OS) bool {
	v := x.w.Variant(os)
	return v != nil && v.Update == nil
}

// assign keeps the older of two pods of one template on one node.
func (x *daemons) assign(p *post, pod *state.Pod) {
	place := &p.old
	if x.w.IsCurrent(pod) {
		place = &p.current
	}
	if *place != nil {
		x.stop(pod, state.StopScaledDown)
		return
	}
	*place = pod
}

func (x *daemons) stop(pod *state.Pod, why state.StopReason) {
	x.d.Stop = append(x.d.Stop, rollout.Stop{Pod: pod, Why: why})
}

func (x *daemons) begin(p *post) {
	x.start[p.Variant] = append(x.start[p.Variant], p.Node.Name)
}

// up says whether the pod counts as available; if it will by itself, the
// decision wakes then.
func (x *daemons) up(pod *state.Pod) bool {
	if pod == nil {
		return false
	}
	least := time.Duration(x.spec.MinReadySeconds) * time.Second
	if pod.Available(x.now, least) {
		return true
	}
	if pod.Ready {
		x.wake(pod.ReadySince.Mono + least)
	}
	return false
}

// wake keeps the earliest wake-up.
func (x *daemons) wake(at time.Duration) {
	if x.d.Wake == 0 || at < x.d.Wake {
		x.d.Wake = at
	}
}

// fill begins pods where none is. The one before must be gone, unless the update
// may have two beside each other.
func (x *daemons) fill() {
	surge, _ := x.budget()
	for _, p := range x.posts {
		if surge == 0 && p.current != nil && p.old != nil {
			x.oneOf(p)
		}
		if p.current == nil && p.old == nil && (!p.ending || surge > 0) {
			x.begin(p)
		}
	}
}

// oneOf ends one of two pods on a node where an update may no longer surge: the
// new one goes on if it is up.
func (x *daemons) oneOf(p *post) {
	p.ending = true
	if x.up(p.current) {
		x.stop(p.old, state.StopOutdated)
		p.old = nil
		return
	}
	x.stop(p.current, state.StopScaledDown)
	p.current = nil
}

// budget is the update's, of the nodes that want a pod: both round up.
func (x *daemons) budget() (surge, away int) {
	u := x.spec.UpdateStrategy.RollingUpdate
	if u == nil {
		return 0, 1
	}
	surge, away = rollout.Share(u.MaxSurge, len(x.posts), "0"), rollout.Share(u.MaxUnavailable, len(x.posts), "1")
	if surge == 0 && away == 0 {
		away = 1
	}
	return surge, away
}

// update replaces old pods: at once those that aren't available, the others
// within the budget.
func (x *daemons) update() {
	surge, away := x.budget()
	for _, p := range x.posts {
		if !x.up(p.current) && !x.up(p.old) {
			away--
		}
		if p.current != nil && p.old != nil || p.old == nil && p.ending && surge > 0 {
			surge--
		}
	}
	allowed, _ := x.budget()
	blocked := x.blocked()
	for _, p := range x.posts {
		switch {
		case p.old == nil:
		case blocked[p.Variant] && x.up(p.old) && p.current == nil:
			// what doesn't work is replaced in any order
		case !x.up(p.old):
			x.stop(p.old, state.StopOutdated)
			if allowed > 0 && p.current == nil {
				x.begin(p)
			}
		case allowed > 0 && p.current == nil && surge > 0:
			surge--
			x.begin(p)
		case allowed > 0 && x.up(p.current):
			x.stop(p.old, state.StopOutdated)
		case allowed == 0 && away > 0:
			away--
			x.stop(p.old, state.StopOutdated)
		}
	}
}

// blocked are the variants that wait for another OS to finish first.
func (x *daemons) blocked() map[*state.WorkloadVariant]bool {
	out := map[*state.WorkloadVariant]bool{}
	oses, err := rollout.ParseOSOrder(x.w.Owned.Object.First().GetAnnotations()[rollout.OSOrder])
	if err != nil {
		return out // validation refused it, or there is none
	}
	waiting := false
	for _, os := range oses {
		v := x.w.Variant(os)
		if v == nil || v.OS != os {
			continue // it is said of one OS alone, or of none
		}
		out[v] = waiting
		for _, p := range x.posts {
			waiting = waiting || p.Variant == v && (p.old != nil || !x.up(p.current))
		}
	}
	return out
}

func (x *daemons) complete() {
	whole := len(x.d.Stop) == 0 && len(x.start) == 0
	for _, p := range x.posts {
		whole = whole && (x.up(p.current) || x.up(p.old))
		x.d.Partial = x.d.Partial || p.old != nil
	}
	if x.d.Partial && x.spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
		whole = false
	}
	missing := slices.ContainsFunc(x.w.Variants, func(v *state.WorkloadVariant) bool { return v.Update == nil })
	x.d.Complete = whole && !missing && !x.d.Waiting && len(x.d.Held) == 0
	x.d.Partial = x.d.Partial && x.d.Complete
}

// daemonTolerations are what Kubernetes adds to the pods of a DaemonSet.
func daemonTolerations(have []corev1.Toleration) []corev1.Toleration {
	out := slices.Clone(have)
	for _, t := range []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodePIDPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule},
	} {
		t.Operator = corev1.TolerationOpExists
		same := func(o corev1.Toleration) bool {
			return o.Key == t.Key && o.Effect == t.Effect && o.Operator == t.Operator
		}
		if !slices.ContainsFunc(out, same) {
			out = append(out, t)
		}
	}
	return out
}
