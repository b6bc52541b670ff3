package schedule

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Budget is a PodDisruptionBudget as it stands: how many more of its pods may
// be disturbed.
type Budget struct {
	Namespace string
	Selector  labels.Selector
	Left      int
}

// A Preemption is room for one pod: where, and who must go first. Without
// victims the pods that stop there already leave enough: it is waited for.
type Preemption struct {
	Spot       Spot
	Victims    []*state.Pod // the most important first
	Violations int          // victims that a budget would have kept
}

// Preempt says which pods of lower priority would make room for pods for which
// Place found none; what Place did find goes into req.After, with the room that
// was made for others, and who goes for them into req.Gone. There are up to
// req.Count answers, one a pod, in order; each counts on those before it.
//
// The rules are Kubernetes's DefaultPreemption. On each node all pods of lower
// priority are thought away and taken back, those first that a budget protects
// and the most important first, as long as the new pod still fits. The node is
// taken that breaks fewest budgets, then whose highest victim is lowest, then
// with the lowest sum of priorities, fewest victims, whose highest victims
// started last, and by name. Unlike there, all nodes are looked at.
func Preempt(s *state.State, req Request, budgets []Budget) []Preemption {
	return new(Roster).Preempt(s, req, budgets)
}

// Preempt is Preempt with what the roster has of the nodes.
func (r *Roster) Preempt(s *state.State, req Request, budgets []Budget) []Preemption {
	priority, may := Priority(s, req.Template)
	if !may || req.Count <= 0 {
		return nil
	}
	b := newBatch(r, s, &req)
	b.constrain()
	b.count()
	p := &preemption{batch: b, priority: priority, budgets: slices.Clone(budgets), gone: map[*state.Pod]bool{}, known: map[*state.Template]int32{}}
	p.stopping()
	var out []Preemption
	for len(out) < req.Count {
		before := len(out)
		out = p.round(out)
		if len(out) == before || !p.tangled() {
			break
		}
	}
	return out
}

// A preemption is the state of one call.
type preemption struct {
	*batch
	priority int32
	budgets  []Budget
	gone     map[*state.Pod]bool // stops already, or is a victim
	known    map[*state.Template]int32
	options  options
	changed  int // counts what may change another node's answer
}

// An option is what one node would cost.
type option struct {
	node       int32
	name       state.NodeName
	victims    []*state.Pod
	violations int
	highest    int64 // priority; lowest possible without victims
	sum        int64
	started    state.Seq // the earliest placement among the highest victims
	asOf       int
}

func (o *option) compare(x *option) int {
	return cmp.Or(
		cmp.Compare(o.violations, x.violations), cmp.Compare(o.highest, x.highest), cmp.Compare(o.sum, x.sum),
		cmp.Compare(len(o.victims), len(x.victims)), cmp.Compare(x.started, o.started), strings.Compare(string(o.name), string(x.name)),
	)
}

// options is a heap, the best first.
type options []*option

// Len implements heap.Interface.
func (o options) Len() int { return len(o) }

// Less implements heap.Interface.
func (o options) Less(i, j int) bool { return o[i].compare(o[j]) < 0 }

// Swap implements heap.Interface.
func (o options) Swap(i, j int) { o[i], o[j] = o[j], o[i] }

// Push implements heap.Interface.
func (o *options) Push(x any) { *o = append(*o, x.(*option)) }

// Pop implements heap.Interface.
func (o *options) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

// stopping thinks away the pods that are told to stop.
func (p *preemption) stopping() {
	for i := range p.nodes {
		if !p.nodes[i].allowed {
			continue
		}
		for _, pod := range p.nodes[i].node.Pods {
			if (pod.Stopping || slices.Contains(p.req.Gone, pod)) && !pod.Ended() {
				p.remove(pod, int32(i))
			}
		}
	}
}

// tangled says whether what happens on one node can make another fit.
func (b *batch) tangled() bool {
	return len(b.wants) > 0 || len(b.avoids) > 0 || len(b.bans) > 0 || slices.ContainsFunc(b.spreads, func(s *spread) bool { return s.hard })
}

// round looks at each node once and takes the best until none is left.
func (p *preemption) round(out []Preemption) []Preemption {
	p.options = p.options[:0]
	for i := range p.nodes {
		c := &p.nodes[i]
		if !c.allowed || p.fixedReason(int32(i), p.ask(int32(i))) != state.NodeFits {
			continue
		}
		if o := p.try(int32(i)); o != nil {
			p.options = append(p.options, o)
		}
	}
	heap.Init(&p.options)
	for len(out) < p.req.Count && len(p.options) > 0 {
		o := heap.Pop(&p.options).(*option)
		if o.asOf != p.changed {
			if again := p.try(o.node); again != nil {
				heap.Push(&p.options, again)
			}
			continue
		}
		out = append(out, p.take(o))
		if again := p.try(o.node); again != nil {
			heap.Push(&p.options, again)
		}
	}
	return out
}

// take decides for an option.
func (p *preemption) take(o *option) Preemption {
	c := &p.nodes[o.node]
	for _, v := range o.victims {
		p.remove(v, o.node)
		for i := range p.budgets {
			if p.covers(&p.budgets[i], v) {
				p.budgets[i].Left--
				p.changed++
			}
		}
	}
	c.used = c.used.Add(p.ask(o.node))
	p.tallySelf(o.node)
	if len(p.class.ports) > 0 {
		c.reason = state.NodePortTaken // by the pod that was just given this place
	}
	if p.tangled() {
		p.changed++
	}
	return Preemption{Spot: Spot{Node: c.node, Isolation: c.iso}, Victims: o.victims, Violations: o.violations}
}

func (p *preemption) remove(v *state.Pod, node int32) {
	p.gone[v] = true
	c := &p.nodes[node]
	c.used = c.used.Sub(state.Charge(v.Template.Requests, v.Isolation))
	p.shift(v, node, -1)
}

func (p *preemption) restore(v *state.Pod, node int32) {
	delete(p.gone, v)
	c := &p.nodes[node]
	c.used = c.used.Add(state.Charge(v.Template.Requests, v.Isolation))
	p.shift(v, node, 1)
}

// fits says whether the node takes the pod, with those thought away that are gone.
func (p *preemption) fits(i int32) bool {
	c := &p.nodes[i]
	if c.reason == state.NodePortTaken || p.room(c, p.ask(i)) != state.NodeFits || p.others(i) != state.NodeFits {
		return false
	}
	if len(p.class.ports) == 0 {
		return true
	}
	for _, pod := range p.after {
		if pod.Node == c.node.Name && p.class.sharesPort(pod.Template) {
			return false
		}
	}
	for _, pod := range c.node.Pods {
		if !p.gone[pod] && !pod.Ended() && p.class.sharesPort(pod.Template) {
			return false
		}
	}
	return true
}

// try finds the fewest and least important pods of a node that must go; nil
// where even all of lower priority are too few.
func (p *preemption) try(i int32) *option {
	c := &p.nodes[i]
	if p.room(c, p.ask(i)) == state.NodeFits && p.fits(i) {
		return p.option(i, nil, nil)
	}
	var lower []*state.Pod
	for _, pod := range c.node.Pods {
		if !p.gone[pod] && !pod.Ended() && p.of(pod) < p.priority {
			lower = append(lower, pod)
		}
	}
	if len(lower) == 0 || !p.roomWithout(i, lower) {
		return nil
	}
	slices.SortFunc(lower, func(a, b *state.Pod) int {
		return cmp.Or(cmp.Compare(p.of(b), p.of(a)), cmp.Compare(a.PlacedSeq, b.PlacedSeq), a.UID.Compare(b.UID))
	})
	for _, pod := range lower {
		p.remove(pod, i)
	}
	var victims []*state.Pod
	fits := p.fits(i)
	protected := p.protected(lower)
	if fits {
		for _, first := range []bool{true, false} {
			for _, pod := range lower {
				if protected[pod] != first {
					continue
				}
				if p.restore(pod, i); !p.fits(i) {
					p.remove(pod, i)
					victims = append(victims, pod)
				}
			}
		}
	}
	for _, pod := range lower {
		if p.gone[pod] {
			p.restore(pod, i)
		}
	}
	if !fits {
		return nil
	}
	return p.option(i, victims, protected)
}

// roomWithout is a cheap look ahead: whether the pods' room is enough at all.
func (p *preemption) roomWithout(i int32, pods []*state.Pod) bool {
	c := p.nodes[i]
	for _, pod := range pods {
		c.used = c.used.Sub(state.Charge(pod.Template.Requests, pod.Isolation))
	}
	return p.room(&c, p.ask(i)) == state.NodeFits
}

// option weighs what a node would cost.
func (p *preemption) option(i int32, victims []*state.Pod, protected map[*state.Pod]bool) *option {
	o := &option{node: i, name: p.nodes[i].node.Name, victims: victims, highest: math.MinInt64, asOf: p.changed}
	slices.SortFunc(o.victims, func(a, b *state.Pod) int {
		return cmp.Or(cmp.Compare(p.of(b), p.of(a)), cmp.Compare(a.PlacedSeq, b.PlacedSeq), a.UID.Compare(b.UID))
	})
	for _, v := range o.victims {
		o.violations += int(ones(protected[v]))
		priority := int64(p.of(v))
		o.sum += priority - math.MinInt32 + 1 // never less for more victims
		if priority > o.highest {
			o.highest, o.started = priority, v.PlacedSeq
		}
	}
	return o
}

// of is a pod's priority.
func (p *preemption) of(pod *state.Pod) int32 {
	v, ok := p.known[pod.Template]
	if !ok {
		v, _ = Priority(p.state, pod.Template)
		p.known[pod.Template] = v
	}
	return v
}

func (p *preemption) covers(b *Budget, pod *state.Pod) bool {
	return b.Namespace == pod.Key.Namespace && b.Selector.Matches(podLabels{workload: pod.Workload, template: pod.Template, pod: pod})
}

// protected are the pods that would have to stay if all went in order and no
// budget were broken.
func (p *preemption) protected(pods []*state.Pod) map[*state.Pod]bool {
	if len(p.budgets) == 0 {
		return nil
	}
	out := map[*state.Pod]bool{}
	left := make([]int, len(p.budgets))
	for i := range p.budgets {
		left[i] = p.budgets[i].Left
	}
	for _, pod := range pods {
		for i := range p.budgets {
			if p.covers(&p.budgets[i], pod) {
				left[i]--
				out[pod] = out[pod] || left[i] < 0
			}
		}
	}
	return out
}
