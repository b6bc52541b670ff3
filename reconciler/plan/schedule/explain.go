package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// An Explainer says reasons in words, for one template as things are now.
type Explainer struct {
	state *state.State
	class *class
	batch *batch // made when a reason needs the pods elsewhere
}

// NewExplainer is for asking about many nodes.
func NewExplainer(s *state.State, t *state.Template) *Explainer {
	return &Explainer{state: s, class: newClass(t)}
}

// Explain says for people why a node can't take a pod of a template, with the
// amounts as they are now.
func Explain(s *state.State, t *state.Template, n *state.Node, r state.NodeReason) string {
	return NewExplainer(s, t).Node(n, r)
}

// Node says why n can't take a pod.
func (e *Explainer) Node(n *state.Node, r state.NodeReason) string {
	switch r {
	case state.NodeFits:
		return "fits"
	case state.NodeNotReady:
		return "not ready"
	case state.NodeIsCordoned:
		return "cordoned"
	case state.NodeOtherOS:
		return fmt.Sprintf("OS %s, pod is %s", n.Facts.OS, e.class.os)
	case state.NodeOtherArch, state.NodeOtherBuild, state.NodeNoIsolation, state.NodeNoImage, state.NodeImageUnknown:
		return e.machine(n, r)
	case state.NodeTainted:
		if t, ok := e.class.untolerated(n); !ok {
			return fmt.Sprintf("taint %s is not tolerated", taintName(t))
		}
		return "had a taint that is not tolerated"
	case state.NodeSelectorMismatch, state.NodeAffinityMismatch:
		return e.labels(n, r)
	case state.NodeOtherName:
		return "spec.nodeName is " + e.class.spec.NodeName
	case state.NodeShortCPU, state.NodeShortMemory, state.NodeShortStorage, state.NodeShortPods:
		return e.room(n, r)
	case state.NodePortTaken:
		if p, port := e.class.portHolder(n); p != nil {
			return fmt.Sprintf("host port %d/%s is taken by %s", port.port, port.protocol, p.Key)
		}
		return "host port is taken"
	case state.NodeSpread, state.NodePodAffinity, state.NodePodAntiAffinity, state.NodeExistingAntiAffinity:
		return e.others(n, r)
	case state.NodeReserved:
		return "pods there are ending to make room for more important ones"
	case state.NodeVolumeElsewhere:
		return "its data is on another node"
	case state.NodeUnsupportedField:
		if field := e.class.dishonoured(n.Facts.OS); field != "" {
			return fmt.Sprintf("OS %s can't honour spec.%s", n.Facts.OS, field)
		}
		return "a field of the pod has no meaning on this node"
	case state.NodeUnfenced:
		return "its fencer does not run, so nothing would end the identity in time if the agent hung"
	}
	return fmt.Sprintf("reason %d, which this version does not know", r)
}

func taintName(t state.Taint) string {
	if t.Value == "" {
		return t.Key + ":" + t.Effect
	}
	return t.Key + "=" + t.Value + ":" + t.Effect
}

// machine is for reasons that lie in the images and the machine.
func (e *Explainer) machine(n *state.Node, r state.NodeReason) string {
	f := &n.Facts
	if r == state.NodeNoIsolation {
		if e.class.hostProcess {
			return "HostProcess containers need process isolation; node offers Hyper-V alone"
		}
		return "pods of several containers need process isolation; node offers Hyper-V alone"
	}
	for i, name := range state.ImageNames(e.class.spec) {
		img := &e.class.images[i]
		switch {
		case r == state.NodeImageUnknown && img.Name == "":
			return fmt.Sprintf("image %s was not looked up", name)
		case r == state.NodeImageUnknown && img.Assumed && f.Simulated:
			return fmt.Sprintf("image %s could not be looked up (%s) and is taken to be for %s", name, cmp.Or(img.Failure.String(), "no answer"), e.class.assumedOS())
		case r == state.NodeImageUnknown && img.Assumed:
			return fmt.Sprintf("image %s could not be looked up: %s", name, cmp.Or(img.Failure.String(), "no answer"))
		case r == state.NodeImageUnknown || img.Assumed:
			continue
		}
		if e.runsImage(img, f) {
			continue
		}
		if r == state.NodeOtherArch {
			return fmt.Sprintf("architecture %s; image %s has %s", f.Arch, name, platformNames(img))
		}
		if r == state.NodeOtherBuild {
			return buildMismatch(img, f)
		}
		return fmt.Sprintf("image %s has nothing for %s/%s; it has %s", name, f.OS, f.Arch, platformNames(img))
	}
	return "no image for this machine"
}

func (e *Explainer) runsImage(img *state.Image, f *state.NodeFacts) bool {
	return slices.ContainsFunc(e.class.isolations(f), func(iso state.Isolation) bool {
		_, r := platform.Match(img, f, iso, e.class.hostProcess)
		return r == state.NodeFits
	})
}

func platformNames(img *state.Image) string {
	var out []string
	for i := range img.Platforms {
		p := &img.Platforms[i]
		name := string(p.OS)
		if p.Arch != "" {
			name += "/" + p.Arch
		}
		if p.OSVersion != "" {
			name += " " + p.OSVersion
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return "no platform"
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// imageBuilds are the Windows builds that an image has for an architecture, ascending.
func imageBuilds(img *state.Image, arch string) []platform.Build {
	var out []platform.Build
	for i := range img.Platforms {
		p := &img.Platforms[i]
		if p.OS != state.Windows || p.Arch != "" && p.Arch != arch {
			continue
		}
		if b, ok := platform.Parse(p.OSVersion); ok {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, platform.Build.Compare)
	return out
}

func buildMismatch(img *state.Image, f *state.NodeFacts) string {
	host, ok := platform.Parse(f.OSVersion)
	if !ok {
		return fmt.Sprintf("node does not say its Windows build (%q)", f.OSVersion)
	}
	var needs []string
	builds := imageBuilds(img, f.Arch)
	for _, b := range builds {
		needs = append(needs, platform.Name(b.Number))
	}
	needs = slices.Compact(needs)
	if len(needs) == 0 {
		return fmt.Sprintf("runs build %s; image %s has no readable os.version", platform.Name(host.Number), img.Name)
	}
	text := fmt.Sprintf("runs build %s; image %s needs %s (process)", platform.Name(host.Number), img.Name, strings.Join(needs, " or "))
	if lowest := builds[0].Number; lowest > host.Number {
		return fmt.Sprintf("%s or a host ≥ %d (Hyper-V)", text, lowest)
	}
	if name, only := platform.OnlyItsRevision(host.Number); only && builds[0].Number == host.Number {
		return fmt.Sprintf("runs build %d.%d (%s), which needs the image's revision to be the same; image %s has %d", host.Number, host.Revision, name, img.Name, builds[0].Revision)
	}
	return text + ", or Hyper-V on this node"
}

// labels is for nodeSelector and node affinity.
func (e *Explainer) labels(n *state.Node, r state.NodeReason) string {
	if r == state.NodeSelectorMismatch {
		for i := range e.class.selector {
			q := &e.class.selector[i]
			if q.matches(n) {
				continue
			}
			if v, ok := n.Label(q.key); ok {
				return fmt.Sprintf("label %s is %s, nodeSelector wants %s", q.key, v, q.values[0])
			}
			return fmt.Sprintf("has no label %s, nodeSelector wants %s", q.key, q.values[0])
		}
		return "labels differed from nodeSelector"
	}
	if e.class.affinity == nil {
		return "required node affinity did not match"
	}
	var terms []string
	for _, t := range e.class.affinity.terms {
		terms = append(terms, t.String())
	}
	return "required node affinity wants " + strings.Join(terms, ", or ")
}

// String is the term for people: "disk In (ssd) and gen Gt 3".
func (t nodeTerm) String() string {
	var parts []string
	for i := range t {
		q := &t[i]
		text := q.key + " " + string(q.op)
		switch len(q.values) {
		case 0:
		case 1:
			text += " " + q.values[0]
		default:
			text += " (" + strings.Join(q.values, ", ") + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "nothing (an empty term)"
	}
	return strings.Join(parts, " and ")
}

// A dimension is one resource for people.
type dimension struct {
	name string
	of   func(state.Resources) int64
	text func(int64) string
}

func dimensionOf(r state.NodeReason) dimension {
	if r == state.NodeShortCPU {
		return dimension{"cpu", func(r state.Resources) int64 { return r.MilliCPU }, milliText}
	}
	if r == state.NodeShortMemory {
		return dimension{"memory", func(r state.Resources) int64 { return r.Memory }, bytesText}
	}
	if r == state.NodeShortStorage {
		return dimension{"ephemeral-storage", func(r state.Resources) int64 { return r.Ephemeral }, bytesText}
	}
	return dimension{"pods", func(r state.Resources) int64 { return r.Pods }, func(n int64) string { return fmt.Sprint(n) }}
}

// milliText is an amount of processor: "250m", "2", "1.5".
func milliText(milli int64) string {
	switch {
	case milli%1000 == 0:
		return fmt.Sprint(milli / 1000)
	case milli > 1000 && milli%100 == 0:
		return fmt.Sprintf("%d.%d", milli/1000, milli%1000/100)
	default:
		return fmt.Sprintf("%dm", milli)
	}
}

// bytesText is an amount of memory, rounded down to what can be read: "120Mi".
func bytesText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if n%u.size == 0 && n != 0 || n >= 10*u.size || n >= u.size && u.size < 1<<30 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}

// room names what is asked, what is free and who has the rest: of every resource
// that is short, the one of the reason first.
func (e *Explainer) room(n *state.Node, r state.NodeReason) string {
	_, iso := e.class.runs(n)
	ask := state.Charge(e.class.template.Requests, iso)
	free := n.Facts.Allocatable.Sub(n.Used)
	out := []string{e.resource(n, r, iso)}
	for _, other := range []state.NodeReason{state.NodeShortPods, state.NodeShortCPU, state.NodeShortMemory, state.NodeShortStorage} {
		if other != r && short(free, only(other, ask)) == other {
			out = append(out, e.resource(n, other, iso))
		}
	}
	return strings.Join(out, "; ")
}

// only is an amount of one resource alone.
func only(r state.NodeReason, ask state.Resources) state.Resources {
	if r == state.NodeShortPods {
		return state.Resources{Pods: ask.Pods}
	}
	var out state.Resources
	switch r {
	case state.NodeShortCPU:
		out.MilliCPU = ask.MilliCPU
	case state.NodeShortMemory:
		out.Memory = ask.Memory
	case state.NodeShortStorage:
		out.Ephemeral = ask.Ephemeral
	default:
	}
	return out
}

func (e *Explainer) resource(n *state.Node, r state.NodeReason, iso state.Isolation) string {
	d := dimensionOf(r)
	ask := d.of(state.Charge(e.class.template.Requests, iso))
	all := d.of(n.Facts.Allocatable)
	free := max(0, all-d.of(n.Used))
	with := ""
	if extra := d.of(state.HyperVOverhead()); iso == state.HyperV && extra > 0 {
		with = fmt.Sprintf(" with %s for its Hyper-V guest", d.text(extra))
	}
	if r == state.NodeShortPods {
		return fmt.Sprintf("pods: %d of %d taken", n.Used.Pods, all)
	}
	if ask > all {
		return fmt.Sprintf("%s: %s asked%s, node has %s in all", d.name, d.text(ask), with, d.text(all))
	}
	was := ""
	if ask <= free {
		was = " by now" // it was short when the decision was made
	}
	text := fmt.Sprintf("%s: %s asked%s, %s free%s", d.name, d.text(ask), with, d.text(free), was)
	if users := usersOf(n, d); users != "" {
		text += " (" + users + ")"
	}
	return text
}

// maxUsers is how many holders of a resource are named.
const maxUsers = 4

// usersOf names the workloads that hold most of a resource: "web 2×256Mi".
func usersOf(n *state.Node, d dimension) string {
	type holder struct {
		ref    state.Ref
		amount int64
	}
	pods := map[holder]int64{}
	for _, p := range n.Pods {
		if amount := d.of(state.Charge(p.Template.Requests, p.Isolation)); amount > 0 {
			pods[holder{p.Workload, amount}]++
		}
	}
	order := slices.SortedFunc(maps.Keys(pods), func(a, b holder) int {
		return cmp.Or(cmp.Compare(b.amount*pods[b], a.amount*pods[a]), a.ref.Compare(b.ref), cmp.Compare(a.amount, b.amount))
	})
	var out []string
	for i, h := range order {
		if i == maxUsers {
			out = append(out, fmt.Sprintf("%d more", len(order)-maxUsers))
			break
		}
		times := ""
		if pods[h] > 1 {
			times = fmt.Sprintf("%d×", pods[h])
		}
		out = append(out, h.ref.Name+" "+times+d.text(h.amount))
	}
	return strings.Join(out, ", ")
}

// others is for reasons that lie in pods elsewhere.
func (e *Explainer) others(n *state.Node, r state.NodeReason) string {
	if key := e.class.domainless(n, r); key != "" {
		return fmt.Sprintf("%s: has no label %s", map[state.NodeReason]string{state.NodeSpread: "topology spread", state.NodePodAffinity: "required pod affinity"}[r], key)
	}
	b := e.counted()
	if b == nil {
		return reasonWords(r)
	}
	i, ok := b.index(n.Name)
	if !ok {
		return reasonWords(r)
	}
	spec := e.class.spec
	if r == state.NodeSpread {
		for _, p := range b.spreads {
			if p.hard && !p.allows(i) {
				return p.words(n, i)
			}
		}
	}
	if r == state.NodePodAffinity {
		for k, t := range b.wants {
			if t.at(i) == 0 {
				x := &spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[k]
				return fmt.Sprintf("required pod affinity: no pod with %s in %s", metav1.FormatLabelSelector(x.LabelSelector), domainName(n, t.topo))
			}
		}
	}
	if r == state.NodePodAntiAffinity {
		for k, t := range b.avoids {
			if t.at(i) > 0 {
				x := &spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[k]
				return fmt.Sprintf("pod anti-affinity: %d pods with %s in %s", t.at(i), metav1.FormatLabelSelector(x.LabelSelector), domainName(n, t.topo))
			}
		}
	}
	if r == state.NodeExistingAntiAffinity {
		for _, x := range b.bans {
			if d := x.topo.of[i]; d != noDomain && x.domains[d] > 0 {
				return fmt.Sprintf("a pod in %s keeps such pods away by its anti-affinity", domainName(n, x.topo))
			}
		}
	}
	return reasonWords(r)
}

// domainless is the label for want of which a node is in no domain of a required
// spread or affinity.
func (c *class) domainless(n *state.Node, r state.NodeReason) string {
	var keys []string
	switch a := c.spec.Affinity; {
	case r == state.NodeSpread:
		for i := range c.spec.TopologySpreadConstraints {
			if t := &c.spec.TopologySpreadConstraints[i]; t.WhenUnsatisfiable == corev1.DoNotSchedule {
				keys = append(keys, t.TopologyKey)
			}
		}
	case r == state.NodePodAffinity && a != nil && a.PodAffinity != nil:
		for i := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			keys = append(keys, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i].TopologyKey)
		}
	}
	for _, key := range keys {
		if _, ok := n.Label(key); !ok {
			return key
		}
	}
	return ""
}

// reasonWords is what can be said when the state no longer shows why.
func reasonWords(r state.NodeReason) string {
	if r == state.NodeSpread {
		return "topology spread: pods would lie too unevenly"
	}
	if r == state.NodePodAffinity {
		return "required pod affinity: the pods that it names are not there"
	}
	if r == state.NodePodAntiAffinity {
		return "pod anti-affinity: a pod that it names is there"
	}
	return "a pod there keeps such pods away by its anti-affinity"
}

func (p *spread) words(n *state.Node, node int32) string {
	low := p.low
	if p.domains < p.minDomains {
		low = 0
	}
	return fmt.Sprintf("topology spread: %s has %d such pods, the lowest has %d, maxSkew is %d", domainName(n, p.topo), p.at(node), low, p.skew)
}

func domainName(n *state.Node, t *topology) string {
	v, ok := n.Label(t.key)
	if !ok {
		return "no " + t.key
	}
	return t.key + "=" + v
}

// counted is a batch of no pods for the workload that has the template.
func (e *Explainer) counted() *batch {
	if e.batch != nil {
		return e.batch
	}
	for _, w := range e.state.SortedWorkloads() {
		for _, v := range w.Variants {
			if v.Update != nil && v.Update.Digest == e.class.template.Digest {
				e.batch = newBatch(new(Roster), e.state, &Request{Workload: w, Variant: v, Template: e.class.template})
				e.batch.constrain()
				e.batch.count()
				return e.batch
			}
		}
	}
	return nil
}
