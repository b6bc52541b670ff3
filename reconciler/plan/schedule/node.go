package schedule

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A requirement is one expression about a node's labels or name.
type requirement struct {
	key    string
	field  bool // metadata.name instead of a label
	op     corev1.NodeSelectorOperator
	values []string
	bound  int64 // of Gt and Lt
	broken bool  // it can match nothing
}

// selectorRequirements are a nodeSelector's pairs; all must hold, so their
// order is of no effect.
func selectorRequirements(pairs map[string]string) []requirement {
	var out []requirement
	for k, v := range pairs {
		out = append(out, requirement{key: k, op: corev1.NodeSelectorOpIn, values: []string{v}})
	}
	slices.SortFunc(out, func(a, b requirement) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return out
}

func newRequirement(r *corev1.NodeSelectorRequirement, field bool) requirement {
	out := requirement{key: r.Key, field: field, op: r.Operator, values: r.Values}
	switch r.Operator {
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			out.broken = true
			break
		}
		n, err := strconv.ParseInt(r.Values[0], 10, 64)
		out.bound, out.broken = n, err != nil
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
	default:
		out.broken = true
	}
	if field && r.Key != "metadata.name" {
		out.broken = true
	}
	return out
}

func (r *requirement) matches(n *state.Node) bool {
	if r.broken {
		return false
	}
	value, ok := string(n.Name), true
	if !r.field {
		value, ok = n.Label(r.key)
	}
	switch r.op {
	case corev1.NodeSelectorOpIn:
		return ok && slices.Contains(r.values, value)
	case corev1.NodeSelectorOpNotIn:
		return !ok || !slices.Contains(r.values, value)
	case corev1.NodeSelectorOpExists:
		return ok
	case corev1.NodeSelectorOpDoesNotExist:
		return !ok
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		v, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil {
			return false
		}
		if r.op == corev1.NodeSelectorOpGt {
			return v > r.bound
		}
		return v < r.bound
	}
	return false
}

// A nodeTerm holds if each of its expressions does; an empty one matches no
// node (Kubernetes's rule).
type nodeTerm []requirement

func newNodeTerm(t *corev1.NodeSelectorTerm) nodeTerm {
	var out nodeTerm
	for i := range t.MatchExpressions {
		out = append(out, newRequirement(&t.MatchExpressions[i], false))
	}
	for i := range t.MatchFields {
		out = append(out, newRequirement(&t.MatchFields[i], true))
	}
	return out
}

func (t nodeTerm) matches(n *state.Node) bool {
	for i := range t {
		if !t[i].matches(n) {
			return false
		}
	}
	return len(t) > 0
}

// A nodeAffinity holds if one of its terms does.
type nodeAffinity struct{ terms []nodeTerm }

func newNodeAffinity(s *corev1.NodeSelector) *nodeAffinity {
	if s == nil {
		return nil
	}
	a := &nodeAffinity{}
	for i := range s.NodeSelectorTerms {
		a.terms = append(a.terms, newNodeTerm(&s.NodeSelectorTerms[i]))
	}
	return a
}

func (a *nodeAffinity) matches(n *state.Node) bool {
	for _, t := range a.terms {
		if t.matches(n) {
			return true
		}
	}
	return false
}

// A preferredTerm adds its weight to a node that it matches. Terms without
// expressions and weights of 0 are left out: they'd be the same for all nodes.
type preferredTerm struct {
	weight int64
	term   nodeTerm
}

func newPreferred(terms []corev1.PreferredSchedulingTerm) []preferredTerm {
	var out []preferredTerm
	for i := range terms {
		t := &terms[i]
		if term := newNodeTerm(&t.Preference); t.Weight > 0 && len(term) > 0 {
			out = append(out, preferredTerm{weight: int64(t.Weight), term: term})
		}
	}
	return out
}

// untolerated is the first taint that keeps the pod off the node; true: none.
func (c *class) untolerated(n *state.Node) (state.Taint, bool) {
	for i := range n.Facts.Taints {
		t := &n.Facts.Taints[i]
		switch corev1.TaintEffect(t.Effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute:
			if !tolerates(c.spec.Tolerations, t) {
				return *t, false
			}
		case corev1.TaintEffectPreferNoSchedule:
		}
	}
	return state.Taint{}, true
}

// EndsAt is the steady time at which the node's NoExecute taints end a pod that
// is there: the earliest of them. False: none does.
func EndsAt(p *state.Pod, n *state.Node) (time.Duration, bool) {
	var at time.Duration
	ends := false
	since := max(p.Placed.Mono, n.Duty.Tainted.Mono)
	for i := range n.Facts.Taints {
		t := &n.Facts.Taints[i]
		if corev1.TaintEffect(t.Effect) != corev1.TaintEffectNoExecute {
			continue
		}
		until, forEver := since, false
		for j := range p.Template.Spec.Spec.Tolerations {
			one := &p.Template.Spec.Spec.Tolerations[j]
			if !tolerates([]corev1.Toleration{*one}, t) {
				continue
			}
			if one.TolerationSeconds == nil {
				forEver = true
				break
			}
			// Of several the shortest holds (Kubernetes: getMinTolerationTime).
			lasts := since + time.Duration(max(0, *one.TolerationSeconds))*time.Second
			if until == since || lasts < until {
				until = lasts
			}
		}
		if !forEver && (!ends || until < at) {
			at, ends = until, true
		}
	}
	return at, ends
}

// tolerates says whether one of the tolerations covers the taint: same effect or
// none, same key or (with Exists) none, and Exists or the same value.
func tolerates(ts []corev1.Toleration, taint *state.Taint) bool {
	for i := range ts {
		t := &ts[i]
		if t.Effect != "" && string(t.Effect) != taint.Effect {
			continue
		}
		if t.Key != taint.Key && (t.Key != "" || t.Operator != corev1.TolerationOpExists) {
			continue
		}
		switch t.Operator {
		case "", corev1.TolerationOpEqual:
			if t.Value == taint.Value {
				return true
			}
		case corev1.TolerationOpExists:
			return true
		case corev1.TolerationOpLt, corev1.TolerationOpGt:
			if comparesTaint(t, taint) {
				return true
			}
		}
	}
	return false
}

// comparesTaint is the numeric toleration: Gt tolerates a taint whose value is
// more than the toleration's, Lt less.
func comparesTaint(t *corev1.Toleration, taint *state.Taint) bool {
	bound, err := strconv.ParseInt(t.Value, 10, 64)
	value, err2 := strconv.ParseInt(taint.Value, 10, 64)
	if err != nil || err2 != nil {
		return false
	}
	if t.Operator == corev1.TolerationOpGt {
		return value > bound
	}
	return value < bound
}

// A hostPort is a port of the machine that a pod takes.
type hostPort struct {
	ip, protocol string
	port         int32
}

// hostPorts are those of a pod's containers and sidecars. With hostNetwork every
// container port is one (Kubernetes's defaulting).
func hostPorts(spec *corev1.PodSpec) []hostPort {
	var out []hostPort
	add := func(c *corev1.Container) {
		for i := range c.Ports {
			p := &c.Ports[i]
			port := p.HostPort
			if port == 0 && spec.HostNetwork {
				port = p.ContainerPort
			}
			if port <= 0 {
				continue
			}
			h := hostPort{ip: p.HostIP, protocol: string(p.Protocol), port: port}
			if h.ip == "" || h.ip == "::" {
				h.ip = "0.0.0.0"
			}
			if h.protocol == "" {
				h.protocol = string(corev1.ProtocolTCP)
			}
			out = append(out, h)
		}
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; state.Sidecar(c) {
			add(c)
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	return out
}

// conflicts: same port and protocol, and the same address or one that is all.
func (h hostPort) conflicts(o hostPort) bool {
	return h.port == o.port && h.protocol == o.protocol && (h.ip == o.ip || h.ip == "0.0.0.0" || o.ip == "0.0.0.0")
}

// portHolder is a pod on the node that has one of the class's ports; of several
// the first by name. A pod that is told to stop has it until it is gone.
func (c *class) portHolder(n *state.Node) (*state.Pod, hostPort) {
	var holder *state.Pod
	var held hostPort
	if len(c.ports) == 0 {
		return nil, held
	}
	for _, p := range n.Pods {
		if p.Ended() {
			continue
		}
		for _, theirs := range hostPorts(&p.Template.Spec.Spec) {
			for _, ours := range c.ports {
				if ours.conflicts(theirs) && (holder == nil || p.Key.Compare(holder.Key) < 0) {
					holder, held = p, ours
				}
			}
		}
	}
	return holder, held
}

// sharesPort says whether pods of two templates want a port of the same machine.
func (c *class) sharesPort(t *state.Template) bool {
	for _, theirs := range hostPorts(&t.Spec.Spec) {
		for _, ours := range c.ports {
			if ours.conflicts(theirs) {
				return true
			}
		}
	}
	return false
}

func (c *class) portTaken(n *state.Node) bool {
	p, _ := c.portHolder(n)
	return p != nil
}
