package schedule

import "github.com/tandem-gitops/tandem/reconciler/state"

// A topology puts nodes into domains: those with the same value of a label.
// Placements share it, none changes it.
type topology struct {
	key    string
	of     []int32 // by node; noDomain where the node lacks the label
	size   int32
	blank  int32 // the domain of the empty value; noDomain: no node has that
	unique bool  // no domain has two nodes
}

const noDomain = -1

// newTopology numbers the domains in the order in which nodes come; the numbers
// only tell domains apart.
func newTopology(key string, seats []seat) *topology {
	t := &topology{key: key, of: make([]int32, len(seats)), blank: noDomain, unique: true}
	ids := map[string]int32{}
	for i := range seats {
		v, ok := seats[i].node.Label(key)
		if !ok {
			t.of[i] = noDomain
			continue
		}
		id, seen := ids[v]
		if !seen {
			id = t.size
			ids[v] = id
			t.size++
		}
		t.unique = t.unique && !seen
		t.of[i] = id
		if v == "" {
			t.blank = id
		}
	}
	return t
}

// among is the topology of a workload's default spread: nodes that lack the
// label form a domain, and those that can't take the pod have none.
func (t *topology) among(nodes []candidate) *topology {
	out := &topology{key: t.key, of: make([]int32, len(nodes)), blank: noDomain, unique: true}
	without := t.blank
	if without == noDomain {
		without = t.size
	}
	ids := make([]int32, t.size+1)
	for i := range ids {
		ids[i] = noDomain
	}
	for i := range nodes {
		if !nodes[i].allowed {
			out.of[i] = noDomain
			continue
		}
		d := t.of[i]
		if d == noDomain {
			d = without
		}
		if ids[d] == noDomain {
			ids[d] = out.size
			out.size++
		} else {
			out.unique = false
		}
		out.of[i] = ids[d]
	}
	return out
}

// hostnames is the topology of kubernetes.io/hostname: each node is a domain.
func hostnames(nodes int) *topology {
	t := &topology{key: "kubernetes.io/hostname", of: make([]int32, nodes), size: int32(nodes), blank: noDomain, unique: true}
	for i := range t.of {
		t.of[i] = int32(i)
	}
	return t
}

// A tally counts pods by domain.
type tally struct {
	topo   *topology
	self   int64 // what a pod of this batch adds where it is placed
	counts []int64
}

func newTally(t *topology) tally { return tally{topo: t, counts: make([]int64, t.size)} }

func (t *tally) add(node int32, n int64) {
	if d := t.topo.of[node]; d != noDomain {
		t.counts[d] += n
	}
}

// at is the count of the node's domain; 0 where it has none.
func (t *tally) at(node int32) int64 {
	if d := t.topo.of[node]; d != noDomain {
		return t.counts[d]
	}
	return 0
}

// A spread is a topology spread constraint: hard where it says DoNotSchedule.
type spread struct {
	tally
	match      *matcher // nil: the workload's own pods
	hard       bool
	skew       int64
	minDomains int64
	eligible   []bool // by node: it counts
	present    []bool // by domain: an eligible node has it
	domains    int64
	low, high  int64   // over present domains
	having     []int32 // how many present domains have a count; nil: not settled yet
}

// settle works out lowest and highest once all pods are counted.
func (p *spread) settle() {
	p.present = make([]bool, p.topo.size)
	for i, ok := range p.eligible {
		if d := p.topo.of[i]; ok && d != noDomain && !p.present[d] {
			p.present[d] = true
			p.domains++
		}
	}
	most := int64(0)
	for d, ok := range p.present {
		if ok {
			most = max(most, p.counts[d])
		}
	}
	p.having = make([]int32, most+1, most+16)
	first := true
	for d, ok := range p.present {
		if !ok {
			continue
		}
		n := p.counts[d]
		p.having[n]++
		if first || n < p.low {
			p.low = n
		}
		p.high = max(p.high, n)
		first = false
	}
}

// shift changes the count at a node; true: the lowest count rose, so nodes that
// were too far above it may not be any more.
func (p *spread) shift(node int32, by int64) bool {
	d := p.topo.of[node]
	if by == 0 || d == noDomain || !p.eligible[node] {
		return false
	}
	was := p.counts[d]
	now := was + by
	p.counts[d] = now
	if p.having == nil {
		return false // not settled yet
	}
	for int64(len(p.having)) <= now {
		p.having = append(p.having, 0)
	}
	p.having[was]--
	p.having[now]++
	p.high = max(p.high, now)
	low := p.low
	p.low = min(p.low, now)
	for p.having[p.low] == 0 {
		p.low++
	}
	return p.low > low
}

// allows says whether one more pod keeps the skew (Kubernetes:
// PodTopologySpread's filter).
func (p *spread) allows(node int32) bool {
	if p.topo.of[node] == noDomain {
		return false
	}
	low := p.low
	if p.domains < p.minDomains {
		low = 0
	}
	return p.at(node)+p.self-low <= p.skew
}

// A term is a required pod affinity or anti-affinity term of the batch's template.
type term struct {
	tally
	match *matcher
}

// A wish is a preferred pod affinity term of the batch's template; its weight is
// negative for anti-affinity.
type wish struct {
	match  *matcher
	weight int64
	sum    *tally
}

// A ban is where pods that run now keep pods like this one away.
type ban struct {
	topo    *topology
	domains map[int32]int64 // how many such pods, by domain
}

// blocked answers for required anti-affinity, affinity and spread at a node, as
// of the pods counted so far. With unique it asks only what differs from node to
// node, without only what a whole group of nodes shares.
func (b *batch) blocked(node int32, unique bool) state.NodeReason {
	for _, t := range b.avoids {
		if t.topo.unique == unique && t.at(node) > 0 {
			return state.NodePodAntiAffinity
		}
	}
	for _, t := range b.wants {
		if t.topo.unique == unique && b.misses(t, node) {
			return state.NodePodAffinity
		}
	}
	for _, p := range b.spreads {
		if p.hard && p.topo.unique == unique && !p.allows(node) {
			return state.NodeSpread
		}
	}
	return state.NodeFits
}

// misses says whether nothing that a required affinity term names is in the
// node's domain. The first of pods that name themselves may go anywhere
// (Kubernetes's rule).
func (b *batch) misses(t *term, node int32) bool {
	return (b.wanted > 0 || !b.wantsSelf) && t.at(node) == 0
}

// others is the first reason that lies in other pods, whatever the topology.
func (b *batch) others(node int32) state.NodeReason {
	for _, t := range b.avoids {
		if t.at(node) > 0 {
			return state.NodePodAntiAffinity
		}
	}
	if b.banned(node) {
		return state.NodeExistingAntiAffinity
	}
	for _, t := range b.wants {
		if b.misses(t, node) {
			return state.NodePodAffinity
		}
	}
	for _, p := range b.spreads {
		if p.hard && !p.allows(node) {
			return state.NodeSpread
		}
	}
	return state.NodeFits
}
