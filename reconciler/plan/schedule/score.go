package schedule

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Scores are integers in hundredths of Kubernetes's 0..100, so that small pods
// on big nodes still tell nodes apart, times kube-scheduler's default weights.
// No score is normalised over the nodes at hand: each depends on one node, or
// on the domains of one topology, so that placing a pod changes few of them and
// a batch gives what placing one by one gives.
const (
	full = 100 * 100

	weightTaint    = 3 // TaintToleration
	weightAffinity = 2 // NodeAffinity
	weightSpread   = 2 // PodTopologySpread
	weightPods     = 2 // InterPodAffinity
	weightLeast    = 1 // NodeResourcesFit, LeastAllocated
	weightBalanced = 1 // NodeResourcesBalancedAllocation
)

// What a pod that asks for nothing counts for in scores, never in the filter
// (Kubernetes: DefaultMilliCPURequest, DefaultMemoryRequest). A node is taken
// to use at least that for each of its pods.
const (
	defaultMilliCPU = 100
	defaultMemory   = 200 << 20
)

// fixedScore is what doesn't change within a batch.
func (c *class) fixedScore(n *state.Node) int64 {
	return weightTaint*c.scoreTaints(n) + weightAffinity*c.scoreAffinity(n)
}

// indifferent is fixedScore of a node without taints for pods that prefer none.
const indifferent = weightTaint * full

// scoreTaints: full without a PreferNoSchedule taint that isn't tolerated, a
// half with one, a third with two.
func (c *class) scoreTaints(n *state.Node) int64 {
	count := int64(0)
	for i := range n.Facts.Taints {
		t := &n.Facts.Taints[i]
		if t.Effect == string(corev1.TaintEffectPreferNoSchedule) && !tolerates(c.spec.Tolerations, t) {
			count++
		}
	}
	return full / (1 + count)
}

// scoreAffinity is the share of the preferred terms' weights that the node matches.
func (c *class) scoreAffinity(n *state.Node) int64 {
	var sum, total int64
	for i := range c.preferred {
		p := &c.preferred[i]
		total += p.weight
		if p.term.matches(n) {
			sum += p.weight
		}
	}
	if total == 0 {
		return 0
	}
	return full * sum / total
}

// scoreRoom is LeastAllocated and BalancedAllocation of a node that uses used
// and gets ask: much room left, and as much memory as processor.
func scoreRoom(allocatable, used, ask state.Resources) int64 {
	cpu := share(max(used.MilliCPU, used.Pods*defaultMilliCPU)+atLeast(ask.MilliCPU, defaultMilliCPU), allocatable.MilliCPU)
	memory := share(max(used.Memory, used.Pods*defaultMemory)+atLeast(ask.Memory, defaultMemory), allocatable.Memory)
	apart := cpu - memory
	if apart < 0 {
		apart = -apart
	}
	return weightLeast*(full-(cpu+memory)/2) + weightBalanced*(full-apart/2)
}

func atLeast(asked, otherwise int64) int64 {
	if asked == 0 {
		return otherwise
	}
	return asked
}

// share is part/whole, at most full.
func share(part, whole int64) int64 {
	if whole <= 0 || part >= whole {
		return full
	}
	return part * full / whole // 900 TB before it overflows
}

// scoreNode is what depends on the node alone and changes when it gets a pod.
func (b *batch) scoreNode(i int32) int64 {
	c := &b.nodes[i]
	score := c.fixed + scoreRoom(c.allocatable, c.used, b.ask(i))
	return score + b.scorePods(i, true)
}

// scorePods is soft spread and preferred pod affinity. Where each domain has one
// node (unique) the score falls with the node's own count, c pods give
// skew/(skew+c); the first pods of a workload are kept apart strongly, later
// ones go by room. Over domains of several nodes it is Kubernetes's
// (max+min−count)/max.
func (b *batch) scorePods(i int32, unique bool) int64 {
	var score, soft int64
	for _, p := range b.spreads {
		if !p.hard {
			soft++
			if p.topo.unique == unique && p.topo.of[i] != noDomain {
				score += p.score(i)
			}
		}
	}
	if soft > 0 {
		score = weightSpread * score / soft
	}
	for _, s := range b.sums {
		if s.topo.unique == unique {
			score += weightPods * bend(s.at(i))
		}
	}
	return score
}

func (p *spread) score(i int32) int64 {
	n := p.at(i)
	switch {
	case p.topo.unique:
		return full * p.skew / (p.skew + n)
	case p.high == 0:
		return full
	default:
		return max(0, full*(p.high+p.low-n)/p.high)
	}
}

// bend maps a sum of weights to −full..full: 100, the highest weight of one
// term, gives half.
func bend(sum int64) int64 {
	size := sum
	if size < 0 {
		size = -size
	}
	return full * sum / (size + 100)
}
