package schedule

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// A class is a template made ready to be compared with nodes: what is the same
// for each of its pods is worked out once.
type class struct {
	template    *state.Template
	spec        *corev1.PodSpec
	os          state.OS // that the text names, by whatever field
	selector    []requirement
	affinity    *nodeAffinity // required; nil: none
	preferred   []preferredTerm
	ports       []hostPort
	images      []state.Image
	unknown     bool // an image was never looked up
	hostProcess bool
	onLinux     string    // a field of the pod that Linux can't honour
	onWindows   string    // or Windows
	machines    []machine // answers for machines met so far
}

// A machine is what of a node decides whether an image runs there. Clusters
// have few different ones.
type machine struct {
	os, arch, version string
	process, hyperv   bool
	simulated         bool

	reason state.NodeReason
	iso    state.Isolation
}

func newClass(t *state.Template) *class {
	c := &class{template: t, spec: &t.Spec.Spec, os: t.OS}
	c.selector = selectorRequirements(c.spec.NodeSelector)
	if c.os == state.AnyOS && c.spec.OS != nil {
		c.os = state.OS(c.spec.OS.Name)
	}
	if a := c.spec.Affinity; a != nil && a.NodeAffinity != nil {
		c.affinity = newNodeAffinity(a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.preferred = newPreferred(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	c.ports = hostPorts(c.spec)
	for _, name := range state.ImageNames(c.spec) {
		img, ok := t.Image(name)
		c.unknown = c.unknown || !ok
		c.images = append(c.images, img)
	}
	c.hostProcess = platform.HostProcess(c.spec)
	c.onLinux, c.onWindows = platform.Dishonoured(c.spec, state.Linux), platform.Dishonoured(c.spec, state.Windows)
	return c
}

// assumedOS is where an image that couldn't be looked up is taken to run: on
// the OS that the text names and, as with Kubernetes, on Linux where it names
// none.
func (c *class) assumedOS() state.OS {
	if c.os != state.AnyOS {
		return c.os
	}
	if os := platform.Selected(c.spec.NodeSelector); os != state.AnyOS {
		return os
	}
	return state.Linux
}

// machineOf is a node's machine, before anything is asked of it.
func machineOf(f *state.NodeFacts) machine {
	m := machine{os: string(f.OS), arch: f.Arch, version: f.OSVersion, simulated: f.Simulated}
	if f.OS == state.Windows {
		for _, iso := range platform.Isolations(f) {
			m.process = m.process || iso == state.Process
			m.hyperv = m.hyperv || iso == state.HyperV
		}
	}
	return m
}

// runs says whether the machine can execute the pod's images, and how it keeps
// them apart.
func (c *class) runs(n *state.Node) (state.NodeReason, state.Isolation) {
	f := &n.Facts
	key := machineOf(f)
	for i := range c.machines {
		m := &c.machines[i]
		if m.os == key.os && m.arch == key.arch && m.version == key.version &&
			m.process == key.process && m.hyperv == key.hyperv && m.simulated == key.simulated {
			return m.reason, m.iso
		}
	}
	key.reason, key.iso = c.execute(f)
	c.machines = append(c.machines, key)
	return key.reason, key.iso
}

func (c *class) execute(f *state.NodeFacts) (state.NodeReason, state.Isolation) {
	if c.os != state.AnyOS && c.os != f.OS {
		return state.NodeOtherOS, state.NoIsolation
	}
	if c.unknown {
		return state.NodeImageUnknown, state.NoIsolation
	}
	reason := state.NodeNoIsolation
	for _, iso := range c.isolations(f) {
		if reason = c.match(f, iso); reason == state.NodeFits {
			return state.NodeFits, iso
		}
	}
	return reason, state.NoIsolation
}

// isolations are the ways in which a node keeps this pod apart. The host's own
// processes can't be in a guest, and a guest holds one container.
func (c *class) isolations(f *state.NodeFacts) []state.Isolation {
	return slices.DeleteFunc(platform.Isolations(f), func(iso state.Isolation) bool {
		return iso == state.HyperV && (c.hostProcess || c.together() > 1)
	})
}

// together is how many containers run at one time: a sidecar runs beside the
// others, an init container before them.
func (c *class) together() int {
	n := len(c.spec.Containers)
	for i := range c.spec.InitContainers {
		if state.Sidecar(&c.spec.InitContainers[i]) {
			n++
		}
	}
	return n
}

// match says whether every image has a manifest for the machine under one
// isolation: all containers of a pod share it.
func (c *class) match(f *state.NodeFacts, iso state.Isolation) state.NodeReason {
	for i := range c.images {
		img := &c.images[i]
		if img.Assumed {
			if !f.Simulated || f.OS != c.assumedOS() {
				return state.NodeImageUnknown
			}
			continue
		}
		if _, reason := platform.Match(img, f, iso, c.hostProcess); reason != state.NodeFits {
			return reason
		}
	}
	return state.NodeFits
}

// allows says whether the pod's own rules let it onto the node, whatever runs
// there now: spec.nodeName, what the machine executes, nodeSelector, required
// node affinity, taints. Reasons that stay come before those that pass.
func (c *class) allows(n *state.Node) (state.NodeReason, state.Isolation) {
	reason, iso := c.runs(n)
	return c.permits(n, reason, iso)
}

// picky says whether the pod itself says which nodes it may go to. Where it doesn't,
// permits gives what it is given, of a node without taints.
func (c *class) picky() bool {
	return c.spec.NodeName != "" || c.onLinux != "" || c.onWindows != "" || len(c.selector) > 0 || c.affinity != nil
}

// permits is allows where what the machine executes is known. What it asks of the
// pod, picky asks too.
func (c *class) permits(n *state.Node, reason state.NodeReason, iso state.Isolation) (state.NodeReason, state.Isolation) {
	if c.spec.NodeName != "" && c.spec.NodeName != string(n.Name) {
		return state.NodeOtherName, state.NoIsolation
	}
	if reason != state.NodeFits {
		return reason, iso
	}
	if c.dishonoured(n.Facts.OS) != "" {
		return state.NodeUnsupportedField, iso
	}
	if reason := c.selects(n); reason != state.NodeFits {
		return reason, iso
	}
	if _, ok := c.untolerated(n); !ok {
		return state.NodeTainted, iso
	}
	return state.NodeFits, iso
}

// dishonoured is a field that an OS can't honour.
func (c *class) dishonoured(os state.OS) string {
	if os == state.Windows {
		return c.onWindows
	}
	return c.onLinux
}

// selects checks nodeSelector and required node affinity.
func (c *class) selects(n *state.Node) state.NodeReason {
	for i := range c.selector {
		if !c.selector[i].matches(n) {
			return state.NodeSelectorMismatch
		}
	}
	if c.affinity != nil && !c.affinity.matches(n) {
		return state.NodeAffinityMismatch
	}
	return state.NodeFits
}

// awake says whether the node takes new pods at all. As in Kubernetes a pod may
// tolerate a cordon by its taint's name.
func (c *class) awake(n *state.Node) state.NodeReason {
	if !n.Ready {
		return state.NodeNotReady
	}
	if n.Cordoned {
		cordon := state.Taint{Key: corev1.TaintNodeUnschedulable, Effect: string(corev1.TaintEffectNoSchedule)}
		if !tolerates(c.spec.Tolerations, &cordon) {
			return state.NodeIsCordoned
		}
	}
	return state.NodeFits
}

// short is the first resource of which ask is more than free. What isn't asked
// for is never short (Kubernetes: NodeResourcesFit).
func short(free, ask state.Resources) state.NodeReason {
	switch {
	case ask.Pods > free.Pods:
		return state.NodeShortPods
	case ask.MilliCPU > 0 && ask.MilliCPU > free.MilliCPU:
		return state.NodeShortCPU
	case ask.Memory > 0 && ask.Memory > free.Memory:
		return state.NodeShortMemory
	case ask.Ephemeral > 0 && ask.Ephemeral > free.Ephemeral:
		return state.NodeShortStorage
	}
	return state.NodeFits
}

// Machines says whether machines execute templates at all. It is asked about many
// pods, of which one and the next often have the same. Its zero value is ready.
type Machines struct {
	template *state.Template
	class    *class
}

// Runs says whether a node's machine can execute a template at all, and under
// which isolation: OS, architecture, image, build. It is what makes a placed pod
// misplaced when it changes; labels, taints and room that change later do not
// (Kubernetes: IgnoredDuringExecution).
func (m *Machines) Runs(t *state.Template, n *state.Node) (state.NodeReason, state.Isolation) {
	if m.template != t {
		m.template, m.class = t, newClass(t)
	}
	return m.class.runs(n)
}

// Fits says whether a node would take one more pod of a template now, and if
// not, the first reason. It knows the node alone: what depends on pods
// elsewhere (topology spread, pod affinity) is Place's, which with Count 0
// answers for every node.
func Fits(_ *state.State, t *state.Template, n *state.Node) (state.NodeReason, state.Isolation) {
	c := newClass(t)
	reason, iso := c.allows(n)
	if reason == state.NodeFits {
		reason = c.awake(n)
	}
	if reason == state.NodeFits {
		reason = short(n.Facts.Allocatable.Sub(n.Used), state.Charge(t.Requests, iso))
	}
	if reason == state.NodeFits && c.portTaken(n) {
		reason = state.NodePortTaken
	}
	return reason, iso
}
