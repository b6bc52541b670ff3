package promote

import (
	"fmt"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Result is how a gate stands.
type Result struct {
	Gate state.GateKind `json:"gate"`
	Pass bool           `json:"pass"`
	Name string         `json:"name,omitempty"` // external: of the check; job: its CronJob; signed: the signers' path; branch: what is wrong
	Have int64          `json:"have,omitempty"` // healthy: nanoseconds; approvals; signed commits; problems; holds; external: -1 no answer, 0 no, 1 yes; job: JobLacks to JobRuns
	Want int64          `json:"want,omitempty"`

	Votes   []state.Seq  `json:"votes,omitempty"` // approvals: the records of those that count; external: of the answer
	Why     state.Text   `json:"-"`               // freeze, suspended, external: in the words of who said it
	By      []state.Text `json:"-"`               // who said yes and counts
	Authors []state.Text `json:"-"`               // who may not, as an author
	Spec    *state.Gate  `json:"-"`               // as written; nil for those that are always there

	// wake is the steady time at which it passes, or no longer does, by itself.
	wake time.Duration
}

// A view is one stage with all that its gates look at.
type view struct {
	s     *state.State
	line  *state.Line
	stage *state.Stage
	up    *state.LineUp
	now   state.Instant
}

// gates judges going to a commit. Nothing unknown passes.
func (v *view) gates(commit *state.Commit, p *state.Promotion) []Result {
	out := []Result{v.branch(), v.plan(commit), v.quarantine(commit, p)}
	for i := range v.stage.Gates {
		g := &v.stage.Gates[i]
		var r Result
		switch g.Kind {
		case state.GateHealthy:
			r = v.healthy(g, commit)
		case state.GateSigned:
			r = v.signed(commit)
		case state.GateApprovals:
			r = v.approvals(g, commit, p)
		case state.GateWindow:
			r = v.window(g)
		case state.GateExternal:
			r = v.external(g, commit)
		case state.GateJobs:
			r = v.job(g, commit)
		case state.GatePlan, state.GateQuarantine, state.GateFreeze, state.GateSuspended, state.GateBranch, state.GateQueue:
			// Always there; the text can't name them.
		}
		r.Gate, r.Spec = g.Kind, g
		if r.Name == "" {
			r.Name = g.Name
		}
		out = append(out, r)
	}
	if !slices.ContainsFunc(v.stage.Gates, func(g state.Gate) bool { return g.Kind == state.GateHealthy }) {
		r := v.healthy(&state.Gate{Kind: state.GateHealthy}, commit) // tested at all
		out = append(out, r)
	}
	if len(v.stage.Freezes) > 0 {
		out = append(out, v.freezes())
	}
	return append(out, v.suspended(), v.queue(p))
}

// passed says whether every gate does.
func passed(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return !r.Pass })
}

// branch asks that the stage's branch is known and is one that can be moved.
func (v *view) branch() Result {
	r := Result{Gate: state.GateBranch}
	a := v.s.Apps[v.stage.App]
	switch {
	case a == nil || a.Removed:
		r.Name = "there is no Application " + string(v.stage.App)
	case a.Spec.Source.Ref == "":
		r.Name = "Application " + string(v.stage.App) + " follows no branch"
	case v.up.Head.Hash == "":
		r.Name = "its branch wasn't seen yet"
	case a.SourceLost:
		r.Name = "its repository doesn't answer"
	default:
		r.Pass = true
	}
	return r
}

// plan asks that the target's own render of the commit has no problem and that
// nothing of it would be held, nor is held now: but for a revision that failed,
// whose place the commit takes.
func (v *view) plan(commit *state.Commit) Result {
	r := Result{Gate: state.GatePlan}
	review := v.review(commit)
	if review == nil {
		r.Have = -1
		return r
	}
	r.Have = int64(review.Problems) + int64(review.Held)
	for _, h := range v.s.Holds {
		if h.App == v.stage.App && !h.Approved && h.Code != state.HoldQuarantined && h.Code != state.HoldRestore {
			r.Have++
		}
	}
	r.Pass = r.Have == 0
	return r
}

// review is what was found out about going from the head to the commit, or nil.
func (v *view) review(commit *state.Commit) *state.Review {
	for i := range v.up.Reviews {
		if r := &v.up.Reviews[i]; r.From == v.up.Head.Hash && r.To == commit.Hash {
			return r
		}
	}
	return nil
}

func (v *view) quarantine(commit *state.Commit, p *state.Promotion) Result {
	r := Result{Gate: state.GateQuarantine, Pass: !v.line.Quarantined(commit.Tree)}
	if r.Pass || p == nil || !p.Override {
		return r
	}
	// A person's word against the evidence counts for a day.
	r.wake = p.At.Mono + overrideFor
	r.Pass = v.now.Mono < r.wake
	return r
}

// overrideFor is how long a person's override of the quarantine counts.
const overrideFor = 24 * time.Hour

// Says is why a gate does not pass, without anybody's name.
func (r *Result) Says() string {
	text := ""
	switch r.Gate {
	case state.GateHealthy:
		text = time.Duration(max(0, r.Have)).Round(time.Second).String() + " of " + time.Duration(r.Want).String()
	case state.GateSigned:
		text = fmt.Sprintf("%d of %d commits", r.Have, r.Want)
	case state.GateApprovals:
		text = fmt.Sprintf("%d of %d", r.Have, r.Want)
	case state.GatePlan:
		text = fmt.Sprintf("%d problems or holds", r.Have)
		if r.Have < 0 {
			text = "not looked at yet"
		}
	case state.GateExternal:
		text = r.Name + " said no"
		if r.Have < 0 {
			text = r.Name + " gave no answer yet"
		}
	case state.GateWindow, state.GateFreeze, state.GateBranch, state.GateQueue:
		text = r.Name
	case state.GateJobs:
		text = r.JobSays()
	case state.GateQuarantine:
		text = "the tree failed"
	case state.GateSuspended:
	}
	if text == "" {
		return r.Gate.String()
	}
	return r.Gate.String() + " (" + text + ")"
}

// healthy asks that every stage before ran this tree, without a break, for as
// long.
func (v *view) healthy(g *state.Gate, commit *state.Commit) Result {
	r := Result{Gate: g.Kind, Want: int64(g.For), Pass: true}
	least := time.Duration(-1)
	for _, name := range v.stage.After {
		soak := time.Duration(0)
		running := false
		if t := v.trial(name, commit.Tree); t != nil && !t.Failed {
			soak = t.Soak(v.now)
			running = t.Healthy
		}
		if least < 0 || soak < least {
			least = soak
		}
		if soak < g.For || soak == 0 && !running {
			r.Pass = false
			if running {
				r.wake = max(r.wake, v.now.Mono+g.For-soak)
			}
		}
	}
	r.Have = int64(least)
	return r
}

// trial is the newest of a tree on a stage, or nil.
func (v *view) trial(stage, tree string) *state.Trial {
	_, up := v.line.Stage(stage)
	if up == nil || tree == "" {
		return nil
	}
	for i := range slices.Backward(up.Trials) {
		if up.Trials[i].Commit.Tree == tree {
			return &up.Trials[i]
		}
	}
	return nil
}

// signed asks that every commit between was verified. A signature that nobody
// verified counts as none.
func (v *view) signed(commit *state.Commit) Result {
	r := Result{Gate: state.GateSigned}
	if review := v.review(commit); review != nil {
		r.Want, r.Have = int64(review.Commits), int64(review.Commits-review.Unsigned)
		r.Pass = review.Unsigned == 0
	}
	return r
}

// approvals counts the people who said yes, may, and wrote none of the commits
// between. Where those aren't known, nobody counts.
func (v *view) approvals(g *state.Gate, commit *state.Commit, p *state.Promotion) Result {
	r := Result{Gate: g.Kind, Want: int64(g.Count)}
	review := v.review(commit)
	if g.NotAuthor && review != nil {
		r.Authors = review.Authors
	}
	if p == nil || g.NotAuthor && review == nil {
		return r
	}
	for _, vote := range p.Votes {
		if vote.Approve && May(g, vote.By, groupsOf(v.s, vote.By, vote.As)) && !slices.Contains(r.Authors, vote.By) {
			r.Votes, r.By = append(r.Votes, vote.Seq), append(r.By, vote.By)
		}
	}
	r.Have = int64(len(r.Votes))
	r.Pass = r.Have >= r.Want
	return r
}

// groupsOf are the groups that somebody is in: by what the root says now, where
// it says anything, else those that who let them in knows.
func groupsOf(s *state.State, who state.Text, told []string) []string {
	if s.Access != nil {
		return s.Access.GroupsOf(who)
	}
	return told
}

// May says whether somebody, as a member of groups, is one of those that an
// approvals gate names.
func May(g *state.Gate, who state.Text, groups []string) bool {
	if g.Kind != state.GateApprovals || who.IsZero() {
		return false
	}
	return slices.Contains(g.Users, who) || slices.ContainsFunc(groups, func(group string) bool { return slices.Contains(g.Groups, group) })
}

func (v *view) external(g *state.Gate, commit *state.Commit) Result {
	r := Result{Gate: g.Kind, Name: g.Name, Have: -1}
	if c := v.up.Check(g.Name, commit.Hash); c != nil {
		r.Pass, r.Have, r.Why = c.OK, 0, c.Detail
		r.Votes = []state.Seq{c.Seq}
	}
	if r.Pass {
		r.Have = 1
	}
	return r
}

func (v *view) suspended() Result {
	if !v.up.Suspended {
		return Result{Gate: state.GateSuspended, Pass: true}
	}
	r := Result{Gate: state.GateSuspended, Want: v.up.Until, Why: v.up.Why}
	if v.up.Until != 0 {
		r.wake = v.steady(v.up.Until)
		r.Pass = v.now.Wall >= v.up.Until
	}
	return r
}

// queue asks that no other push to the branch is under way.
func (v *view) queue(p *state.Promotion) Result {
	r := Result{Gate: state.GateQueue, Pass: true}
	for _, o := range v.s.Promotions {
		if o != p && o.Started != nil && o.Pipeline == v.line.Spec.Name && o.Stage == v.stage.Name {
			r.Pass, r.Name = false, o.ID
		}
	}
	return r
}
