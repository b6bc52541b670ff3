package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Detail is the status of one object.
type Detail struct {
	Ref      state.Ref      `json:"ref"`
	App      state.AppName  `json:"application,omitempty"`
	Revision state.Revision `json:"revision,omitempty"`
	Author   string         `json:"author,omitempty"`
	Origin   string         `json:"origin,omitempty"`
	State    string         `json:"state"`
	Workload *Workload      `json:"workload,omitempty"`
	Budget   string         `json:"budget,omitempty"`
	Says     []string       `json:"says,omitempty"` // what is particular to its kind
	Images   []ImageUse     `json:"images,omitempty"`
	Pods     []Pod          `json:"pods,omitempty"`
	Held     []Hold         `json:"held,omitempty"`
	CPUCaps  []CPUCap       `json:"cpuCaps,omitempty"`
	Node     *Node          `json:"node,omitempty"`
	At       time.Time      `json:"at"`
}

// An ImageUse is what one variant runs, and where.
type ImageUse struct {
	OS     state.OS `json:"os,omitempty"`
	Name   string   `json:"name"`
	Digest string   `json:"digest"` // of the index; "assumed" where it couldn't be looked up
}

// A Pod is one line of a workload or node.
type Pod struct {
	Ref       state.Ref       `json:"ref"`
	Workload  state.Ref       `json:"workload"`
	Node      state.NodeName  `json:"node"`
	OS        state.OS        `json:"os"`
	Ready     bool            `json:"ready"`
	State     string          `json:"state"`
	Ended     bool            `json:"ended,omitempty"`
	Restarts  int32           `json:"restarts"`
	Isolation state.Isolation `json:"isolation,omitempty"`
	Since     time.Time       `json:"since"`
}

// NewDetail is the status of one object that is there.
func NewDetail(s *state.State, ref state.Ref, words Words) Detail {
	d := Detail{Ref: ref, At: s.At.Time(), State: "applied"}
	switch ref.Kind {
	case "Pod":
		d.ofPod(s, words)
		return d
	case "Node":
		d.ofNode(s, words)
		return d
	case "Application":
		d.App = state.AppName(ref.Name)
		d.ofApp(s, words)
		for _, a := range Applications(s, words) {
			if a.Name == d.App {
				d.State = a.State
			}
		}
		for _, h := range Holds(s) {
			if h.App == d.App {
				d.Held = append(d.Held, h)
			}
		}
		return d
	}
	o, c := s.Objects[ref], s.Claims[ref]
	if w := s.Workloads[ref]; o == nil && w != nil {
		o = w.Owned // of a CronJob
	}
	if ref.Kind == state.ClaimKind {
		d.State = "waits for the first pod that has it"
		if c != nil {
			d.App, d.State = c.App, fmt.Sprintf("on %s, %s asked, %s", c.Node, bytesText(c.Capacity), ClaimState(s, c))
		}
	}
	if o == nil {
		if c == nil {
			d.State = "gone"
		}
		d.ofApp(s, words)
		return d
	}
	d.App = o.App
	d.Origin = o.Object.Variants[0].Origin.String()
	d.ofApp(s, words)
	if w := s.Workloads[ref]; w != nil {
		d.ofWorkload(s, w, words)
	}
	d.Says = says(s, ref)
	return d
}

func (d *Detail) ofApp(s *state.State, words Words) {
	if a := s.Apps[d.App]; a != nil {
		d.Revision = a.Revision
		if !a.Commit.Author.IsZero() {
			d.Author = words(a.Commit.Author)
		}
	}
}

func (d *Detail) ofWorkload(s *state.State, w *state.Workload, words Words) {
	v := NewWorkload(s, w)
	d.Workload, d.State = &v, v.State
	d.Budget = budget(w)
	for _, variant := range w.Variants {
		if variant.Update == nil {
			continue
		}
		for _, im := range variant.Update.Images {
			use := ImageUse{OS: variant.OS, Name: im.Name, Digest: im.Index.Short()}
			if im.Assumed {
				use.Digest = "assumed"
			}
			d.Images = append(d.Images, use)
		}
	}
	d.CPUCaps = cpuCaps(s, w.Pods)
	for _, p := range w.Pods {
		d.Pods = append(d.Pods, newPod(p, words))
	}
	slices.SortFunc(d.Pods, func(a, b Pod) int { return strings.Compare(a.Ref.Name, b.Ref.Name) })
	for _, h := range w.Holds {
		d.Held = append(d.Held, NewHold(h))
	}
	slices.SortFunc(d.Held, func(a, b Hold) int { return strings.Compare(a.ID, b.ID) })
}

func newPod(p *state.Pod, words Words) Pod {
	return Pod{
		Ref: podRef(p.Key), Workload: p.Workload, Node: p.Node, OS: p.OS, Ready: p.Ready && !p.Lost, State: podState(p, words), Ended: p.Ended(), Restarts: p.Restarts,
		Isolation: p.Isolation, Since: p.Placed.Time(),
	}
}

func podState(p *state.Pod, words Words) string {
	switch {
	case p.Stopping:
		return "stopping: " + p.StopWhy.String()
	case p.Lost:
		return "its node is lost"
	case p.Ready:
		return "ready"
	case p.Reason != state.ReasonNone:
		out := p.Reason.String()
		if !p.Detail.IsZero() {
			out += ": " + firstLine(words(p.Detail))
		}
		return out
	default:
		return p.Phase.String()
	}
}

func (d *Detail) ofPod(s *state.State, words Words) {
	p := s.ByName[state.PodKey{Namespace: d.Ref.Namespace, Name: d.Ref.Name}]
	if p == nil {
		d.State = "gone"
		return
	}
	v := newPod(p, words)
	d.Pods, d.State = []Pod{v}, v.State
	d.CPUCaps = cpuCaps(s, []*state.Pod{p})
	if w := s.Workloads[p.Workload]; w != nil {
		d.App = w.App
		d.ofApp(s, words)
	}
}

func (d *Detail) ofNode(s *state.State, words Words) {
	for _, n := range Nodes(s) {
		if string(n.Name) == d.Ref.Name {
			d.Node, d.State = &n, "ready: "+n.word()
		}
	}
	if n := s.Nodes[state.NodeName(d.Ref.Name)]; n != nil {
		for _, p := range n.Pods {
			d.Pods = append(d.Pods, newPod(p, words))
		}
		slices.SortFunc(d.Pods, func(a, b Pod) int { return a.Ref.Compare(b.Ref) })
	}
}

// Text prints it for people.
func (d *Detail) Text(w io.Writer) {
	head := []string{d.Ref.String()}
	if d.Revision != "" {
		r := d.Revision.Short()
		if d.Author != "" {
			r += " (" + firstLine(d.Author) + ")"
		}
		head = append(head, r)
	}
	switch {
	case d.Workload != nil && d.Ref.Kind == "Job":
		head = append(head, d.Workload.Pods.String()+" succeeded")
	case d.Workload != nil && d.Ref.Kind != "CronJob":
		head = append(head, d.Workload.Pods.String()+" ready")
		if d.Budget != "" {
			head = append(head, "budget: "+d.Budget)
		}
	default:
		head = append(head, d.State)
	}
	_, _ = fmt.Fprintln(w, strings.Join(head, "   "))
	if d.Origin != "" {
		_, _ = fmt.Fprintf(w, "  written at  %s\n", d.Origin)
	}
	for _, line := range d.Says {
		_, _ = fmt.Fprintf(w, "  %s\n", line)
	}
	if d.Workload != nil {
		d.variants(w)
	}
	var rows [][]string
	for i := range d.Pods {
		p := &d.Pods[i]
		rows = append(rows, []string{"  " + p.Ref.Name, string(p.Node), string(p.OS), p.State, fmt.Sprintf("%d restarts", p.Restarts), "since " + clock(p.Since, d.At), string(p.Isolation)})
	}
	table(w, rows...)
	for i := range d.CPUCaps {
		_, _ = fmt.Fprintf(w, "  cpu  %s\n", &d.CPUCaps[i])
	}
	for i := range d.Held {
		_, _ = fmt.Fprintf(w, "held  %s  %s\n", d.Held[i].ID, d.Held[i].Text)
		if d.Held[i].Fix != "" {
			_, _ = fmt.Fprintf(w, "      fix: %s\n", d.Held[i].Fix)
		}
	}
}

func (d *Detail) variants(w io.Writer) {
	var rows [][]string
	for _, part := range []struct {
		os    state.OS
		ratio Ratio
	}{{state.Linux, d.Workload.Linux}, {state.Windows, d.Workload.Windows}, {state.AnyOS, d.Workload.Any}} {
		if part.ratio == (Ratio{}) {
			continue
		}
		var images []string
		for _, im := range d.Images {
			if im.OS == part.os {
				images = append(images, im.Name+" ("+im.Digest+")")
			}
		}
		nodes := map[state.NodeName]int{}
		var names []state.NodeName
		for i := range d.Pods {
			if p := &d.Pods[i]; part.os == state.AnyOS || p.OS == part.os {
				if nodes[p.Node] == 0 {
					names = append(names, p.Node)
				}
				nodes[p.Node]++
			}
		}
		slices.Sort(names)
		var where []string
		for _, n := range names {
			where = append(where, fmt.Sprintf("%s ×%d", n, nodes[n]))
		}
		rows = append(rows, []string{"  " + orText(string(part.os), "any OS"), part.ratio.String(), strings.Join(images, ", "), strings.Join(where, ", ")})
	}
	table(w, rows...)
}
