package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Why is the answer to: why is this object as it is?
type Why struct {
	Ref     state.Ref `json:"ref"`
	State   string    `json:"state"`
	Because []Because `json:"because"`
	Held    []Hold    `json:"held,omitempty"`
	Records []Line    `json:"records"` // that were used, oldest first
	At      time.Time `json:"at"`
	AsOf    state.Seq `json:"asOf,omitempty"` // the last record that counts, where a past moment was asked about
}

// A Because is one cause, nearest first.
type Because struct {
	Text   string    `json:"text"`
	Detail []string  `json:"detail,omitempty"`
	Seq    state.Seq `json:"seq,omitempty"`
}

// An Inquiry gathers, record by record, what Why needs of the log.
type Inquiry struct {
	ref      state.Ref
	workload state.Ref
	app      state.AppName
	pod      state.UID

	decided  map[state.OS]*state.Record
	placed   *state.Record
	answered *state.Record // the decision that placed the pod
	revised  map[state.OS]*state.Record
	applied  *state.Record
	stopping *state.Record
	stalled  *state.Record
	degraded *state.Record
	asked    *state.Record
	node     *state.Record
	observed *state.Record
	bound    *state.Record
	dropped  *state.Record
	causes   map[state.Seq]*state.Record // commands, by position
	then     map[state.Seq][]string      // the nodes' reasons, as they were when decided
}

// NewInquiry asks about one object.
func NewInquiry(ref state.Ref) *Inquiry {
	return &Inquiry{ref: ref, decided: map[state.OS]*state.Record{}, revised: map[state.OS]*state.Record{}, causes: map[state.Seq]*state.Record{}, then: map[state.Seq][]string{}}
}

// Begin looks up to which workload and application the object belongs.
func (q *Inquiry) Begin(s *state.State) {
	switch q.ref.Kind {
	case "Pod":
		if p := s.ByName[state.PodKey{Namespace: q.ref.Namespace, Name: q.ref.Name}]; p != nil {
			q.pod, q.workload = p.UID, p.Workload
		}
	case "Application":
		q.app = state.AppName(q.ref.Name)
	default:
		q.workload = q.ref
	}
	if o := s.Objects[q.workload]; o != nil {
		q.app = o.App
	} else if o := s.Objects[q.ref]; o != nil {
		q.app = o.App
	}
}

// Read takes one record.
func (q *Inquiry) Read(r *state.Record) {
	switch f := r.Fact.(type) {
	case *state.Decided:
		if f.Workload == q.workload {
			q.decided[f.OS] = r
		}
	case *state.Revised:
		if f.Workload == q.workload {
			q.revised[f.OS] = r
		}
	case *state.PodPlaced:
		if q.ref.Kind == "Pod" && podRef(f.Pod) == q.ref {
			q.placed, q.answered = r, nil
			for _, d := range q.decided {
				if d.Seq == r.Cause {
					q.answered = d
				}
			}
		}
	case *state.PodStopping:
		if f.UID == q.pod && !q.pod.IsZero() {
			q.stopping = r
		}
	case *state.PodObserved:
		if f.UID == q.pod && !q.pod.IsZero() {
			q.observed = r
		}
	case *state.RolledOut:
		if f.Workload == q.workload {
			q.stalled = nil
		}
	case *state.Stalled:
		if f.Workload == q.workload {
			q.stalled = r
		}
	case *state.RevisionApplied:
		if r.App == q.app && q.app != "" && q.changes(f) {
			q.applied = r
		}
	case *state.Converged:
		if r.App == q.app {
			q.degraded = nil
		}
	case *state.Degraded:
		if r.App == q.app {
			q.degraded = r
		}
	case *state.Commanded:
		q.causes[r.Seq] = r
		if f.Object == q.ref || f.Object == q.workload && !q.workload.IsZero() {
			q.asked = r
		}
	case *state.ClaimBound:
		if f.Claim == q.ref {
			q.bound, q.dropped = r, nil
		}
	case *state.ClaimDropped:
		if f.Claim == q.ref {
			q.dropped = r
		}
	case *state.NodeReady:
		q.ofNode(f.Node, r)
	case *state.NodeLost:
		q.ofNode(f.Node, r)
	case *state.NodeCordoned:
		q.ofNode(f.Node, r)
	default:
	}
}

func (q *Inquiry) ofNode(name state.NodeName, r *state.Record) {
	if q.ref.Kind == "Node" && q.ref.Name == string(name) {
		q.node = r
	}
}

// changes says whether a revision touched the object, or its workload.
func (q *Inquiry) changes(f *state.RevisionApplied) bool {
	if q.ref.Kind == "Application" || q.applied == nil {
		return true
	}
	return slices.ContainsFunc(f.Changes, func(c state.Change) bool { return c.Ref == q.workload || c.Ref == q.ref })
}

// Answer puts the causes together, nearest first.
func (q *Inquiry) Answer(s *state.State, words Words) Why {
	d := NewDetail(s, q.ref, words)
	w := Why{Ref: q.ref, State: d.State, Because: []Because{}, Held: d.Held, Records: []Line{}, At: s.At.Time()}
	teller := NewTeller(s, words)
	used := map[state.Seq]*state.Record{}
	add := func(r *state.Record, text string, detail ...string) {
		b := Because{Text: text, Detail: detail}
		if r != nil {
			b.Seq = r.Seq
			used[r.Seq] = r
			if c := q.causes[r.Cause]; c != nil {
				used[c.Seq] = c
				b.Detail = append(b.Detail, commanded(c, words))
			}
		}
		w.Because = append(w.Because, b)
	}
	tell := func(r *state.Record) string {
		l := teller.Tell(r)
		return strings.TrimSpace(l.What + " " + l.Outcome + after(": ", l.Reason))
	}
	if q.stopping != nil {
		add(q.stopping, tell(q.stopping))
	} else if q.observed != nil {
		add(q.observed, "its agent says: "+tell(q.observed))
	}
	if q.node != nil {
		add(q.node, tell(q.node))
	}
	for _, r := range []*state.Record{q.dropped, q.bound} {
		if r != nil {
			add(r, tell(r))
		}
	}
	if q.stalled != nil {
		add(q.stalled, "the rollout makes no progress within its deadline")
	}
	if q.ref.Kind == "Application" && q.degraded != nil {
		add(q.degraded, tell(q.degraded))
	}
	if q.placed != nil {
		add(q.placed, tell(q.placed))
	}
	q.decisions(s, add)
	q.wanted(s, add, words)
	if q.asked != nil && used[q.asked.Seq] == nil {
		add(q.asked, commanded(q.asked, words))
	}
	if q.applied != nil {
		q.commit(s, add, words)
	}
	seqs := make([]state.Seq, 0, len(used))
	for seq := range used {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		w.Records = append(w.Records, teller.Tell(used[seq]))
	}
	return w
}

func commanded(r *state.Record, words Words) string {
	f, ok := r.Fact.(*state.Commanded)
	if !ok {
		return ""
	}
	out := "asked: " + f.Verb.String() + " by " + words(r.Actor)
	if !f.Reason.IsZero() {
		out += ", " + words(f.Reason)
	}
	return out
}

// Decisions are the scheduler's answers that count, oldest first: the one that
// placed the pod, else the newest of each variant of the workload.
func (q *Inquiry) Decisions(s *state.State) []*state.Record {
	if q.answered != nil && s.Pods[q.pod] != nil {
		return []*state.Record{q.answered}
	}
	var out []*state.Record
	w := s.Workloads[q.workload]
	if w == nil {
		return nil
	}
	for os, r := range q.decided {
		if p := s.Pods[q.pod]; p != nil && w.Variant(p.OS) != nil && w.Variant(p.OS).OS != os {
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *state.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

// Explain says the nodes' reasons of one decision with the amounts of the state
// in which its pods had just been placed. A decision that isn't explained so is
// told with the amounts as they are when Answer is asked.
func (q *Inquiry) Explain(s *state.State, decision *state.Record) {
	if f, ok := decision.Fact.(*state.Decided); ok {
		q.then[decision.Seq] = append(nodeReasons(s, f), fits(s, f)...)
	}
}

// decisions are the scheduler's answers, with every node that it refused.
func (q *Inquiry) decisions(s *state.State, add func(*state.Record, string, ...string)) {
	for _, r := range q.Decisions(s) {
		f, ok := r.Fact.(*state.Decided)
		if !ok {
			continue
		}
		why, told := q.then[r.Seq]
		if !told {
			why = append(nodeReasons(s, f), fits(s, f)...)
		}
		add(r, fmt.Sprintf("scheduler placed %d of %d %s", f.Placed, f.Asked, strings.TrimSpace(string(f.OS)+" pods")), why...)
	}
}

// nodeReasons says each node's reason, nodes with the same words together.
func nodeReasons(s *state.State, f *state.Decided) []string {
	byIndex := map[uint32]*state.Node{}
	for _, n := range s.Nodes {
		byIndex[n.Index] = n
	}
	template, err := s.Template(f.Template)
	if err != nil {
		template = &state.Template{} // of its reasons the codes are left
	}
	explain := schedule.NewExplainer(s, template)
	var order []string
	nodes := map[string][]string{}
	for _, g := range f.Groups {
		at := uint32(0)
		for _, step := range g.Nodes {
			at += step
			n := byIndex[at]
			if n == nil {
				continue
			}
			why := explain.Node(n, g.Reason)
			if nodes[why] == nil {
				order = append(order, why)
			}
			nodes[why] = append(nodes[why], string(n.Name))
		}
	}
	var out []string
	for _, why := range order {
		out = append(out, strings.Join(nodes[why], ", ")+"   "+why)
	}
	return out
}

// fits says what would make one more pod fit, where some didn't.
func fits(s *state.State, f *state.Decided) []string {
	t, err := s.Template(f.Template)
	if err != nil || f.Placed >= f.Asked {
		return nil
	}
	var out []string
	for _, how := range schedule.Remedy(s, t, f.Groups) {
		out = append(out, "fits if  "+how)
	}
	return out
}

// wanted says what the workload wants and has.
func (q *Inquiry) wanted(s *state.State, add func(*state.Record, string, ...string), _ Words) {
	w := s.Workloads[q.workload]
	if w == nil {
		return
	}
	v := NewWorkload(s, w)
	var parts []string
	for _, variant := range w.Variants {
		n := 0
		for _, p := range w.Pods {
			if !p.Stopping && w.Variant(p.OS) == variant {
				n++
			}
		}
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s wants %d, has %d", variant.OS, variant.Replicas, n)))
	}
	var revised *state.Record
	for _, r := range q.revised {
		if revised == nil || r.Seq > revised.Seq {
			revised = r
		}
	}
	add(revised, fmt.Sprintf("%s: %s, %s ready", w.Ref, strings.Join(parts, "; "), v.Pods))
}

// commit is the end of the chain: who wrote it, and where.
func (q *Inquiry) commit(s *state.State, add func(*state.Record, string, ...string), words Words) {
	f, ok := q.applied.Fact.(*state.RevisionApplied)
	if !ok {
		return
	}
	text := f.Revision.Short()
	if !f.Commit.Message.IsZero() {
		text += fmt.Sprintf(" %q", firstLine(words(f.Commit.Message)))
	}
	if !f.Commit.Author.IsZero() {
		text += " by " + firstLine(words(f.Commit.Author))
	}
	if !f.Commit.Signer.IsZero() {
		text += ", signed " + firstLine(words(f.Commit.Signer))
	}
	var where []string
	for _, ref := range []state.Ref{q.ref, q.workload} {
		if o := s.Objects[ref]; o != nil && len(where) == 0 {
			for i := range o.Object.Variants {
				if at := o.Object.Variants[i].Origin; at.Path != "" {
					at.Revision = ""
					where = append(where, at.String())
				}
			}
		}
	}
	add(q.applied, text, slices.Compact(where)...)
}

// Text prints it for people.
func (w *Why) Text(out io.Writer) {
	_, _ = fmt.Fprintf(out, "%s: %s\n", w.Ref, w.State)
	if w.AsOf > 0 {
		_, _ = fmt.Fprintf(out, " as of    record %d, %s\n", w.AsOf, w.At.Local().Format(time.DateTime))
	}
	for i := range w.Held {
		_, _ = fmt.Fprintf(out, " held     %s  %s, for %s\n", w.Held[i].ID, w.Held[i].Text, ago(w.At.Sub(w.Held[i].Since)))
		if w.Held[i].Fix != "" {
			_, _ = fmt.Fprintf(out, "          fix: %s\n", w.Held[i].Fix)
		}
	}
	for _, b := range w.Because {
		_, _ = fmt.Fprintf(out, " because  %s\n", b.Text)
		for _, d := range b.Detail {
			_, _ = fmt.Fprintf(out, "            %s\n", d)
		}
	}
	if n := len(w.Records); n > 0 {
		_, _ = fmt.Fprintf(out, " records  %d to %d\n", w.Records[0].Seq, w.Records[n-1].Seq)
	}
}
