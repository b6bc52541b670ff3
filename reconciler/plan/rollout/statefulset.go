package rollout

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// slot is one identity of a StatefulSet.
type slot struct {
	ordinal int32
	variant *state.WorkloadVariant
	pod     *state.Pod // nil: not there
}

// ordered is a StatefulSet as its controller sees it: Kubernetes's
// stateful_set_control.go, with one order over both OSes.
type ordered struct {
	step      *Step
	w         *state.Workload
	spec      *appsv1.StatefulSetSpec
	now       state.Instant
	least     time.Duration
	paused    bool
	slots     []slot       // wanted, ascending
	condemned []*state.Pod // not wanted, descending
}

// statefulSet is one pass: it walks up to create, down to delete, then down to
// update, and does one thing (OrderedReady) or each thing that it may (Parallel).
func statefulSet(w *state.Workload, spec *appsv1.StatefulSetSpec, now state.Instant) Step {
	var s Step
	o := &ordered{step: &s, w: w, spec: spec, now: now, least: seconds(spec.MinReadySeconds), paused: Paused(w)}
	o.sort()
	strict := spec.PodManagementPolicy != appsv1.ParallelPodManagement
	switch {
	case w.Deleting:
		o.remove(strict)
		return s
	case o.recreate():
	case !o.create(strict) && strict:
	case !o.scaleDown(strict) && strict:
	case o.paused:
	default:
		o.update()
	}
	s.Complete, s.Partial = o.complete()
	if !o.paused {
		s.stalled(w, now, o.least, deadlineOf(w))
	}
	return s
}

// recreate ends every pod of an older revision at once, whatever its ordinal, and
// says whether some are still there: old and new never run together (KEP-3541).
func (o *ordered) recreate() bool {
	if o.spec.UpdateStrategy.Type != appsv1.RecreateStatefulSetStrategyType || o.paused {
		return false
	}
	old := false
	for _, p := range o.w.Pods {
		if v := o.w.Variant(p.OS); v != nil && (v.Update == nil || p.Template.Digest == v.Update.Digest) {
			continue
		}
		old = true
		if p.Lost {
			o.hold(p)
		} else if !p.Stopping {
			o.step.Stop = append(o.step.Stop, Stop{p, state.StopOutdated})
		}
	}
	return old
}

// sort gives each wanted ordinal its pod; the rest is condemned. An identity
// that moved to the other OS is condemned on the old one first.
func (o *ordered) sort() {
	for _, v := range o.w.Variants {
		for i := range v.Replicas {
			if !o.w.Deleting {
				o.slots = append(o.slots, slot{ordinal: v.Start + i, variant: v})
			}
		}
	}
	slices.SortFunc(o.slots, func(a, b slot) int { return int(a.ordinal) - int(b.ordinal) })
	for _, p := range o.w.Pods {
		i, ok := slices.BinarySearchFunc(o.slots, p.Ordinal, func(s slot, n int32) int { return int(s.ordinal) - int(n) })
		if ok && (o.slots[i].pod == nil || o.slots[i].pod.PlacedSeq < p.PlacedSeq) {
			o.slots[i].pod = p
			continue
		}
		if !ok {
			o.condemned = append(o.condemned, p)
		}
	}
	slices.SortFunc(o.condemned, func(a, b *state.Pod) int { return int(b.Ordinal) - int(a.Ordinal) })
}

// wants says whether a slot's pod is on the OS that its variant says.
func (s slot) wants(p *state.Pod) bool { return s.variant.OS == state.AnyOS || s.variant.OS == p.OS }

// create walks up: it makes what is missing and, in order, waits for each. It
// says whether the walk came to its end.
func (o *ordered) create(strict bool) bool {
	whole := true
	for i, slot := range o.slots {
		p := slot.pod
		switch {
		case p == nil:
			if t := o.template(i); t != nil {
				o.step.Start = append(o.step.Start, Start{Variant: slot.variant, Template: t, Count: 1, Ordinal: slot.ordinal})
			}
			whole = false
		case p.Lost:
			// Its node may still run it: an identity is never started twice.
			o.hold(p)
			whole = false
		case p.Stopping:
			whole = false
		case p.Phase == state.Failed || p.Phase == state.Succeeded:
			if o.step.failed(p, o.now) {
				o.step.Stop = append(o.step.Stop, Stop{p, state.StopFailed})
			}
			whole = false
		case !slot.wants(p):
			o.step.Stop = append(o.step.Stop, Stop{p, state.StopOutdated})
			whole = false
		case strict && !o.step.available(p, o.now, o.least):
			// Kubernetes waits here for ever when a revision never becomes ready
			// (kubernetes#67250). A life that was never ready and isn't of the
			// wanted revision gives way to it.
			if !p.Ready && p.ReadySince.IsZero() && o.mayUpdate(i) && !o.paused && p.Template.Digest != digest(o.template(i)) {
				o.step.Stop = append(o.step.Stop, Stop{p, state.StopOutdated})
			}
			whole = false
		}
		if !whole && strict {
			return false
		}
	}
	return whole
}

func digest(t *state.Template) state.Digest {
	if t == nil {
		return state.Digest{}
	}
	return t.Digest
}

func (o *ordered) hold(p *state.Pod) {
	o.step.Held = append(o.step.Held, state.Held{
		Object: o.w.Ref, Code: state.HoldNodeLost, OS: p.OS, Count: 1, Params: []string{p.Key.Name, string(p.Node)},
	})
}

// scaleDown walks down over what isn't wanted: highest first, one at a time. A
// condemned pod that isn't healthy blocks those above... unless it is the lowest
// unhealthy one (Kubernetes's rule: a healthy majority isn't torn down while an
// unhealthy pod might come back).
func (o *ordered) scaleDown(strict bool) bool {
	if len(o.condemned) == 0 {
		return true
	}
	var firstUnhealthy *state.Pod
	for _, p := range o.condemned {
		if !o.step.available(p, o.now, o.least) {
			firstUnhealthy = p // descending: the last one seen is the lowest
		}
	}
	for _, p := range o.condemned {
		switch {
		case p.Lost:
			o.hold(p)
			if strict {
				return false
			}
			continue
		case p.Stopping:
			if strict {
				return false
			}
			continue
		case strict && !p.Available(o.now, o.least) && p != firstUnhealthy && !o.hopeless(p):
			return false
		}
		o.step.Stop = append(o.step.Stop, Stop{p, state.StopScaledDown})
		if strict {
			return false
		}
	}
	return false
}

// hopeless says whether a pod that goes has ended, or was never ready and is of
// a template that nobody wants any more: to wait for it, as Kubernetes does, is
// to wait for ever (kubernetes#67250 on the way down).
func (o *ordered) hopeless(p *state.Pod) bool {
	if p.Phase == state.Failed || p.Phase == state.Succeeded {
		return true
	}
	return !p.Ready && p.ReadySince.IsZero() && !o.w.IsCurrent(p)
}

// remove ends a deleted set, in order: Kubernetes gives none here, and its
// users scale to zero first for it.
func (o *ordered) remove(strict bool) {
	for _, p := range o.condemned {
		if p.Lost {
			o.hold(p)
		} else if !p.Stopping {
			o.step.Stop = append(o.step.Stop, Stop{p, state.StopPruned})
		}
		if strict {
			return
		}
	}
}

// template is what a pod at this position is made from.
func (o *ordered) template(position int) *state.Template {
	v := o.slots[position].variant
	if v.Current == nil || v.Update == nil {
		return v.Update
	}
	switch u := o.spec.UpdateStrategy; {
	case u.Type == appsv1.OnDeleteStatefulSetStrategyType:
		return v.Update
	case u.RollingUpdate != nil:
		if !o.mayUpdate(position) {
			return v.Current
		}
		return v.Update
	default:
		// `type: RollingUpdate` written alone leaves rollingUpdate unset, and
		// then a pod below the number of pods still on the current revision is
		// made from that one.
		if position < o.onCurrent() && v.Current.Digest != v.Update.Digest {
			return v.Current
		}
		return v.Update
	}
}

func (o *ordered) onCurrent() int {
	n := 0
	for _, s := range o.slots {
		if s.pod != nil && s.variant.Current != nil && s.pod.Template.Digest == s.variant.Current.Digest {
			n++
		}
	}
	return n
}

// mayUpdate says whether the position is at or above the partition.
func (o *ordered) mayUpdate(position int) bool {
	u := o.spec.UpdateStrategy.RollingUpdate
	return u == nil || u.Partition == nil || position >= int(*u.Partition)
}

// outdated says whether a slot's pod is to be replaced by the update.
func (o *ordered) outdated(i int) bool {
	p, v := o.slots[i].pod, o.slots[i].variant
	return p != nil && v.Update != nil && p.Template.Digest != v.Update.Digest && o.mayUpdate(i)
}

// update walks down and replaces outdated pods, as many at once as
// maxUnavailable lets be away (one by default).
func (o *ordered) update() {
	if o.spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	budget := 1
	if u := o.spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		// Kubernetes's code rounds down, though its API comment says up.
		budget = max(1, percent(u.MaxUnavailable, len(o.slots), false, "1"))
	}
	for i, s := range o.slots {
		if (s.pod == nil || !o.step.available(s.pod, o.now, o.least)) && !o.broken(i) {
			budget--
		}
	}
	for i, slot := range slices.Backward(o.slots) {
		p := slot.pod
		if p == nil || p.Stopping || p.Lost || !o.outdated(i) || o.stops(p) {
			continue
		}
		if !o.broken(i) {
			if budget <= 0 {
				return
			}
			budget--
		}
		o.step.Stop = append(o.step.Stop, Stop{p, state.StopOutdated})
	}
}

// stops says whether this pass stops the pod already: because it failed, or is
// on the other OS.
func (o *ordered) stops(p *state.Pod) bool {
	return slices.ContainsFunc(o.step.Stop, func(s Stop) bool { return s.Pod == p })
}

// broken says whether a slot's pod is outdated and already unavailable: to
// replace it costs nothing of the budget (kubernetes#137666).
func (o *ordered) broken(i int) bool {
	p := o.slots[i].pod
	return p != nil && !p.Stopping && !p.Lost && !p.Ready && o.outdated(i)
}

// complete says whether all that the text wants is there and available, and
// whether a partition keeps some on the revision before.
func (o *ordered) complete() (complete, partial bool) {
	if len(o.condemned) > 0 {
		return false, false
	}
	complete = true
	for _, s := range o.slots {
		// All of them are asked: the step wakes when the last has been ready for long enough.
		if s.pod == nil || !o.step.available(s.pod, o.now, o.least) {
			complete = false
		}
	}
	for i, s := range o.slots {
		if !complete || s.variant.Update == nil {
			return false, false
		}
		if s.pod.Template.Digest != s.variant.Update.Digest {
			if o.outdated(i) && o.spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
				return false, false
			}
			partial = true
		}
	}
	return true, partial
}
