package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan/promote"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Pipelines is how pipelines stand.
type Pipelines struct {
	Pipelines []Pipeline `json:"pipelines"`
}

// A Pipeline is one of them.
type Pipeline struct {
	Name   string          `json:"name"`
	Stages []PipelineStage `json:"stages"`
}

// A PipelineStage is a stage, what its branch has, and what may come next.
type PipelineStage struct {
	Name        string          `json:"name"`
	Application string          `json:"application"`
	Commit      string          `json:"commit,omitempty"`
	State       string          `json:"state"`
	Candidate   string          `json:"candidate,omitempty"`
	Commits     int32           `json:"commits,omitempty"` // between the branch and the candidate
	Gates       []PipelineGate  `json:"gates,omitempty"`
	Promotions  []PromotionLine `json:"promotions,omitempty"`
}

// A PipelineGate is how one gate stands.
type PipelineGate struct {
	Gate   string `json:"gate"`
	Pass   bool   `json:"pass"`
	Detail string `json:"detail,omitempty"`
}

// A PromotionLine is a promotion that hasn't ended.
type PromotionLine struct {
	ID     string `json:"id"`
	Commit string `json:"commit"`
	State  string `json:"state"` // waits, moves
	By     string `json:"by,omitempty"`
}

// NewPipelines tells of one pipeline, or of all where name is empty.
func NewPipelines(s *state.State, name string, now time.Time, words func(state.Text) string) Pipelines {
	out := Pipelines{Pipelines: []Pipeline{}}
	at := state.Instant{Mono: s.At.Mono + max(0, time.Duration(now.UnixNano()-s.At.Wall)), Wall: max(now.UnixNano(), s.At.Wall)}
	for _, l := range s.SortedLines() {
		if name != "" && string(l.Spec.Name) != name {
			continue
		}
		p := Pipeline{Name: string(l.Spec.Name)}
		for i := range l.Spec.Stages {
			if st, ok := promote.Stand(s, l, l.Spec.Stages[i].Name, at); ok {
				p.Stages = append(p.Stages, newStage(&st, at, words))
			}
		}
		out.Pipelines = append(out.Pipelines, p)
	}
	return out
}

func newStage(st *promote.Standing, now state.Instant, words func(state.Text) string) PipelineStage {
	out := PipelineStage{Name: st.Stage.Name, Application: string(st.Stage.App), Commit: st.Up.Head.Hash, State: "not seen yet"}
	if t := st.Up.Current(); t != nil {
		switch {
		case t.Failed:
			out.State = "failed"
		case t.Healthy:
			out.State = "healthy for " + t.Soak(now).Round(time.Second).String()
		default:
			out.State = "progressing"
		}
	}
	if st.Up.Suspended {
		out.State += ", suspended"
	}
	if st.Candidate != nil {
		out.Candidate = st.Candidate.Commit.Hash
	}
	if st.Review != nil {
		out.Commits = st.Review.Commits
	}
	for i := range st.Gates {
		r := &st.Gates[i]
		if always := r.Gate == state.GateBranch || r.Gate == state.GateQueue || r.Gate == state.GateSuspended || r.Gate == state.GateQuarantine; always && r.Pass {
			continue
		}
		out.Gates = append(out.Gates, PipelineGate{Gate: gateName(r), Pass: r.Pass, Detail: gateDetail(r, st.Review, now, words)})
	}
	for _, p := range st.Open {
		line := PromotionLine{ID: p.ID, Commit: p.Commit.Hash, State: "waits"}
		if p.Rollback {
			line.State = "rolls back"
		}
		if p.Started != nil {
			line.State = "moves the branch"
		}
		if !p.By.IsZero() {
			line.By = words(p.By)
		}
		out.Promotions = append(out.Promotions, line)
	}
	return out
}

func gateName(r *promote.Result) string {
	if r.Gate == state.GateHealthy && r.Want > 0 {
		return "healthy " + shortSpan(time.Duration(r.Want))
	}
	return r.Gate.String()
}

// shortSpan is "1h" where the standard library says "1h0m0s".
func shortSpan(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// gateDetail is what people want to know of a gate.
func gateDetail(r *promote.Result, review *state.Review, now state.Instant, words func(state.Text) string) string {
	switch r.Gate {
	case state.GatePlan:
		switch {
		case r.Have < 0:
			return "not looked at yet"
		case review != nil && review.Problems > 0:
			return fmt.Sprintf("%s: %s", plural(int(review.Problems), "problem"), words(review.Detail))
		case r.Have > 0:
			return plural(int(r.Have), "hold")
		default:
			return "no problems, nothing held"
		}
	case state.GateHealthy:
		text := time.Duration(r.Have).Round(time.Second).String()
		if !r.Pass && r.Have > 0 {
			text += "; passes at " + now.Add(time.Duration(r.Want-r.Have)).Time().Format("15:04:05") + " UTC if it stays so"
		}
		return text
	case state.GateSigned:
		return fmt.Sprintf("%d of %s, by %s", r.Have, plural(int(r.Want), "commit"), r.Name)
	case state.GateApprovals:
		return approvalsDetail(r, words)
	case state.GateWindow:
		return windowText(r.Spec)
	case state.GateExternal:
		said := "yes"
		if r.Have < 1 {
			said = [...]string{"no answer yet", "no"}[r.Have+1]
		}
		return withWhy(r.Name+": "+said, r.Why, words)
	case state.GateJobs:
		return r.JobSays()
	case state.GateFreeze:
		return withWhy(r.Name, r.Why, words)
	case state.GateBranch, state.GateQueue:
		return r.Name
	case state.GateQuarantine:
		return "the tree failed before: push a newer commit, or promote with --override"
	case state.GateSuspended:
		if r.Want > 0 {
			return withWhy("until "+time.Unix(0, r.Want).UTC().Format(time.RFC3339), r.Why, words)
		}
		return withWhy("until resumed", r.Why, words)
	}
	return ""
}

// withWhy adds the words of who said it.
func withWhy(text string, why state.Text, words func(state.Text) string) string {
	if why.IsZero() {
		return text
	}
	return text + ": " + words(why)
}

func approvalsDetail(r *promote.Result, words func(state.Text) string) string {
	text := fmt.Sprintf("%d of %d", r.Have, r.Want)
	var by []string
	for _, who := range r.By {
		by = append(by, words(who))
	}
	if len(by) > 0 {
		text += " (" + strings.Join(by, ", ") + ")"
	}
	if r.Pass || r.Spec == nil {
		return text
	}
	var may []string
	for _, g := range r.Spec.Groups {
		may = append(may, "group:"+g)
	}
	for _, u := range r.Spec.Users {
		may = append(may, words(u))
	}
	text += "; may approve: " + strings.Join(may, ", ")
	if r.Spec.NotAuthor {
		text += ", but no author"
	}
	return text
}

func windowText(g *state.Gate) string {
	if g == nil {
		return ""
	}
	var days []string
	for d := time.Sunday; d <= time.Saturday; d++ {
		if g.Days&(1<<d) != 0 {
			days = append(days, d.String()[:3])
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s %02d:%02d–%02d:%02d %s", strings.Join(days, " "), g.From/60, g.From%60, g.To/60, g.To%60, g.Zone))
}

// Text prints it for people.
func (p *Pipelines) Text(w io.Writer) {
	for i := range p.Pipelines {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		rows := [][]string{{"PIPELINE", "STAGE", "APPLICATION", "COMMIT", "STATE", "NEXT"}}
		for _, s := range p.Pipelines[i].Stages {
			rows = append(rows, []string{p.Pipelines[i].Name, s.Name, s.Application, orText(short7(s.Commit), "-"), s.State, orText(short7(s.Candidate), "-")})
		}
		table(w, rows...)
		for _, s := range p.Pipelines[i].Stages {
			s.text(w, p.Pipelines[i].Name)
		}
	}
	if len(p.Pipelines) == 0 {
		_, _ = fmt.Fprintln(w, "there is no pipeline")
	}
}

func (s *PipelineStage) text(w io.Writer, pipeline string) {
	if len(s.Gates) == 0 && len(s.Promotions) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\n%s/%s: %s → %s", pipeline, s.Name, orText(short7(s.Commit), "-"), orText(short7(s.Candidate), "-"))
	if s.Commits > 0 {
		_, _ = fmt.Fprintf(w, " (%s)", plural(int(s.Commits), "commit"))
	}
	_, _ = fmt.Fprintln(w)
	var rows [][]string
	for _, g := range s.Gates {
		pass := "no"
		if g.Pass {
			pass = "yes"
		}
		rows = append(rows, []string{"  " + g.Gate, pass, g.Detail})
	}
	table(w, rows...)
	for _, p := range s.Promotions {
		_, _ = fmt.Fprintf(w, "  %s  %s  %s", p.ID, short7(p.Commit), p.State)
		if p.By != "" {
			_, _ = fmt.Fprintf(w, ", asked for by %s", p.By)
		}
		_, _ = fmt.Fprintln(w)
	}
}

func short7(commit string) string { return commit[:min(7, len(commit))] }
