package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// planMark is the sign of a change in text.
func planMark(verb string) string {
	switch verb {
	case "create":
		return "+"
	case "update", "adopt":
		return "~"
	case "delete", "retire":
		return "-"
	default:
		return "="
	}
}

// Text prints it for people.
func (p *Plan) Text(w io.Writer) { p.text(w, false) }

// Wide prints it with every pod on a line.
func (p *Plan) Wide(w io.Writer) { p.text(w, true) }

func (p *Plan) text(w io.Writer, wide bool) {
	_, _ = fmt.Fprintf(w, "%s  %s → %s\n", p.App, orText(p.From.Short(), "(nothing)"), p.To)
	for _, why := range p.Refused {
		_, _ = fmt.Fprintf(w, "! nothing of it would be applied: %s\n", why)
	}
	for i := range p.Changes {
		p.Changes[i].text(w)
	}
	if p.Same > 0 {
		_, _ = fmt.Fprintf(w, "= %s unchanged\n", plural(p.Same, "object"))
	}
	p.textImages(w)
	p.textRollouts(w)
	for _, line := range p.evictions() {
		_, _ = fmt.Fprintf(w, "evicts  %s\n", line)
	}
	if wide {
		var rows [][]string
		for i := range p.Pods {
			x := &p.Pods[i]
			rows = append(rows, []string{"pod     " + x.Pod, "on " + string(x.Node), strings.TrimSpace(string(x.OS) + " " + string(x.Isolation)), fmt.Sprintf("round %d", x.Round)})
		}
		table(w, rows...)
	}
	for i := range p.Held {
		p.Held[i].text(w)
	}
	for _, n := range p.Notes {
		_, _ = fmt.Fprintf(w, "note    %s\n", n)
	}
	_, _ = fmt.Fprintf(w, "%s%s\n", p.removes(), p.placed())
}

func (c *PlanChange) text(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s %s", planMark(c.Verb), c.Ref)
	switch c.Verb {
	case "keep":
		_, _ = fmt.Fprint(w, "  (left the text, and is kept)")
	case "adopt":
		_, _ = fmt.Fprint(w, "  (moves here from another application)")
	}
	_, _ = fmt.Fprintln(w)
	var rows [][]string
	for _, f := range c.Fields {
		rows = append(rows, []string{"    " + f.OS, f.Path, orText(f.From, "-") + " → " + orText(f.To, "-")})
	}
	table(w, rows...)
}

func (p *Plan) textImages(w io.Writer) {
	for i := range p.Images {
		im := &p.Images[i]
		if im.Failure != "" {
			_, _ = fmt.Fprintf(w, "image   %s: could not be looked up (%s)\n", im.Name, im.Failure)
			continue
		}
		_, _ = fmt.Fprintf(w, "image   %s is %s: %s\n", im.Name, im.Digest[:min(len(im.Digest), 15)]+"…", strings.Join(im.Platforms, ", "))
	}
}

func (p *Plan) textRollouts(w io.Writer) {
	head := "order   "
	for i := range p.Rollouts {
		_, _ = fmt.Fprintf(w, "%s%s\n", head, p.Rollouts[i].line())
		head = "        "
	}
	head = "places  "
	for _, line := range p.places() {
		_, _ = fmt.Fprintf(w, "%s%s\n", head, line)
		head = "        "
	}
	head = "cpu     "
	for _, line := range p.caps() {
		_, _ = fmt.Fprintf(w, "%s%s\n", head, line)
		head = "        "
	}
	var nodes []string
	for i := range p.Nodes {
		n := &p.Nodes[i]
		nodes = append(nodes, fmt.Sprintf("%s %s (%d)", n.Name, plusMinus(n.Plus, n.Minus), n.Pods))
	}
	if len(nodes) > 0 {
		_, _ = fmt.Fprintf(w, "nodes   %s\n", shorten(nodes, "  ", maxPlanNodes))
	}
}

// maxPlanNodes is how many nodes one line of text names.
const maxPlanNodes = 12

// shorten joins at most so many parts.
func shorten(parts []string, sep string, most int) string {
	if len(parts) <= most {
		return strings.Join(parts, sep)
	}
	return strings.Join(parts[:most], sep) + sep + fmt.Sprintf("and %d more", len(parts)-most)
}

func plusMinus(plus, minus int) string {
	switch {
	case minus == 0:
		return fmt.Sprintf("+%d", plus)
	case plus == 0:
		return fmt.Sprintf("−%d", minus)
	default:
		return fmt.Sprintf("+%d −%d", plus, minus)
	}
}

// line is "web: 4 linux, 2 windows pods start, 4 stop; ≤ 1 unavailable, ≤ 1 more; 6 rounds".
func (r *PlanRollout) line() string {
	var starts []string
	if r.Linux > 0 {
		starts = append(starts, fmt.Sprintf("%d linux", r.Linux))
	}
	if r.Windows > 0 {
		starts = append(starts, fmt.Sprintf("%d windows", r.Windows))
	}
	var parts []string
	if n := r.Linux + r.Windows; n > 0 {
		pods := "pods start"
		if n == 1 {
			pods = "pod starts"
		}
		parts = append(parts, strings.Join(starts, ", ")+" "+pods)
	}
	if r.Stopped > 0 {
		verb := "stop"
		if r.Stopped == 1 {
			verb = "stops"
		}
		parts = append(parts, fmt.Sprintf("%d %s", r.Stopped, verb))
	}
	text := Short(r.Workload) + ": " + strings.Join(parts, ", ")
	if r.Budget != "" {
		text += "; " + r.Budget
	}
	if len(r.Order) > 1 {
		text += "; in order: " + shorten(r.Order, ", ", 6)
	} else if r.Rounds > 1 {
		text += fmt.Sprintf("; %d rounds", r.Rounds)
	}
	return text
}

// places are the workloads with the nodes that their new pods would be on.
func (p *Plan) places() []string {
	type key struct {
		workload state.Ref
		os       state.OS
	}
	count := map[key]map[state.NodeName]int{}
	how := map[key]map[state.Isolation]bool{}
	var order []key
	for i := range p.Pods {
		x := &p.Pods[i]
		k := key{x.Workload, x.OS}
		if count[k] == nil {
			count[k], how[k] = map[state.NodeName]int{}, map[state.Isolation]bool{}
			order = append(order, k)
		}
		count[k][x.Node]++
		if x.Isolation != state.NoIsolation {
			how[k][x.Isolation] = true
		}
	}
	var out []string
	for _, k := range order {
		var nodes []string
		for _, n := range slices.Sorted(maps.Keys(count[k])) {
			if c := count[k][n]; c > 1 {
				nodes = append(nodes, fmt.Sprintf("%s ×%d", n, c))
			} else {
				nodes = append(nodes, string(n))
			}
		}
		text := []string{fmt.Sprintf("%s %s on %s", Short(k.workload), k.os, shorten(nodes, ", ", maxPlanNodes))}
		for _, iso := range slices.Sorted(maps.Keys(how[k])) {
			text = append(text, isolationText(iso))
		}
		out = append(out, strings.Join(text, ", "))
	}
	return out
}

// caps says what Windows makes of limits of processor.
func (p *Plan) caps() []string {
	var out []string
	for i := range p.CPUCaps {
		out = append(out, Short(p.CPUCaps[i].Workload)+" "+p.CPUCaps[i].String())
	}
	return out
}

func isolationText(i state.Isolation) string {
	if i == state.HyperV {
		over := state.HyperVOverhead()
		return fmt.Sprintf("Hyper-V isolation (%d MiB and %d CPUs more each)", over.Memory>>20, over.MilliCPU/1000)
	}
	return string(i) + " isolation"
}

// evictions are the pods of workloads that aren't changed but have to give way.
func (p *Plan) evictions() []string {
	changed := map[state.Ref]bool{}
	for i := range p.Changes {
		changed[p.Changes[i].Ref] = true
	}
	var out []string
	for i := range p.Stops {
		if s := &p.Stops[i]; !changed[s.Workload] {
			out = append(out, fmt.Sprintf("%s on %s (%s)", s.Pod, s.Node, s.Why))
		}
	}
	return out
}

func (h *PlanHold) text(w io.Writer) {
	_, _ = fmt.Fprintf(w, "held    %s\n", h.head())
	for _, n := range h.Nodes {
		_, _ = fmt.Fprintf(w, "          %s\n", n)
	}
	switch {
	case len(h.Fits) > 0:
		_, _ = fmt.Fprintf(w, "          would fit with: %s\n", strings.Join(h.Fits, ", or "))
	case h.Fix != "":
		_, _ = fmt.Fprintf(w, "          fix: %s\n", h.Fix)
	}
}

func (h *PlanHold) head() string {
	text := strings.TrimSpace(Short(h.Object)+" "+string(h.OS)) + ": " + h.Text
	if h.Before {
		text += " (as it is now)"
	}
	return text
}

func (p *Plan) removes() string {
	n := 0
	for i := range p.Changes {
		if v := p.Changes[i].Verb; v == "delete" || v == "retire" {
			n++
		}
	}
	if n == 0 {
		return "removes nothing."
	}
	return fmt.Sprintf("removes %s.", plural(n, "object"))
}

// placed sums up how it ends: "; 7 of 8 pods fit".
func (p *Plan) placed() string {
	lack := 0
	for i := range p.Held {
		lack += int(p.Held[i].Pods)
	}
	if lack == 0 {
		return cmp.Or(map[bool]string{true: " " + plural(len(p.Pods), "pod") + " to start, all fit."}[len(p.Pods) > 0], "")
	}
	return fmt.Sprintf(" %s to start; held: %s.", plural(len(p.Pods), "pod"), plural(lack, "pod"))
}
