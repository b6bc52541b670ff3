package promote

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Ask is a person's wish to promote to a stage: the promotion to open, or why
// not.
func Ask(s *state.State, l *state.Line, stage string, c *state.Command, now state.Instant) (*state.PromotionRequested, string) {
	v := look(s, l, stage, now)
	if v == nil {
		return nil, "there is no such stage"
	}
	if r := v.branch(); !r.Pass {
		return nil, r.Name
	}
	if len(v.stage.After) == 0 {
		return nil, "nothing is promoted to " + stage + ": push to its branch"
	}
	t := v.candidate(func(t *state.Trial) bool { return c.Commit == "" || t.Commit.Hash == c.Commit })
	if t == nil && c.Override {
		t = v.again(c.Commit)
	}
	switch {
	case t == nil:
		return nil, "there is no tested commit that " + stage + " lacks"
	case v.line.Quarantined(t.Commit.Tree) && !c.Override:
		return nil, "commit " + short(t.Commit.Hash) + " failed and is quarantined: push a newer one, or give --override"
	case v.isOpen(t):
		return nil, "its promotion is open already: " + v.openID(t)
	}
	f := v.requested(t, c)
	if c.Now {
		p := &state.Promotion{ID: f.ID, Pipeline: f.Pipeline, Stage: stage, Commit: f.Commit, Trial: f.Trial, Override: f.Override}
		if as, ok := v.may(c); ok {
			p.Votes = []state.Vote{{By: c.Actor, Approve: true, As: as}}
		}
		for _, r := range v.gates(&p.Commit, p) {
			if !r.Pass {
				return nil, "the gate " + r.Says() + " does not pass: nothing was moved"
			}
		}
	}
	return f, ""
}

// again is a commit that was here already, or that a newer one overtook: only an
// override brings it back.
func (v *view) again(commit string) *state.Trial {
	_, first := v.line.Stage(v.stage.After[0])
	for i := range slices.Backward(first.Trials) {
		t := &first.Trials[i]
		if (commit == "" || t.Commit.Hash == commit) && t.Commit.Tree != "" && t.Commit.Tree != v.up.Head.Tree && v.everywhere(t.Commit.Tree) {
			return t
		}
	}
	return nil
}

func (v *view) openID(t *state.Trial) string {
	for _, p := range v.s.SortedPromotions() {
		if p.Pipeline == v.line.Spec.Name && p.Stage == v.stage.Name && p.Trial == t.Seq && !p.Rollback {
			return p.ID
		}
	}
	return ""
}

// Back is a person's wish to give a stage the last good tree: the rollback to
// open, or why not. Good is what was available as a whole on this stage, and
// didn't fail here or elsewhere.
func Back(s *state.State, l *state.Line, stage string, now state.Instant) (*state.PromotionRequested, string) {
	v := look(s, l, stage, now)
	if v == nil {
		return nil, "there is no such stage"
	}
	if r := v.branch(); !r.Pass {
		return nil, r.Name
	}
	for _, p := range v.s.SortedPromotions() {
		if p.Pipeline == l.Spec.Name && p.Stage == stage && p.Rollback {
			return nil, "a rollback is open already: " + p.ID
		}
	}
	for i := range slices.Backward(v.up.Trials) {
		t := &v.up.Trials[i]
		if t.Proven && !t.Failed && t.Commit.Tree != "" && t.Commit.Tree != v.up.Head.Tree && !l.Quarantined(t.Commit.Tree) {
			f := v.requested(t, nil)
			f.Rollback = true
			return f, ""
		}
	}
	return nil, "nothing before it was healthy here, as far as is known"
}

// Vote says as which groups somebody may vote on a promotion; an author of what
// is judged may not approve it.
func Vote(s *state.State, p *state.Promotion, c *state.Command, now state.Instant) (as []string, why string) {
	l := s.Lines[p.Pipeline]
	if l == nil || p.Started != nil {
		return nil, "its branch is being moved already"
	}
	v := look(s, l, p.Stage, now)
	if v == nil {
		return nil, "its stage is gone"
	}
	as, ok := v.may(c)
	if !ok {
		return nil, "no approvals gate of " + p.Stage + " names you or a group of yours"
	}
	if c.Verb != state.CmdApprove {
		return as, ""
	}
	for i := range v.stage.Gates {
		g := &v.stage.Gates[i]
		if review := v.review(&p.Commit); g.Kind == state.GateApprovals && g.NotAuthor && review != nil && slices.Contains(review.Authors, c.Actor) {
			return nil, "you are an author of a commit between"
		}
	}
	return as, ""
}

// may says as which groups somebody is named by any approvals gate.
func (v *view) may(c *state.Command) (as []string, ok bool) {
	groups := groupsOf(v.s, c.Actor, c.Groups)
	for i := range v.stage.Gates {
		g := &v.stage.Gates[i]
		if !May(g, c.Actor, groups) {
			continue
		}
		ok = true
		for _, group := range groups {
			if slices.Contains(g.Groups, group) && !slices.Contains(as, group) {
				as = append(as, group)
			}
		}
	}
	slices.Sort(as)
	return as, ok
}

func look(s *state.State, l *state.Line, stage string, now state.Instant) *view {
	spec, up := l.Stage(stage)
	if spec == nil {
		return nil
	}
	return &view{s: s, line: l, stage: spec, up: up, now: now}
}

// A Standing is one stage as people see it.
type Standing struct {
	Stage     *state.Stage
	Up        *state.LineUp
	Candidate *state.Trial // the newest tested commit that the branch lacks; may be nil
	Gates     []Result     // of the candidate, or of the open promotion
	Open      []*state.Promotion
	Review    *state.Review
}

// Stand is how a stage stands.
func Stand(s *state.State, l *state.Line, stage string, now state.Instant) (Standing, bool) {
	v := look(s, l, stage, now)
	if v == nil {
		return Standing{}, false
	}
	out := Standing{Stage: v.stage, Up: v.up}
	for _, p := range s.SortedPromotions() {
		if p.Pipeline == l.Spec.Name && p.Stage == stage {
			out.Open = append(out.Open, p)
		}
	}
	out.Candidate = v.candidate(func(*state.Trial) bool { return true })
	switch open := v.open(); {
	case len(open) > 0:
		out.Gates, out.Review = v.judge(open[0]), v.review(&open[0].Commit)
	case out.Candidate != nil:
		out.Gates, out.Review = v.gates(&out.Candidate.Commit, nil), v.review(&out.Candidate.Commit)
	}
	return out, true
}
