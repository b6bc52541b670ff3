package schedule

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A candidate is a node within one batch.
type candidate struct {
	*seat
	used    state.Resources // with what the batch put there
	fixed   int64
	score   int64 // without what a whole group shares
	iso     state.Isolation
	group   int32
	reason  state.NodeReason // why it takes no further pod; NodeFits: it may
	allowed bool             // the pod's own rules and the machine let it there
}

// A group is the nodes that lie in the same domain of every topology with more
// than one node a domain: what the batch's pods change for one of them, they
// change for all. Its heap has the nodes that still may take a pod, best first.
type group struct {
	heap []int32
	node int32 // any of them
}

// A batch places the pods of one request. Each node is filtered once; a heap
// gives the best; placing a pod changes its node's place in the heap, and the
// counts of its domains.
type batch struct {
	state  *state.State
	req    *Request
	class  *class
	roster *Roster
	nodes  []candidate  // by name
	kinds  []verdict    // by kind of machine
	after  []*state.Pod // of Request.After

	reached map[reachKey][]reaches
	local   *locality // nil: no image is worth a score

	spreads   []*spread
	wants     []*term // required affinity
	avoids    []*term // required anti-affinity
	terms     []*wish
	sums      []*tally // preferences, one a topology
	bans      []*ban
	wanted    int64 // pods that match all of wants
	wantsSelf bool  // pods of the batch do: the first may go anywhere

	groups []group
	parked []int32 // too far above the lowest count for now
	static bool    // no node could take a pod if it were empty
}

// A verdict is whether a kind of machine executes the batch's pods, and how, and
// what one of them takes there.
type verdict struct {
	reason state.NodeReason
	iso    state.Isolation
	ask    state.Resources
}

func newBatch(r *Roster, s *state.State, req *Request) *batch {
	r.follow(s)
	b := &batch{state: s, req: req, class: newClass(req.Template), static: true, roster: r, nodes: r.candidates()}
	b.kinds = make([]verdict, len(r.kinds))
	for i, n := range r.kinds {
		v := &b.kinds[i]
		v.reason, v.iso = b.class.runs(n)
		if v.reason == state.NodeFits && b.class.dishonoured(n.Facts.OS) != "" {
			v.reason = state.NodeUnsupportedField // said of all such nodes at once
		}
		v.ask = state.Charge(req.Template.Requests, v.iso)
	}
	b.overlay()
	for i := range b.nodes {
		c := &b.nodes[i]
		if req.Node != "" && c.node.Name != req.Node {
			c.reason = state.NodeVolumeElsewhere
			continue
		}
		kind := &b.kinds[c.kind]
		if c.reason, c.iso = kind.reason, kind.iso; c.tainted || b.class.picky() {
			c.reason, c.iso = b.class.permits(c.node, kind.reason, kind.iso)
		}
		c.allowed = c.reason == state.NodeFits
	}
	return b
}

// overlay makes pods of what was decided before in the same step, and charges them.
func (b *batch) overlay() {
	for i := range b.req.After {
		placed := &b.req.After[i]
		for _, spot := range placed.Spots {
			at, ok := b.index(spot.Node.Name)
			if !ok {
				continue
			}
			b.after = append(b.after, &state.Pod{
				Key: state.PodKey{Namespace: placed.Workload.Ref.Namespace}, Workload: placed.Workload.Ref, Ordinal: -1,
				Template: placed.Template, Node: spot.Node.Name, Isolation: spot.Isolation,
			})
			c := &b.nodes[at]
			c.used = c.used.Add(state.Charge(placed.Template.Requests, spot.Isolation))
		}
	}
}

// portTaken says whether a pod on the node has one of the batch's host ports.
func (b *batch) portTaken(n *state.Node) bool {
	if len(b.class.ports) == 0 {
		return false
	}
	for _, p := range b.after {
		if p.Node == n.Name && b.class.sharesPort(p.Template) {
			return true
		}
	}
	return b.class.portTaken(n)
}

// index finds a node by name.
func (b *batch) index(name state.NodeName) (int32, bool) {
	i, ok := b.roster.byName[name]
	return i, ok
}

// filter finds the first reason of each node, as things are before the batch.
func (b *batch) filter() {
	for i := range b.nodes {
		c := &b.nodes[i]
		if c.reason != state.NodeFits {
			continue
		}
		ask := b.ask(int32(i))
		c.reason = b.fixedReason(int32(i), ask)
		if c.reason != state.NodeFits {
			continue
		}
		b.static = false
		c.reason = b.room(c, ask)
		switch {
		case c.reason != state.NodeFits:
		case b.portTaken(c.node):
			c.reason = state.NodePortTaken
		case b.reserved(c.node):
			c.reason = state.NodeReserved
		default:
			if b.banned(int32(i)) {
				c.reason = state.NodeExistingAntiAffinity
			}
		}
	}
}

// reserved says whether pods on the node were told to make room for more
// important ones than these: until they are gone these don't take it, or both
// would be preempted in turn for ever (Kubernetes: nominatedNodeName).
func (b *batch) reserved(n *state.Node) bool {
	if n.Yielding == 0 {
		return false
	}
	ours, _ := Priority(b.state, b.req.Template)
	for _, p := range n.Pods {
		if p.Stopping && p.StopWhy == state.StopPreempted {
			if theirs, _ := Priority(b.state, p.Template); ours <= theirs {
				return true
			}
		}
	}
	return false
}

// fixedReason is what keeps the node from such a pod even if it were empty.
func (b *batch) fixedReason(i int32, ask state.Resources) state.NodeReason {
	c := &b.nodes[i]
	if reason := b.class.awake(c.node); reason != state.NodeFits {
		return reason
	}
	if c.unfenced && b.req.Workload.NodeLoss() != lease.Wait {
		return state.NodeUnfenced
	}
	if reason := short(c.allocatable, ask); reason != state.NodeFits {
		return reason
	}
	for _, t := range b.wants {
		if t.topo.of[i] == noDomain {
			return state.NodePodAffinity
		}
	}
	for _, p := range b.spreads {
		if p.hard && p.topo.of[i] == noDomain {
			return state.NodeSpread
		}
	}
	return state.NodeFits
}

func (b *batch) room(c *candidate, ask state.Resources) state.NodeReason {
	return short(c.allocatable.Sub(c.used), ask)
}

// ask is what one pod of the batch takes on a node.
func (b *batch) ask(i int32) state.Resources { return b.kinds[b.nodes[i].kind].ask }

// banned says whether pods that run now keep the batch's pods away by their
// anti-affinity.
func (b *batch) banned(i int32) bool {
	return slices.ContainsFunc(b.bans, func(x *ban) bool {
		d := x.topo.of[i]
		return d != noDomain && x.domains[d] > 0
	})
}

// rank scores the nodes that fit and puts them into heaps.
func (b *batch) rank() {
	b.locate()
	shared := b.shared()
	type step struct{ group, domain int32 }
	for i := range b.nodes {
		b.nodes[i].group = 0
	}
	size := int32(1)
	for k, t := range shared {
		if k == 0 {
			for i := range b.nodes {
				b.nodes[i].group = t.of[i] + 1 // noDomain is 0
			}
			size = t.size + 1
			continue
		}
		ids := map[step]int32{}
		for i := range b.nodes {
			k := step{b.nodes[i].group, t.of[i]}
			id, ok := ids[k]
			if !ok {
				id = int32(len(ids))
				ids[k] = id
			}
			b.nodes[i].group = id
		}
		size = int32(len(ids))
	}
	b.groups = make([]group, size)
	fit := make([]int32, size)
	for i := range b.nodes {
		fit[b.nodes[i].group] += int32(ones(b.nodes[i].reason == state.NodeFits))
	}
	room := b.roster.heap()
	for g, n := range fit {
		b.groups[g].heap, room = room[:0:n], room[n:]
	}
	for i := range b.nodes {
		c := &b.nodes[i]
		if c.reason != state.NodeFits {
			continue
		}
		c.fixed = indifferent
		if c.tainted || len(b.class.preferred) > 0 {
			c.fixed = b.class.fixedScore(c.node)
		}
		c.fixed += b.scoreImages(int32(i))
		c.score = b.scoreNode(int32(i))
		g := &b.groups[c.group]
		g.node = int32(i)
		g.heap = append(g.heap, int32(i))
	}
	for g := range b.groups {
		h := b.groups[g].heap
		for i := len(h)/2 - 1; i >= 0; i-- {
			b.down(h, i)
		}
	}
}

// shared are the topologies of which a domain has several nodes and whose counts
// decide or score.
func (b *batch) shared() []*topology {
	var out []*topology
	add := func(t *topology) {
		if !t.unique && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for _, p := range b.spreads {
		add(p.topo)
	}
	for _, t := range b.wants {
		add(t.topo)
	}
	for _, t := range b.avoids {
		add(t.topo)
	}
	for _, s := range b.sums {
		add(s.topo)
	}
	return out
}

// pick places up to n pods.
func (b *batch) pick(n int) []Spot {
	if n <= 0 {
		return nil
	}
	spots := make([]Spot, 0, n)
	for len(spots) < n {
		best, top := int32(noDomain), int64(0)
		for g := range b.groups {
			i := b.best(&b.groups[g])
			if i == noDomain {
				continue
			}
			score := b.nodes[i].score
			if len(b.groups) > 1 {
				score += b.scorePods(i, false)
			}
			if best == noDomain || score > top || score == top && i < best {
				best, top = i, score
			}
		}
		if best == noDomain {
			break
		}
		c := &b.nodes[best]
		spots = append(spots, Spot{Node: c.node, Isolation: c.iso})
		b.place(best)
	}
	return spots
}

// best is the best node of a group that may take a pod now. Nodes that may not
// any more leave the heap; those that only wait for other counts are parked.
func (b *batch) best(g *group) int32 {
	if len(g.heap) == 0 || b.blocked(g.node, false) != state.NodeFits {
		return noDomain
	}
	for len(g.heap) > 0 {
		i := g.heap[0]
		reason := b.blocked(i, true)
		if reason == state.NodeFits {
			return i
		}
		b.nodes[i].reason = reason
		b.drop(g)
		if reason == state.NodeSpread {
			b.parked = append(b.parked, i)
		}
	}
	return noDomain
}

// place charges a pod to a node, the top of its group, and counts it.
func (b *batch) place(i int32) {
	c := &b.nodes[i]
	g := &b.groups[c.group]
	ask := b.ask(i)
	c.used = c.used.Add(ask)
	c.reason = b.room(c, ask)
	if c.reason == state.NodeFits && len(b.class.ports) > 0 {
		c.reason = state.NodePortTaken
	}
	rose := b.tallySelf(i)
	b.localise(i)
	if c.reason != state.NodeFits {
		b.drop(g)
	} else {
		c.score = b.scoreNode(i)
		b.down(g.heap, 0)
	}
	if rose {
		b.unpark()
	}
}

// tallySelf counts a pod of the batch at a node; true: a hard constraint's
// lowest count rose.
func (b *batch) tallySelf(i int32) bool {
	rose := false
	for _, p := range b.spreads {
		rose = p.shift(i, p.self) && p.hard && p.topo.unique || rose
	}
	for _, t := range b.wants {
		t.add(i, t.self)
	}
	b.wanted += ones(b.wantsSelf && len(b.wants) > 0)
	for _, t := range b.avoids {
		t.add(i, t.self)
	}
	for _, s := range b.sums {
		s.add(i, s.self)
	}
	return rose
}

func (b *batch) unpark() {
	for _, i := range b.parked {
		c := &b.nodes[i]
		c.reason = state.NodeFits
		g := &b.groups[c.group]
		g.heap = append(g.heap, i)
		b.up(g.heap, len(g.heap)-1)
	}
	b.parked = b.parked[:0]
}

// drop removes the top of a group's heap.
func (b *batch) drop(g *group) {
	last := len(g.heap) - 1
	g.heap[0] = g.heap[last]
	g.heap = g.heap[:last]
	b.down(g.heap, 0)
}

// before orders nodes: higher score, then name.
func (b *batch) before(i, j int32) bool {
	x, y := &b.nodes[i], &b.nodes[j]
	if x.score != y.score {
		return x.score > y.score
	}
	return i < j // nodes lie by name
}

func (b *batch) down(h []int32, at int) {
	for {
		child := 2*at + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && b.before(h[child+1], h[child]) {
			child++
		}
		if !b.before(h[child], h[at]) {
			return
		}
		h[at], h[child] = h[child], h[at]
		at = child
	}
}

func (b *batch) up(h []int32, at int) {
	for at > 0 {
		parent := (at - 1) / 2
		if !b.before(h[at], h[parent]) {
			return
		}
		h[at], h[parent] = h[parent], h[at]
		at = parent
	}
}

// liesInPods says whether a reason depends on which pods run elsewhere.
func liesInPods(r state.NodeReason) bool {
	return r == state.NodeSpread || r == state.NodePodAffinity || r == state.NodePodAntiAffinity || r == state.NodeExistingAntiAffinity
}

// refusals groups the nodes that can't take one more pod, as things are after
// the batch.
func (b *batch) refusals() []state.ReasonGroup {
	var by [256][]uint32
	alone := !b.tangled()
	for i := range b.nodes {
		reason := b.nodes[i].reason
		if reason == state.NodeFits && alone {
			continue
		}
		if reason == state.NodeFits || liesInPods(reason) {
			// A node may have several of these, and lie in a heap when the
			// last pod was placed. Which is named mustn't depend on that.
			if now := b.others(int32(i)); now != state.NodeFits {
				reason = now
			}
		}
		if reason != state.NodeFits {
			by[reason] = append(by[reason], b.nodes[i].node.Index)
		}
	}
	var out []state.ReasonGroup
	for reason, nodes := range by {
		if len(nodes) > 0 {
			out = append(out, newGroup(state.NodeReason(reason), nodes))
		}
	}
	return out
}
