package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown prints a plan as a comment for a pull request: what matters in
// sight, the rest folded. What people wrote is put into code, so that it
// can't be taken for markup.
func (p *Plan) Markdown(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	say("### Tandem plan: %s\n\n%s → %s · %s\n\n", code(string(p.App)), code(orText(p.From.Short(), "(nothing)")), code(p.To), p.summary())
	for _, why := range p.Refused {
		say("> **Nothing of it would be applied**: %s\n\n", code(why))
	}
	for i := range p.Held {
		h := &p.Held[i]
		say("> **Held** %s  \n", code(h.head()))
		switch {
		case len(h.Fits) > 0:
			say("> would fit with: %s\n\n", code(strings.Join(h.Fits, ", or ")))
		case h.Fix != "":
			say("> fix: %s\n\n", code(h.Fix))
		default:
			say("\n")
		}
	}
	if len(p.Changes) > 0 {
		say("| | object | OS | field | from | to |\n|---|---|---|---|---|---|\n")
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		if len(c.Fields) == 0 {
			say("| %s | %s | | | | |\n", c.Verb, code(c.Ref.String()))
		}
		for k, f := range c.Fields {
			verb, ref := "", ""
			if k == 0 {
				verb, ref = c.Verb, code(c.Ref.String())
			}
			say("| %s | %s | %s | %s | %s | %s |\n", verb, ref, f.OS, cell(f.Path), cell(f.From), cell(f.To))
		}
	}
	if len(p.Changes) > 0 {
		say("\n")
	}
	p.markdownDetails(w)
	if p.Same > 0 {
		say("%s unchanged, ", plural(p.Same, "object"))
	}
	say("%s%s\n", p.removes(), p.placed())
}

// summary is "2 to create, 1 to update, 0 to remove, 1 held".
func (p *Plan) summary() string {
	n := map[string]int{}
	for i := range p.Changes {
		n[planMark(p.Changes[i].Verb)]++
	}
	if !p.Changed() {
		return "no changes"
	}
	text := fmt.Sprintf("%d to create, %d to update, %d to remove", n["+"], n["~"], n["-"])
	if len(p.Held) > 0 {
		text += fmt.Sprintf(", **%d held**", len(p.Held))
	}
	return text
}

func (p *Plan) markdownDetails(w io.Writer) {
	fold := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		_, _ = fmt.Fprintf(w, "<details><summary>%s</summary>\n\n```text\n%s\n```\n\n</details>\n\n", title, strings.ReplaceAll(strings.Join(lines, "\n"), "```", "'''"))
	}
	var order, pods, nodes, reasons, images []string
	for i := range p.Rollouts {
		order = append(order, p.Rollouts[i].line())
	}
	fold(fmt.Sprintf("Order: %s", plural(len(p.Rollouts), "workload")), append(order, p.evictionLines()...))
	pods = append(append(pods, p.places()...), p.caps()...)
	for i := range p.Nodes {
		n := &p.Nodes[i]
		nodes = append(nodes, fmt.Sprintf("%s  %s, %s then", n.Name, plusMinus(n.Plus, n.Minus), plural(n.Pods, "pod")))
	}
	fold(fmt.Sprintf("Places: %s", plural(len(p.Pods), "pod")), pods)
	fold(fmt.Sprintf("Nodes: %s", plural(len(p.Nodes), "node")), nodes)
	for i := range p.Images {
		im := &p.Images[i]
		images = append(images, im.Name+"  "+orText(im.Digest, "not looked up: "+im.Failure)+"  "+strings.Join(im.Platforms, ", "))
	}
	fold("Images", images)
	for i := range p.Held {
		reasons = append(reasons, p.Held[i].head())
		for _, n := range p.Held[i].Nodes {
			reasons = append(reasons, "  "+n)
		}
	}
	fold("Why held", reasons)
	fold("Notes", p.Notes)
}

func (p *Plan) evictionLines() []string {
	var out []string
	for _, e := range p.evictions() {
		out = append(out, "evicts "+e)
	}
	return out
}

// code is inline code, whatever the text has in it.
func code(s string) string {
	s = strings.NewReplacer("\n", " ", "\r", " ").Replace(s)
	if !strings.Contains(s, "`") {
		return "`" + s + "`"
	}
	return "``` " + strings.ReplaceAll(s, "```", "'''") + " ```"
}

// cell is code within a table.
func cell(s string) string {
	if s == "" {
		return ""
	}
	return code(strings.ReplaceAll(s, "|", "\\|"))
}
