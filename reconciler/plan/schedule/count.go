package schedule

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (b *batch) topology(key string) *topology { return b.roster.topology(key) }

// self is a pod of the batch as selectors see it.
func (b *batch) self() podLabels {
	return podLabels{workload: b.req.Workload.Ref, template: b.req.Template}
}

func (b *batch) matchesSelf(m *matcher) bool {
	return m.namespaces.contains(b.state, b.req.Workload.Ref.Namespace) && m.selector.Matches(b.self())
}

// constrain compiles what the template says of other pods.
func (b *batch) constrain() {
	spec := b.class.spec
	namespace := b.req.Workload.Ref.Namespace
	for i := range spec.TopologySpreadConstraints {
		b.spreads = append(b.spreads, b.newSpread(&spec.TopologySpreadConstraints[i]))
	}
	if len(b.spreads) == 0 {
		b.spreads = b.ownSpreads()
	}
	a := spec.Affinity
	if a == nil {
		return
	}
	self := b.self()
	if a.PodAffinity != nil {
		for i := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			t := &a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i]
			b.wants = append(b.wants, &term{tally: newTally(b.topology(t.TopologyKey)), match: termMatcher(t, namespace, self)})
		}
		b.wish(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if a.PodAntiAffinity != nil {
		for i := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			t := &a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i]
			m := termMatcher(t, namespace, self)
			v := &term{tally: newTally(b.topology(t.TopologyKey)), match: m}
			v.self = ones(b.matchesSelf(m))
			b.avoids = append(b.avoids, v)
		}
		b.wish(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	b.wantsSelf = true
	for _, t := range b.wants {
		b.wantsSelf = b.wantsSelf && b.matchesSelf(t.match)
	}
	for _, t := range b.wants {
		t.self = ones(b.wantsSelf)
		if b.matchesSelf(t.match) {
			b.wishes(t.topo).self++ // hardPodAffinityWeight is 1
		}
	}
}

func ones(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// wish compiles preferred terms. A pod of the batch counts twice for the next
// one where it matches: as what that one looks for, and as one that looks itself.
func (b *batch) wish(terms []corev1.WeightedPodAffinityTerm, sign int64) {
	for i := range terms {
		t := &terms[i]
		w := &wish{
			match:  termMatcher(&t.PodAffinityTerm, b.req.Workload.Ref.Namespace, b.self()),
			weight: sign * int64(t.Weight), sum: b.wishes(b.topology(t.PodAffinityTerm.TopologyKey)),
		}
		if b.matchesSelf(w.match) {
			w.sum.self += 2 * w.weight
		}
		b.terms = append(b.terms, w)
	}
}

// wishes is the sum of all preferences, either way, over one topology.
func (b *batch) wishes(t *topology) *tally {
	for _, s := range b.sums {
		if s.topo == t {
			return s
		}
	}
	s := newTally(t)
	b.sums = append(b.sums, &s)
	return &s
}

func (b *batch) newSpread(c *corev1.TopologySpreadConstraint) *spread {
	ns := namespaces{names: []string{b.req.Workload.Ref.Namespace}}
	p := &spread{
		tally: newTally(b.topology(c.TopologyKey)),
		match: newMatcher(ns, c.LabelSelector, c.MatchLabelKeys, nil, b.self()),
		hard:  c.WhenUnsatisfiable == corev1.DoNotSchedule, skew: max(1, int64(c.MaxSkew)), minDomains: 1,
	}
	if c.MinDomains != nil {
		p.minDomains = int64(*c.MinDomains)
	}
	p.self = ones(b.matchesSelf(p.match))
	affinity := c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	taints := c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	keys := b.spreadKeys(p.hard)
	p.eligible = make([]bool, len(b.nodes))
	for i := range b.nodes {
		n := b.nodes[i].node
		ok := b.hasKeys(keys, i)
		if ok && affinity {
			ok = b.kinds[b.nodes[i].kind].reason == state.NodeFits && b.class.selects(n) == state.NodeFits
		}
		if ok && taints {
			_, ok = b.class.untolerated(n)
			ok = ok && b.class.awake(n) == state.NodeFits
		}
		p.eligible[i] = ok
	}
	return p
}

// spreadKeys are the topologies of all hard or all soft constraints: a node that
// lacks one of them counts for none.
func (b *batch) spreadKeys(hard bool) []*topology {
	var out []*topology
	for i := range b.class.spec.TopologySpreadConstraints {
		c := &b.class.spec.TopologySpreadConstraints[i]
		if (c.WhenUnsatisfiable == corev1.DoNotSchedule) == hard {
			out = append(out, b.topology(c.TopologyKey))
		}
	}
	return out
}

func (b *batch) hasKeys(keys []*topology, node int) bool {
	for _, t := range keys {
		if t.of[node] == noDomain {
			return false
		}
	}
	return true
}

// ownSpreads is what a template without constraints gets: its workload's pods
// spread over nodes and zones, softly (Kubernetes: PodTopologySpread's system
// defaults). Nodes without a zone are a zone.
func (b *batch) ownSpreads() []*spread {
	eligible := make([]bool, len(b.nodes))
	for i := range b.nodes {
		eligible[i] = b.nodes[i].allowed
	}
	out := []*spread{{tally: newTally(b.topology(corev1.LabelHostname))}}
	if zones := b.topology(corev1.LabelTopologyZone).among(b.nodes); zones.size > 1 {
		out = append(out, &spread{tally: newTally(zones)})
	}
	for _, p := range out {
		p.self, p.skew, p.minDomains, p.eligible = 1, 1, 1, eligible
	}
	return out
}

// count counts the pods that are there.
func (b *batch) count() {
	b.countWorkloads()
	for i, p := range b.after {
		b.countPods(p.Workload, b.after[i:i+1], true)
	}
	for _, p := range b.spreads {
		p.settle()
	}
}

// countWorkloads counts the pods of every workload that may be of concern: where
// the template says nothing of others, that is its own, and those whose pods say
// something of others.
func (b *batch) countWorkloads() {
	own := b.req.Workload.Ref
	var counts func(state.Ref) bool
	switch {
	case len(b.matchers()) > 0:
		for _, w := range b.state.Workloads {
			b.countPods(w.Ref, w.Pods, w.Affine > 0)
		}
		return
	case slices.ContainsFunc(b.spreads, func(p *spread) bool { return p.match != nil }): // of its namespace
		counts = func(ref state.Ref) bool { return ref.Namespace == own.Namespace }
		for _, w := range b.state.WorkloadsIn(own.Namespace) {
			b.countPods(w.Ref, w.Pods, w.Affine > 0)
		}
	default:
		counts = func(ref state.Ref) bool { return ref == own }
		if w := b.state.Workloads[own]; w != nil {
			b.countPods(own, w.Pods, w.Affine > 0)
		}
	}
	for ref, w := range b.state.Affine {
		if !counts(ref) {
			b.countPods(ref, w.Pods, true)
		}
	}
}

// countPods counts pods of one workload. Most workloads are of no concern to a
// template, and then their pods aren't looked at.
func (b *batch) countPods(w state.Ref, pods []*state.Pod, affine bool) {
	own := w == b.req.Workload.Ref
	spreads, terms := b.meant(w.Namespace)
	if !own && !spreads && !terms && !affine {
		return
	}
	var last *state.Template
	var reach []reaches
	for _, p := range pods {
		if p.Ended() {
			continue // what ran to its end is nobody's neighbour
		}
		t := p.Template
		if t != last {
			last, reach = t, b.reach(w, t)
		}
		if !own && !spreads && !terms && len(reach) == 0 {
			continue
		}
		i, ok := b.index(p.Node)
		if !ok {
			continue
		}
		l := podLabels{workload: w, template: t, pod: p}
		if own || spreads {
			b.countSpread(l, i, 1)
		}
		if terms {
			b.countTerms(l, i, 1)
		}
		for _, r := range reach {
			r.count(i, 1)
		}
	}
}

// shift counts one pod of the state again (1) or no more (-1).
func (b *batch) shift(p *state.Pod, node int32, by int64) {
	l := podLabels{workload: p.Workload, template: p.Template, pod: p}
	b.countSpread(l, node, by)
	b.countTerms(l, node, by)
	if p.Template.Spec.Spec.Affinity == nil {
		return
	}
	k := reachKey{p.Workload, p.Template}
	reach, ok := b.reached[k]
	if !ok {
		if b.reached == nil {
			b.reached = map[reachKey][]reaches{}
		}
		reach = b.reach(p.Workload, p.Template)
		b.reached[k] = reach
	}
	for _, r := range reach {
		r.count(node, by)
	}
}

// meant says whether any constraint, any term may be about a namespace.
func (b *batch) meant(namespace string) (spreads, terms bool) {
	for _, p := range b.spreads {
		spreads = spreads || p.match != nil && p.match.namespaces.contains(b.state, namespace)
	}
	for _, m := range b.matchers() {
		terms = terms || m.namespaces.contains(b.state, namespace)
	}
	return spreads, terms
}

func (b *batch) matchers() []*matcher {
	var out []*matcher
	for _, t := range b.wants {
		out = append(out, t.match)
	}
	for _, t := range b.avoids {
		out = append(out, t.match)
	}
	for _, w := range b.terms {
		out = append(out, w.match)
	}
	return out
}

// countSpread counts a pod that runs: for a Deployment's own spread only those
// of the same template count, so that a rollout ends spread (Kubernetes: the
// selector of the ReplicaSet); of a StatefulSet all. Pods that stop don't count.
func (b *batch) countSpread(l podLabels, node int32, by int64) {
	if l.pod.Stopping {
		return
	}
	own := l.workload == b.req.Workload.Ref
	for _, p := range b.spreads {
		switch {
		case p.match != nil:
			if l.pod.Key.Namespace == b.req.Workload.Ref.Namespace && p.match.matches(l) {
				p.shift(node, by)
			}
		case own && !l.pod.Lost && (l.workload.Kind != "Deployment" || l.template.Digest == b.req.Template.Digest):
			p.shift(node, by)
		}
	}
}

// countTerms counts a pod for the terms that are about it; for required affinity
// only if all terms are (Kubernetes's rule).
func (b *batch) countTerms(l podLabels, node int32, by int64) {
	about := func(m *matcher) bool {
		return m.namespaces.contains(b.state, l.workload.Namespace) && m.matches(l)
	}
	all := len(b.wants) > 0
	for _, t := range b.wants {
		all = all && about(t.match)
	}
	if all {
		b.wanted += by
		for _, t := range b.wants {
			t.add(node, by)
		}
	}
	for _, t := range b.avoids {
		if about(t.match) {
			t.add(node, by)
		}
	}
	for _, w := range b.terms {
		if about(w.match) {
			w.sum.add(node, by*w.weight)
		}
	}
}

type reachKey struct {
	workload state.Ref
	template *state.Template
}

// A reaches is one term of pods that run which is about the batch's pods.
type reaches struct {
	ban    *ban // required anti-affinity; else a preference
	sum    *tally
	weight int64
}

// count counts a pod that states the term at a node.
func (r *reaches) count(node int32, by int64) {
	if r.ban == nil {
		r.sum.add(node, by*r.weight)
		return
	}
	if d := r.ban.topo.of[node]; d != noDomain {
		r.ban.domains[d] += by
	}
}

// reach finds the terms of a template that runs which are about pods of this
// batch: affinity is symmetric (Kubernetes: InterPodAffinity).
func (b *batch) reach(w state.Ref, t *state.Template) []reaches {
	a := t.Spec.Spec.Affinity
	if a == nil {
		return nil
	}
	var out []reaches
	theirs := podLabels{workload: w, template: t}
	about := func(t *corev1.PodAffinityTerm) bool {
		return b.matchesSelf(termMatcher(t, w.Namespace, theirs))
	}
	prefer := func(terms []corev1.WeightedPodAffinityTerm, sign int64) {
		for i := range terms {
			if t := &terms[i].PodAffinityTerm; about(t) {
				out = append(out, reaches{sum: b.wishes(b.topology(t.TopologyKey)), weight: sign * int64(terms[i].Weight)})
			}
		}
	}
	if p := a.PodAffinity; p != nil {
		for i := range p.RequiredDuringSchedulingIgnoredDuringExecution {
			if t := &p.RequiredDuringSchedulingIgnoredDuringExecution[i]; about(t) {
				out = append(out, reaches{sum: b.wishes(b.topology(t.TopologyKey)), weight: 1})
			}
		}
		prefer(p.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if p := a.PodAntiAffinity; p != nil {
		for i := range p.RequiredDuringSchedulingIgnoredDuringExecution {
			if t := &p.RequiredDuringSchedulingIgnoredDuringExecution[i]; about(t) {
				out = append(out, reaches{ban: b.ban(b.topology(t.TopologyKey))})
			}
		}
		prefer(p.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return out
}

func (b *batch) ban(t *topology) *ban {
	for _, x := range b.bans {
		if x.topo == t {
			return x
		}
	}
	x := &ban{topo: t, domains: map[int32]int64{}}
	b.bans = append(b.bans, x)
	return x
}
