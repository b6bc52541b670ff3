package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Difference is what changed between two moments: what was wanted, per OS,
// where it ran, and what was ready.
type Difference struct {
	From      Side         `json:"from"`
	To        Side         `json:"to"`
	Apps      []AppChange  `json:"applications"`
	Desired   []PlanChange `json:"desired"`
	Replicas  []Scaled     `json:"readiness"`
	Pods      []PodChange  `json:"placements"`
	Nodes     []NodeChange `json:"nodes"`
	SamePods  int          `json:"samePods"` // the same life on the same node
	SameWants int          `json:"sameObjects"`
}

// A Side is one of the two moments.
type Side struct {
	Seq state.Seq `json:"seq"`
	At  time.Time `json:"at"`
}

// An AppChange is an application that follows another revision.
type AppChange struct {
	Name   state.AppName  `json:"name"`
	From   state.Revision `json:"from,omitempty"`
	To     state.Revision `json:"to,omitempty"`
	Commit Author         `json:"commit,omitzero"` // of To
}

// Scaled is a workload whose ready or wanted pods changed, per OS.
type Scaled struct {
	Workload state.Ref `json:"workload"`
	OS       string    `json:"os"` // any: of variants that name none
	From     Ratio     `json:"from"`
	To       Ratio     `json:"to"`
}

// A PodChange is a pod that came, went or became another life.
type PodChange struct {
	Pod     state.Ref      `json:"pod"`
	Verb    string         `json:"verb"` // came, went, replaced, moved
	From    state.NodeName `json:"from,omitempty"`
	To      state.NodeName `json:"to,omitempty"`
	Images  []RanImage     `json:"images,omitempty"` // of what runs now, else of what ran
	Outcome string         `json:"outcome,omitempty"`
}

// A NodeChange is a node that came, went or changed.
type NodeChange struct {
	Node state.NodeName `json:"node"`
	From string         `json:"from,omitempty"`
	To   string         `json:"to,omitempty"`
}

// NewDifference compares two states of one log.
func NewDifference(before, after *state.State, words Words) Difference {
	d := Difference{
		From: Side{before.Seq, before.At.Time()}, To: Side{after.Seq, after.At.Time()},
		Apps: []AppChange{}, Desired: []PlanChange{}, Replicas: []Scaled{}, Pods: []PodChange{}, Nodes: []NodeChange{},
	}
	d.apps(before, after, words)
	d.desired(before, after)
	d.readiness(before, after)
	d.placements(before, after)
	d.nodes(before, after)
	return d
}

func (d *Difference) apps(before, after *state.State, words Words) {
	for _, a := range after.SortedApps() {
		c := AppChange{Name: a.Spec.Name, To: a.Revision}
		if old := before.Apps[a.Spec.Name]; old != nil {
			c.From = old.Revision
		}
		if c.From != c.To {
			c.Commit = author(&a.Commit, words)
			d.Apps = append(d.Apps, c)
		}
	}
	for _, a := range before.SortedApps() {
		if after.Apps[a.Spec.Name] == nil {
			d.Apps = append(d.Apps, AppChange{Name: a.Spec.Name, From: a.Revision})
		}
	}
}

func (d *Difference) desired(before, after *state.State) {
	refs := map[state.Ref]bool{}
	for ref := range before.Objects {
		refs[ref] = true
	}
	for ref := range after.Objects {
		refs[ref] = true
	}
	for ref := range refs {
		old, now := before.Objects[ref], after.Objects[ref]
		switch {
		case old == nil:
			d.Desired = append(d.Desired, PlanChange{Ref: ref, Verb: state.Create.String(), Fields: created(planObject(now.Object))})
		case now == nil:
			d.Desired = append(d.Desired, PlanChange{Ref: ref, Verb: state.Delete.String()})
		case old.Object.Digest() != now.Object.Digest():
			c := PlanChange{Ref: ref, Verb: state.Update.String()}
			if fields, err := compare(old.Object, planObject(now.Object)); err == nil {
				c.Fields = discreet(fields)
			}
			d.Desired = append(d.Desired, c)
		default:
			d.SameWants++
		}
	}
	slices.SortFunc(d.Desired, func(a, b PlanChange) int { return a.Ref.Compare(b.Ref) })
}

// discreet leaves out the values of environment variables: people write into
// them what should have been a Secret, and history is read by many.
func discreet(fields []PlanField) []PlanField {
	for i := range fields {
		f := &fields[i]
		if !strings.Contains(f.Path, ".env[") && !strings.HasSuffix(f.Path, ".env") {
			continue
		}
		if f.From != "" {
			f.From = "(value)"
		}
		if f.To != "" {
			f.To = "(another value)"
		}
	}
	return fields
}

func planObject(o *state.Object) *PlanObject {
	out := &PlanObject{Ref: o.Ref}
	for i := range o.Variants {
		raw, err := json.Marshal(o.Variants[i].Body)
		if err != nil {
			raw = []byte("null") // a value of k8s.io/api marshals
		}
		out.Variants = append(out.Variants, PlanVariant{OS: o.Variants[i].OS, Body: raw})
	}
	return out
}

func (d *Difference) readiness(before, after *state.State) {
	count := func(s *state.State, ref state.Ref) Workload {
		if w := s.Workloads[ref]; w != nil {
			return NewWorkload(s, w)
		}
		return Workload{}
	}
	refs := map[state.Ref]bool{}
	for ref := range before.Workloads {
		refs[ref] = true
	}
	for ref := range after.Workloads {
		refs[ref] = true
	}
	for ref := range refs {
		old, now := count(before, ref), count(after, ref)
		for _, part := range []Scaled{
			{ref, "linux", old.Linux, now.Linux}, {ref, "windows", old.Windows, now.Windows}, {ref, "any", old.Any, now.Any},
		} {
			if part.From != part.To {
				d.Replicas = append(d.Replicas, part)
			}
		}
	}
	slices.SortStableFunc(d.Replicas, func(a, b Scaled) int { return a.Workload.Compare(b.Workload) })
}

func (d *Difference) placements(before, after *state.State) {
	for key, p := range after.ByName {
		old := before.ByName[key]
		c := PodChange{Pod: podRef(key), To: p.Node, Images: ranImages(p), Outcome: podThen(p)}
		switch {
		case old == nil:
			c.Verb = "came"
		case old.UID == p.UID:
			d.SamePods++
			continue
		case old.Node != p.Node:
			c.Verb, c.From = "moved", old.Node
		default:
			c.Verb, c.From = "replaced", old.Node
		}
		d.Pods = append(d.Pods, c)
	}
	for key, p := range before.ByName {
		if after.ByName[key] == nil {
			d.Pods = append(d.Pods, PodChange{Pod: podRef(key), Verb: "went", From: p.Node, Images: ranImages(p)})
		}
	}
	slices.SortFunc(d.Pods, func(a, b PodChange) int { return a.Pod.Compare(b.Pod) })
}

func (d *Difference) nodes(before, after *state.State) {
	for _, n := range after.SortedNodes() {
		c := NodeChange{Node: n.Name, To: nodeThen(n)}
		if old := before.Nodes[n.Name]; old != nil {
			c.From = nodeThen(old)
		}
		if c.From != c.To {
			d.Nodes = append(d.Nodes, c)
		}
	}
	for _, n := range before.SortedNodes() {
		if after.Nodes[n.Name] == nil {
			d.Nodes = append(d.Nodes, NodeChange{Node: n.Name, From: nodeThen(n)})
		}
	}
}

func nodeThen(n *state.Node) string {
	text := Platform(&n.Facts) + ", ready"
	if !n.Ready {
		text = Platform(&n.Facts) + ", not ready"
	}
	if n.Cordoned {
		text += ", cordoned"
	}
	return text
}

// Text prints it for people.
func (d *Difference) Text(w io.Writer) {
	const layout = "2006-01-02 15:04:05"
	_, _ = fmt.Fprintf(w, "%s (record %d) → %s (record %d)\n", d.From.At.Local().Format(layout), d.From.Seq, d.To.At.Local().Format(layout), d.To.Seq)
	for _, a := range d.Apps {
		_, _ = fmt.Fprintf(w, "application %s  %s → %s%s\n", a.Name, orText(a.From.Short(), "(nothing)"), orText(a.To.Short(), "(removed)"), by(&a.Commit))
	}
	section := func(title string, rows [][]string) {
		if len(rows) > 0 {
			_, _ = fmt.Fprintln(w, title)
			table(w, rows...)
		}
	}
	for i := range d.Desired {
		c := &d.Desired[i]
		_, _ = fmt.Fprintf(w, "%s %s\n", map[string]string{"create": "+", "update": "~", "delete": "-"}[c.Verb], c.Ref)
		var rows [][]string
		for _, f := range c.Fields {
			rows = append(rows, []string{"    " + f.OS, f.Path, orText(f.From, "-") + " → " + orText(f.To, "-")})
		}
		table(w, rows...)
	}
	if d.SameWants > 0 {
		_, _ = fmt.Fprintf(w, "= %s unchanged\n", plural(d.SameWants, "object"))
	}
	var rows [][]string
	for _, s := range d.Replicas {
		rows = append(rows, []string{"  " + Short(s.Workload), s.OS, s.From.String() + " → " + s.To.String()})
	}
	section("ready", rows)
	rows = nil
	for i := range d.Pods {
		p := &d.Pods[i]
		where := strings.Trim(string(p.From)+" → "+string(p.To), " →")
		if p.From == p.To {
			where = string(p.To)
		}
		rows = append(rows, []string{"  " + p.Pod.Name, p.Verb, where, imagesText(p.Images), p.Outcome})
	}
	section("pods", rows)
	if d.SamePods > 0 {
		_, _ = fmt.Fprintf(w, "  %s unchanged\n", plural(d.SamePods, "pod"))
	}
	rows = nil
	for _, n := range d.Nodes {
		rows = append(rows, []string{"  " + string(n.Node), orText(n.From, "-") + " → " + orText(n.To, "gone")})
	}
	section("nodes", rows)
}

func by(a *Author) string {
	if a.Author == "" {
		return ""
	}
	text := "  by " + person(a.Author)
	if a.Signer != "" {
		text += ", signed " + person(a.Signer)
	}
	return text
}
