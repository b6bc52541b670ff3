package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// OSOrder is the annotation that makes a rollout finish one OS before it
// begins the next: "linux,windows".
const OSOrder = "tandem.dev/os-order"

// ParseOSOrder reads that annotation: each OS once.
func ParseOSOrder(text string) ([]state.OS, error) {
	var out []state.OS
	for word := range strings.SplitSeq(text, ",") {
		os := state.OS(strings.TrimSpace(word))
		if os != state.Linux && os != state.Windows || slices.Contains(out, os) {
			return nil, fmt.Errorf("want each of linux and windows once, in order, got %q", text)
		}
		out = append(out, os)
	}
	return out, nil
}

// part is one variant's share of a Deployment's pods.
type part struct {
	variant   *state.WorkloadVariant // nil: pods whose variant left the text
	want      int
	current   []*state.Pod // of the template wanted now
	old       []*state.Pod
	available int  // of both
	blocked   bool // waits for another OS to finish first: what it has and works is kept
	now       state.Instant
	least     time.Duration // how long a pod is ready before it counts
}

// up says whether a pod counts as available.
func (p *part) up(pod *state.Pod) bool { return pod.Available(p.now, p.least) }

// deployment follows Kubernetes's deployment controller (rolling.go, recreate.go),
// with one budget over both OSes, and never takes down all of a variant.
func deployment(w *state.Workload, d *appsv1.Deployment, now state.Instant) Step {
	var s Step
	least := seconds(d.Spec.MinReadySeconds)
	parts, ending := split(&s, w, now, least)
	if w.Deleting {
		for _, p := range parts {
			s.stopAll(append(p.current, p.old...), state.StopPruned)
		}
		return s
	}
	var want, alive, old, up int
	for _, p := range parts {
		want += p.want
		alive += len(p.current) + len(p.old)
		old += len(p.old)
		up += p.available
	}
	recreate := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	surge, away := 0, want
	if !recreate {
		surge, away = Allowance(d, want)
	}
	switch {
	case old > 0 && (!recreate || d.Spec.Paused) && s.rescale(w, parts, want, surge, alive, d.Spec.Paused):
	case old > 0 && d.Spec.Paused:
		s.Held = append(s.Held, state.Held{Object: w.Ref, Code: state.HoldPaused})
		s.rest(parts, want+surge-alive)
	case recreate && (old > 0 || ending > 0 && s.oldEnding(w)):
		for _, p := range parts {
			s.stopAll(p.old, state.StopOutdated)
		}
	case old == 0:
		scale(&s, parts)
	default:
		order(d, parts)
		roll(&s, parts, budget{surge: surge, away: away}, want, alive, up)
	}
	s.Complete = old == 0 && up == want && alive == want && len(s.Start) == 0 && len(s.Stop) == 0 && current(w)
	deadline := DefaultDeadline
	if d.Spec.ProgressDeadlineSeconds != nil {
		deadline = seconds(*d.Spec.ProgressDeadlineSeconds)
	}
	if !d.Spec.Paused {
		s.stalled(w, now, least, deadline)
	}
	return s
}

// current says whether every variant has a template to make pods from.
func current(w *state.Workload) bool {
	return !slices.ContainsFunc(w.Variants, func(v *state.WorkloadVariant) bool { return v.Update == nil && v.Replicas > 0 })
}

// split sorts the pods that count by variant. Pods on a lost node and pods that
// failed are stopped and don't count; pods that are ending are only counted.
func split(s *Step, w *state.Workload, now state.Instant, least time.Duration) (parts []*part, ending int) {
	store := make([]part, len(w.Variants)+1) // the last: pods whose variant left the text
	for i := range store {
		store[i].now, store[i].least = now, least
		if i < len(w.Variants) {
			store[i].variant, store[i].want = w.Variants[i], int(w.Variants[i].Replicas)
			parts = append(parts, &store[i])
		}
	}
	stray := &store[len(w.Variants)]
	store[0].current = make([]*state.Pod, 0, len(w.Pods)) // mostly that is where all of them go
	for _, pod := range w.Pods {
		if pod.Stopping {
			ending++
			continue
		}
		if pod.Lost {
			s.Stop = append(s.Stop, Stop{pod, state.StopNodeLost})
			continue
		}
		if s.failed(pod, now) {
			s.Stop = append(s.Stop, Stop{pod, state.StopFailed})
			continue
		}
		p := stray
		if v := w.Variant(pod.OS); v != nil {
			p = &store[slices.Index(w.Variants, v)]
		}
		if w.IsCurrent(pod) || p.variant != nil && p.variant.Update == nil {
			p.current = append(p.current, pod)
		} else {
			p.old = append(p.old, pod)
		}
		if s.available(pod, now, least) {
			p.available++
		}
	}
	if len(stray.old)+len(stray.current) > 0 {
		parts = append(parts, stray)
	}
	return parts, ending
}

// oldEnding says whether a pod of the revision before may run still, which
// Recreate waits for. Of one on a lost node nobody knows: Kubernetes counts it as
// running, and so it is held here.
func (s *Step) oldEnding(w *state.Workload) bool {
	found := false
	for _, p := range w.Pods {
		if !p.Stopping || p.Ended() || w.IsCurrent(p) {
			continue
		}
		found = true
		if p.Lost {
			s.Held = append(s.Held, state.Held{
				Object: w.Ref, Code: state.HoldNodeLost, OS: p.OS, Count: 1, Params: []string{p.Key.Name, string(p.Node)},
			})
		}
	}
	return found
}

// scale makes the number of pods right where there is nothing to replace.
func scale(s *Step, parts []*part) {
	for _, p := range parts {
		switch n := p.want - len(p.current); {
		case n > 0:
			s.start(p, n)
		case n < 0:
			p.surplus(s)
		}
	}
}

// surplus stops the pods of the new template that are too many, and says how
// many go and how many of these are available.
func (p *part) surplus(s *Step) (gone, ready int) {
	gone = len(p.current) - p.want
	if gone <= 0 {
		return 0, 0
	}
	pods := slices.Clone(p.current)
	sortGoing(pods, pods)
	s.stopAll(pods[:gone], state.StopScaledDown)
	for _, pod := range pods[:gone] {
		if p.up(pod) {
			ready++
		}
	}
	p.current, p.available = pods[gone:], p.available-ready
	return gone, ready
}

func (s *Step) start(p *part, n int) {
	if n > 0 && p.variant != nil && p.variant.Update != nil {
		s.Start = append(s.Start, Start{Variant: p.variant, Template: p.variant.Update, Count: n, Ordinal: -1})
	}
}

func (s *Step) stopAll(pods []*state.Pod, why state.StopReason) {
	for _, p := range pods {
		s.Stop = append(s.Stop, Stop{p, why})
	}
}

// budget is how many pods a rollout may add and take away.
type budget struct{ surge, away int }

// Allowance is a Deployment's budget: surge and unavailability are of the sum over
// both OSes.
func Allowance(d *appsv1.Deployment, want int) (surge, away int) {
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		surge, away = percent(r.MaxSurge, want, true, "25%"), percent(r.MaxUnavailable, want, false, "25%")
	} else {
		surge, away = percent(nil, want, true, "25%"), percent(nil, want, false, "25%")
	}
	if surge == 0 && away == 0 {
		away = 1
	}
	return surge, away
}

// roll replaces old pods within the budget.
func roll(s *Step, parts []*part, b budget, want, alive, up int) {
	spreadStarts(s, parts, want+b.surge-alive)
	for i := range s.Start {
		s.Start[i].Surge = b.away == 0
	}

	// Too many of the new template (scaled down during the rollout).
	for _, p := range parts {
		gone, ready := p.surplus(s)
		alive, up = alive-gone, up-ready
	}
	// Old pods that aren't available cost nothing; the new ones that aren't yet
	// available do.
	least := want - b.away
	idle := alive - least
	for _, p := range parts {
		for _, pod := range p.current {
			if !p.up(pod) {
				idle--
			}
		}
	}
	spare := up - least
	for _, c := range candidates(parts) {
		if idle <= 0 {
			return
		}
		if c.part.up(c.pod) {
			if spare <= 0 || !c.part.mayTake() {
				continue
			}
			spare--
			c.part.available--
		}
		idle--
		s.Stop = append(s.Stop, Stop{c.pod, state.StopOutdated})
	}
}

// order marks the variants that wait for another OS.
func order(d *appsv1.Deployment, parts []*part) {
	oses, err := ParseOSOrder(d.Annotations[OSOrder])
	if err != nil {
		return // validation refused it, or there is none
	}
	waiting := false
	for _, os := range oses {
		for _, p := range parts {
			if p.variant == nil || p.variant.OS != os {
				continue
			}
			p.blocked = waiting && len(p.old) > 0
			if len(p.old) > 0 || p.available < p.want {
				waiting = true
			}
		}
	}
}

// spreadStarts hands out room for new pods one by one, to the variant that is
// furthest behind.
func spreadStarts(s *Step, parts []*part, room int) {
	given, lack := make([]int, len(parts)), make([]int, len(parts))
	for i, p := range parts {
		if p.variant == nil || p.variant.Update == nil {
			continue
		}
		lack[i] = p.want - len(p.current)
		if p.blocked {
			// What it lacks, or has and doesn't work, no order is about: to wait for
			// it would keep the other OS from going on.
			lack[i] -= len(slices.DeleteFunc(slices.Clone(p.old), func(pod *state.Pod) bool { return !p.up(pod) }))
		}
	}
	for ; room > 0; room-- {
		best := 0
		for i := range parts {
			if lack[i]-given[i] > lack[best]-given[best] {
				best = i
			}
		}
		if lack[best] <= given[best] {
			break
		}
		given[best]++
	}
	for i, p := range parts {
		s.start(p, given[i])
	}
}

// candidate is an old pod and the part that it belongs to.
type candidate struct {
	pod  *state.Pod
	part *part
}

// candidates are the old pods in the order in which they go: those that aren't
// available first, then from the variant with the most left, the oldest first.
func candidates(parts []*part) []candidate {
	var all []candidate
	for _, p := range parts {
		excess := len(p.old) + len(p.current) - p.want // scaled down meanwhile
		for _, pod := range p.old {
			if !p.blocked || !p.up(pod) || excess > 0 {
				all = append(all, candidate{pod, p})
				excess--
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(len(b.part.old), len(a.part.old)), cmp.Compare(a.pod.PlacedSeq, b.pod.PlacedSeq))
	})
	return all
}

func (c candidate) rank() int {
	if c.part.up(c.pod) {
		return 1
	}
	return 0
}

// mayTake keeps a variant of two or more pods from losing its last available
// one to the rollout.
func (p *part) mayTake() bool { return p.variant == nil || p.want < 2 || p.available > 1 }
