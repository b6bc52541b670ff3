package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// Remedy says what would make one more pod of a template fit, given why each
// node refused: alternatives, the simplest first. Each would do by itself.
func Remedy(s *state.State, t *state.Template, groups []state.ReasonGroup) []string {
	r := remedy{state: s, class: newClass(t), byIndex: make(map[uint32]*state.Node, len(s.Nodes))}
	for _, n := range s.Nodes {
		r.byIndex[n.Index] = n
	}
	for _, g := range groups {
		var nodes []*state.Node
		for _, i := range Members(g) {
			if n := r.byIndex[i]; n != nil {
				nodes = append(nodes, n)
			}
		}
		if len(nodes) == 0 {
			continue // they are gone
		}
		slices.SortFunc(nodes, func(a, b *state.Node) int { return strings.Compare(string(a.Name), string(b.Name)) })
		r.group(g.Reason, nodes)
	}
	if more := r.moreNodes(groups); more != "" {
		r.out = append(r.out, more)
	}
	return r.out
}

type remedy struct {
	state   *state.State
	class   *class
	byIndex map[uint32]*state.Node
	out     []string
}

func (r *remedy) add(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.out, text) {
		r.out = append(r.out, text)
	}
}

func (r *remedy) ask(n *state.Node) state.Resources {
	_, iso := r.class.runs(n)
	return state.Charge(r.class.template.Requests, iso)
}

// hasRoom says whether the node would take the pod but for a reason that a
// person can lift.
func (r *remedy) hasRoom(n *state.Node) bool {
	return short(n.Facts.Allocatable.Sub(n.Used), r.ask(n)) == state.NodeFits && !r.class.portTaken(n)
}

func (r *remedy) group(reason state.NodeReason, nodes []*state.Node) {
	switch reason {
	case state.NodeShortCPU, state.NodeShortMemory, state.NodeShortStorage, state.NodeShortPods:
		r.shortage(reason, nodes)
	case state.NodeIsCordoned, state.NodeNotReady:
		for _, n := range nodes {
			if r.hasRoom(n) {
				r.add("%s %s", n.Name, map[bool]string{true: "is uncordoned", false: "is ready again"}[reason == state.NodeIsCordoned])
				return
			}
		}
	case state.NodeTainted:
		for _, n := range nodes {
			if t, ok := r.class.untolerated(n); !ok && r.hasRoom(n) {
				r.add("a toleration of %s (%s)", taintName(t), n.Name)
				return
			}
		}
	case state.NodeSelectorMismatch, state.NodeAffinityMismatch:
		r.labels(reason, nodes)
	case state.NodePortTaken:
		for _, n := range nodes {
			if p, port := r.class.portHolder(n); p != nil {
				r.add("host port %d/%s of %s is given up by %s", port.port, port.protocol, n.Name, p.Key)
				return
			}
		}
	case state.NodeOtherArch, state.NodeNoImage, state.NodeImageUnknown, state.NodeOtherBuild:
		r.images(reason, nodes)
	case state.NodeOtherName:
		r.add("spec.nodeName is left out")
	case state.NodeSpread, state.NodePodAffinity:
		r.domains(reason, nodes)
	case state.NodeUnsupportedField:
		if field := r.class.dishonoured(nodes[0].Facts.OS); field != "" {
			r.add("spec.%s is left out", field)
		}
	case state.NodePodAntiAffinity:
		r.add("preferred instead of required pod anti-affinity")
	case state.NodeUnfenced:
		r.add("the fencer of %s runs again (`tandem agent doctor` there says what it lacks)", nodes[0].Name)
	case state.NodeFits, state.NodeOtherOS, state.NodeNoIsolation, state.NodeExistingAntiAffinity, state.NodeVolumeElsewhere, state.NodeReserved:
	}
}

// domains says what a required spread or affinity lacks: pods elsewhere, or, where
// no node is in a domain, the label that makes one.
func (r *remedy) domains(reason state.NodeReason, nodes []*state.Node) {
	for _, n := range nodes {
		switch {
		case r.class.domainless(n, reason) != "":
			continue
		case reason == state.NodeSpread:
			r.add("a higher maxSkew, or whenUnsatisfiable: ScheduleAnyway")
		default:
			r.add("a pod that required pod affinity names runs there first")
		}
		return
	}
	r.add("%s has the label %s", nodes[0].Name, r.class.domainless(nodes[0], reason))
}

// shortage names the most that would fit, and the node that lacks least. Nodes
// short of something else too are no help.
func (r *remedy) shortage(reason state.NodeReason, nodes []*state.Node) {
	d := dimensionOf(reason)
	var most, least int64 = -1, -1
	var best *state.Node
	for _, n := range nodes {
		ask, left := r.ask(n), n.Facts.Allocatable.Sub(n.Used)
		if reason != state.NodeShortPods && without(reason, left, ask) != state.NodeFits {
			continue
		}
		_, iso := r.class.runs(n)
		free := d.of(left)
		fits := free - d.of(state.Charge(state.Resources{}, iso))
		most = max(most, fits)
		lack := d.of(ask) - free
		if d.of(ask) <= d.of(n.Facts.Allocatable) && (best == nil || lack < least) {
			best, least = n, lack
		}
	}
	if best != nil && reason == state.NodeShortPods {
		r.add("%s frees a pod", best.Name)
		return
	}
	if best != nil {
		r.add("%s frees %s %s", best.Name, d.name, d.text(least))
	}
	if most > 0 && reason != state.NodeShortPods {
		r.add("%s ≤ %s", d.name, d.text(most))
	}
}

// without asks for all but one resource.
func without(reason state.NodeReason, free, ask state.Resources) state.NodeReason {
	all := ask
	ask = state.Resources{Pods: all.Pods}
	if reason != state.NodeShortCPU {
		ask.MilliCPU = all.MilliCPU
	}
	if reason != state.NodeShortMemory {
		ask.Memory = all.Memory
	}
	if reason != state.NodeShortStorage {
		ask.Ephemeral = all.Ephemeral
	}
	return short(free, ask)
}

func (r *remedy) labels(reason state.NodeReason, nodes []*state.Node) {
	for _, n := range nodes {
		if !r.hasRoom(n) {
			continue
		}
		if reason == state.NodeAffinityMismatch {
			r.add("%s matches required node affinity", n.Name)
			return
		}
		var lack []string
		born := false // with another value, which nobody can change
		for i := range r.class.selector {
			if q := &r.class.selector[i]; !q.matches(n) {
				lack = append(lack, q.key+"="+q.values[0])
				born = born || slices.Contains(state.KnownLabels(), q.key)
			}
		}
		if len(lack) > 0 && !born {
			r.add("%s has the label %s", n.Name, strings.Join(lack, ", "))
			return
		}
	}
}

func (r *remedy) images(reason state.NodeReason, nodes []*state.Node) {
	if len(nodes) == 0 {
		return
	}
	f := &nodes[0].Facts
	e := Explainer{state: r.state, class: r.class}
	for i, name := range state.ImageNames(r.class.spec) {
		img := &r.class.images[i]
		switch {
		case reason == state.NodeImageUnknown && (img.Assumed || img.Name == ""):
			r.add("%s", img.Failure.Remedy(name))
		case reason == state.NodeImageUnknown || img.Assumed || e.runsImage(img, f):
		case reason == state.NodeOtherBuild:
			if host, ok := platform.Parse(f.OSVersion); ok {
				r.add("image %s for Windows build %s", name, platform.Name(host.Number))
			}
		default:
			r.add("image %s for %s/%s", name, f.OS, f.Arch)
		}
	}
}

// moreNodes describes a node whose joining would help. It says nothing where
// none could: an image that isn't known, a pod bound to one node.
func (r *remedy) moreNodes(groups []state.ReasonGroup) string {
	bound := slices.ContainsFunc(groups, func(g state.ReasonGroup) bool {
		return g.Reason == state.NodeImageUnknown || g.Reason == state.NodeVolumeElsewhere
	})
	if bound || r.class.spec.NodeName != "" || r.class.unknown {
		return ""
	}
	os := r.class.os
	switch { // a node of the OS that honours every field
	case r.class.onLinux != "" && r.class.onWindows != "":
		return ""
	case os == state.AnyOS && r.class.onWindows != "":
		os = state.Linux
	case os == state.AnyOS && r.class.onLinux != "":
		os = state.Windows
	}
	for i := range r.class.images {
		img := &r.class.images[i]
		if os != state.AnyOS && !img.Assumed && !slices.ContainsFunc(img.Platforms, func(p state.Platform) bool { return p.OS == os }) {
			return ""
		}
	}
	text := "1 more node"
	if os != state.AnyOS {
		text = "1 more " + string(os) + " node"
	}
	if os == state.Windows {
		need := 0
		for i := range r.class.images {
			if builds := imageBuilds(&r.class.images[i], "amd64"); len(builds) > 0 {
				need = max(need, builds[0].Number)
			}
		}
		if need > 0 {
			text = "1 more windows node, build ≥ " + strconv.Itoa(need)
		}
	}
	var with []string
	for i := range r.class.selector {
		with = append(with, r.class.selector[i].key+"="+r.class.selector[i].values[0])
	}
	if len(with) > 0 {
		text += " with " + strings.Join(with, ", ")
	}
	return text
}
