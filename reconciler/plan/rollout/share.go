package rollout

import (
	"cmp"
	"math"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Scaled is a variant whose number of pods changed in the midst of a rollout;
// what this adds or takes is shared out by the same step.
type Scaled struct {
	Variant  *state.WorkloadVariant
	Replicas int32
}

// A revised is a part's pods of one template.
type revised struct {
	template *state.Template
	newest   state.Seq // of its pods
	pods     []*state.Pod
}

// revisions are the templates that a part has pods of, the most pods first.
func (p *part) revisions() []*revised {
	byDigest := map[state.Digest]*revised{}
	var out []*revised
	for _, pod := range slices.Concat(p.current, p.old) {
		r := byDigest[pod.Template.Digest]
		if r == nil {
			r = &revised{template: pod.Template}
			byDigest[pod.Template.Digest] = r
			out = append(out, r)
		}
		r.pods, r.newest = append(r.pods, pod), max(r.newest, pod.PlacedSeq)
	}
	slices.SortFunc(out, func(a, b *revised) int {
		return cmp.Or(cmp.Compare(len(b.pods), len(a.pods)), cmp.Compare(b.newest, a.newest))
	})
	return out
}

// rescale gives the revisions of a Deployment their shares of a number of pods
// that changed while it rolls out, and says whether it did. Else all that is
// added would be of the new template, which may never become ready (Kubernetes:
// proportional scaling, deployment/sync.go). Down, the rollout's own budget does
// it, but where it is paused.
func (s *Step) rescale(w *state.Workload, parts []*part, want, surge, alive int, paused bool) bool {
	changed := false
	for _, p := range parts {
		v := p.variant
		if v == nil || v.Scaled == v.Replicas {
			continue
		}
		changed = true
		s.Scaled = append(s.Scaled, Scaled{v, v.Replicas})
		size := len(p.current) + len(p.old)
		to := size + int(v.Replicas-v.Scaled)
		if len(w.Variants) == 1 && want > 0 {
			to = want + surge
		}
		groups := p.revisions()
		if len(groups) == 1 {
			to = int(v.Replicas)
		}
		more := min(to-size, max(0, want+surge-alive))
		if len(groups) == 0 || more <= 0 && !paused {
			continue
		}
		alive += s.share(p, groups, size, max(more, -size))
	}
	return changed
}

// share adds so many pods to the revisions of a part, or takes them, each by its
// size; what rounding leaves goes to the largest. It says how many.
func (s *Step) share(p *part, groups []*revised, size, more int) int {
	parts := make([]int, len(groups))
	left := more
	for i, g := range groups {
		n := int(math.Round(float64(len(g.pods))*float64(size+more)/float64(size))) - len(g.pods)
		if more > 0 {
			n = min(max(n, 0), left)
		} else {
			n = max(min(n, 0), left)
		}
		parts[i] = n
		left -= n
	}
	parts[0] += left
	for i, g := range groups {
		switch {
		case parts[i] > 0:
			s.Start = append(s.Start, Start{Variant: p.variant, Template: g.template, Count: parts[i], Ordinal: -1})
		case parts[i] < 0:
			pods := slices.Clone(g.pods)
			sortGoing(pods, pods)
			s.stopAll(pods[:min(-parts[i], len(pods))], state.StopScaledDown)
		}
	}
	return more
}

// rest is a paused Deployment in the midst of a rollout: it keeps its number of
// pods, of the revision that has the most. It may have room more.
func (s *Step) rest(parts []*part, room int) {
	for _, p := range parts {
		over := len(p.current) + len(p.old) - p.want
		if over = min(over, -room); over > 0 {
			pods := slices.Concat(p.current, p.old)
			sortGoing(pods, pods)
			s.stopAll(pods[:over], state.StopScaledDown)
			room += over
		}
	}
	for _, p := range parts {
		lack := min(p.want-len(p.current)-len(p.old), room)
		if p.variant == nil || lack <= 0 {
			continue
		}
		room -= lack
		if groups := p.revisions(); len(groups) > 0 {
			s.Start = append(s.Start, Start{Variant: p.variant, Template: groups[0].template, Count: lack, Ordinal: -1})
		} else {
			s.start(p, lack)
		}
	}
}

// sortGoing orders pods as Kubernetes's ReplicaSet controller does when it scales
// down (ActivePodsWithRanks): pending before running, not ready before ready, of
// nodes that have more of them, ready for a shorter time, restarted more often,
// the younger.
func sortGoing(pods, all []*state.Pod) {
	on := map[state.NodeName]int{}
	for _, p := range all {
		on[p.Node]++
	}
	rank := func(p *state.Pod) int {
		switch {
		case p.Ready:
			return 2
		case p.Phase == state.Running:
			return 1
		default:
			return 0
		}
	}
	since := func(p *state.Pod) int64 {
		if !p.Ready {
			return 0
		}
		return int64(p.ReadySince.Mono)
	}
	slices.SortStableFunc(pods, func(a, b *state.Pod) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)), cmp.Compare(on[b.Node], on[a.Node]), cmp.Compare(since(b), since(a)),
			cmp.Compare(b.Restarts, a.Restarts), cmp.Compare(b.PlacedSeq, a.PlacedSeq),
		)
	})
}
