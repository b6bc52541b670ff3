package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Moment is the answer to: what ran then, where, from which commit, and who
// wrote, signed and allowed it?
type Moment struct {
	Seq          state.Seq  `json:"seq"` // the last record that counts
	At           time.Time  `json:"at"`  // of that record
	Applications []AppThen  `json:"applications"`
	Nodes        []NodeThen `json:"nodes"`
	Pods         []Ran      `json:"pods"`
	Held         []Hold     `json:"held"`
}

// An AppThen is an application as of a moment.
type AppThen struct {
	Name      state.AppName  `json:"name"`
	Revision  state.Revision `json:"revision,omitempty"`
	Commit    Author         `json:"commit,omitzero"`
	Since     time.Time      `json:"since,omitzero"`
	Converged bool           `json:"converged"`
	Rejected  state.Revision `json:"rejected,omitempty"` // a newer commit with problems
}

// A NodeThen is a node as of a moment.
type NodeThen struct {
	Name     state.NodeName `json:"name"`
	Platform string         `json:"platform"`
	Ready    bool           `json:"ready"`
	Cordoned bool           `json:"cordoned,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
}

// An Author says who made a commit. The names come from Git, or are "(erased)".
type Author struct {
	Hash      string `json:"hash,omitempty"`
	Author    string `json:"author,omitempty"`
	Committer string `json:"committer,omitempty"`
	Signer    string `json:"signer,omitempty"`
	Message   string `json:"message,omitempty"`
}

// A Ran is a pod that was there.
type Ran struct {
	Pod       state.Ref      `json:"pod"`
	UID       state.UID      `json:"uid"`
	App       state.AppName  `json:"application,omitempty"`
	Workload  state.Ref      `json:"workload"`
	Node      state.NodeName `json:"node"`
	OS        state.OS       `json:"os"`
	State     string         `json:"state"`
	Ready     bool           `json:"ready"`
	Since     time.Time      `json:"since"` // of the state: ready, else placed
	Placed    state.Seq      `json:"placed"`
	Images    []RanImage     `json:"images"`
	Revision  state.Revision `json:"revision,omitempty"` // that first asked for this template
	Commit    Author         `json:"commit,omitzero"`
	Applied   state.Seq      `json:"applied,omitempty"` // the record of that revision
	AllowedBy []string       `json:"allowedBy,omitempty"`
}

// A RanImage is one container's image: what the agent reported, else what the
// name was resolved to.
type RanImage struct {
	Container string       `json:"container"`
	Image     string       `json:"image"`
	Digest    state.Digest `json:"digest,omitzero"`
	Reported  bool         `json:"reported,omitempty"`
}

// NewMoment says what a state means. past are the log's revisions and approvals
// up to there, in order.
func NewMoment(s *state.State, past []*state.Record, words Words) Moment {
	m := Moment{Seq: s.Seq, At: s.At.Time(), Applications: []AppThen{}, Nodes: []NodeThen{}, Pods: []Ran{}, Held: Holds(s)}
	for _, a := range s.SortedApps() {
		then := AppThen{Name: a.Spec.Name, Revision: a.Revision, Commit: author(&a.Commit, words), Converged: a.Converged}
		if a.AppliedSeq > 0 {
			then.Since = a.AppliedAt.Time()
		}
		if a.Rejected != nil {
			then.Rejected = a.Rejected.Revision
		}
		m.Applications = append(m.Applications, then)
	}
	for _, n := range s.SortedNodes() {
		m.Nodes = append(m.Nodes, NodeThen{n.Name, Platform(&n.Facts), n.Ready, n.Cordoned, n.ReadyChange.Time()})
	}
	for _, p := range s.SortedPods() {
		m.Pods = append(m.Pods, ran(s, p, past, words))
	}
	return m
}

func author(c *state.Commit, words Words) Author {
	return Author{c.Hash, words(c.Author), words(c.Committer), words(c.Signer), firstLine(words(c.Message))}
}

func ran(s *state.State, p *state.Pod, past []*state.Record, words Words) Ran {
	out := Ran{
		Pod: podRef(p.Key), UID: p.UID, Workload: p.Workload, Node: p.Node, OS: p.OS, Ready: p.Ready && !p.Lost, State: podThen(p),
		Since: p.Placed.Time(), Placed: p.PlacedSeq, Images: ranImages(p),
	}
	if p.Ready {
		out.Since = p.ReadySince.Time()
	}
	w := s.Workloads[p.Workload]
	if w == nil {
		return out
	}
	out.App = w.App
	applied := introduced(w, p, past)
	for _, r := range past {
		switch f := r.Fact.(type) {
		case *state.RevisionApplied:
			if r == applied {
				out.Revision, out.Commit, out.Applied = f.Revision, author(&f.Commit, words), r.Seq
			}
		case *state.Released:
			about := f.Object == p.Workload || f.Object == state.Ref{Kind: "Application", Name: string(w.App)}
			if applied != nil && r.Seq > applied.Seq && about && !r.Actor.IsZero() {
				if who := words(r.Actor); !slices.Contains(out.AllowedBy, who) {
					out.AllowedBy = append(out.AllowedBy, who)
				}
			}
		}
	}
	return out
}

// introduced is the revision that a pod's template came from: the newest one
// when the workload was first made from that template.
func introduced(w *state.Workload, p *state.Pod, past []*state.Record) *state.Record {
	made := p.Placed
	if v := w.Variant(p.OS); v != nil {
		for _, h := range v.History {
			if h.Template.Digest == p.Template.Digest && h.Created.Mono <= p.Placed.Mono {
				made = h.Created
			}
		}
	}
	var last *state.Record
	for _, r := range past {
		if _, ok := r.Fact.(*state.RevisionApplied); ok && r.App == w.App && r.At.Mono <= made.Mono {
			last = r
		}
	}
	return last
}

func podThen(p *state.Pod) string {
	switch {
	case p.Lost:
		return "node lost"
	case p.Stopping:
		return "stopping (" + p.StopWhy.String() + ")"
	case p.Flapping:
		return "flapping"
	case p.Ready:
		return "ready"
	case p.Reason != state.ReasonNone:
		return p.Reason.String()
	default:
		return p.Phase.String()
	}
}

func ranImages(p *state.Pod) []RanImage {
	var out []RanImage
	spec := &p.Template.Spec.Spec
	for _, init := range []bool{true, false} {
		containers := spec.Containers
		if init {
			containers = spec.InitContainers
		}
		for i := range containers {
			c := &containers[i]
			im := RanImage{Container: c.Name, Image: c.Image}
			if known, ok := p.Template.Image(c.Image); ok {
				im.Digest = platformDigest(&known, p.OS)
			}
			for j := range p.Containers {
				if st := &p.Containers[j]; st.Name == c.Name && st.Init == init && !st.Image.IsZero() {
					im.Digest, im.Reported = st.Image, true
				}
			}
			out = append(out, im)
		}
	}
	return out
}

// platformDigest is the manifest for an operating system, where the index has
// exactly one, else the index.
func platformDigest(im *state.Image, os state.OS) state.Digest {
	d, n := im.Index, 0
	for i := range im.Platforms {
		if im.Platforms[i].OS == os {
			if n++; n == 1 {
				d = im.Platforms[i].Digest
			}
		}
	}
	if n > 1 {
		return im.Index
	}
	return d
}

// Only keeps the pods of a node and an application; empty: all.
func (m *Moment) Only(node state.NodeName, app state.AppName) {
	m.Pods = slices.DeleteFunc(m.Pods, func(r Ran) bool { return node != "" && r.Node != node || app != "" && r.App != app })
	m.Nodes = slices.DeleteFunc(m.Nodes, func(n NodeThen) bool { return node != "" && n.Name != node })
	m.Applications = slices.DeleteFunc(m.Applications, func(a AppThen) bool { return app != "" && a.Name != app })
	m.Held = slices.DeleteFunc(m.Held, func(h Hold) bool { return app != "" && h.App != app })
}

// Text prints it for people.
func (m *Moment) Text(w io.Writer) {
	_, _ = fmt.Fprintf(w, "as of %s (record %d)\n", m.At.Local().Format("2006-01-02 15:04:05"), m.Seq)
	rows := [][]string{{"APPLICATION", "REVISION", "AUTHOR", "SIGNED", "STATE", "SINCE"}}
	for _, a := range m.Applications {
		condition := "converged"
		switch {
		case a.Rejected != "":
			condition = a.Rejected.Short() + " rejected"
		case !a.Converged:
			condition = "progressing"
		}
		rows = append(rows, []string{string(a.Name), orDash(a.Revision.Short()), person(a.Commit.Author), person(a.Commit.Signer), condition, clock(a.Since, m.At)})
	}
	if len(rows) > 1 {
		table(w, rows...)
		_, _ = fmt.Fprintln(w)
	}
	rows = [][]string{{"POD", "NODE", "STATE", "SINCE", "IMAGE", "COMMIT", "AUTHOR", "SIGNED", "ALLOWED BY"}}
	for i := range m.Pods {
		p := &m.Pods[i]
		rows = append(rows, []string{
			p.Pod.Name, string(p.Node), p.State, clock(p.Since, m.At), imagesText(p.Images), orDash(shortCommit(p.Revision)), person(p.Commit.Author),
			person(p.Commit.Signer), orDash(strings.Join(p.AllowedBy, ", ")),
		})
	}
	if len(rows) == 1 {
		_, _ = fmt.Fprintln(w, "no pods")
		return
	}
	table(w, rows...)
}

// person is a name without the address.
func person(s string) string {
	name, _, _ := strings.Cut(s, " <")
	return orDash(firstLine(name))
}

func imagesText(ims []RanImage) string {
	var out []string
	for _, im := range ims {
		tag := im.Image
		if i := strings.LastIndexByte(tag, '/'); i >= 0 {
			tag = tag[i+1:]
		}
		if im.Digest.IsZero() {
			out = append(out, tag+" (not resolved)")
			continue
		}
		out = append(out, im.Digest.Short()+"… ("+tag+")")
	}
	return orDash(strings.Join(out, ", "))
}
