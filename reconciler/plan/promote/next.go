package promote

import (
	"fmt"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Decision is what is to be done about a pipeline now.
type Decision struct {
	Fact    state.Fact // to record, and then to ask again; nil: nothing
	Reviews []Want     // to find out
	Wake    time.Duration
}

// A Want is a commit about which something has to be found out: what lies
// between it and the branch's head, and what the target's own render of it says.
type Want struct {
	Stage  string
	App    state.AppName
	Source state.AppSource
	From   string
	To     string
}

// reviewAgain is after what time a commit that would be held is looked at again.
const reviewAgain = time.Minute

// maxOpen bounds the promotions that wait for one stage; the oldest is skipped.
const maxOpen = 8

// Next decides for one pipeline.
func Next(s *state.State, l *state.Line, now state.Instant) Decision {
	var d Decision
	for i := range l.Spec.Stages {
		v := &view{s: s, line: l, stage: &l.Spec.Stages[i], up: l.Stages[i], now: now}
		if d.Fact = v.moot(); d.Fact == nil {
			d.Fact = v.lapsed(&d)
		}
		if d.Fact == nil {
			d.Fact = v.request()
		}
		if d.Fact == nil {
			d.Fact = v.jobs()
		}
		if d.Fact == nil {
			d.Fact = v.start(&d)
		}
		if d.Fact != nil {
			return d
		}
	}
	return d
}

// Orphan ends a promotion whose pipeline or stage is gone, unless its branch is
// being moved: what became of that is found out first.
func Orphan(s *state.State, p *state.Promotion) state.Fact {
	if l := s.Lines[p.Pipeline]; l != nil {
		if stage, _ := l.Stage(p.Stage); stage != nil {
			return nil
		}
	}
	if p.Started != nil {
		return nil
	}
	return &state.PromotionEnded{ID: p.ID, Outcome: state.PromotionWithdrawn}
}

// open are the promotions that wait for this stage: rollbacks first, then the
// newest commit.
func (v *view) open() []*state.Promotion {
	var out []*state.Promotion
	for _, p := range v.s.SortedPromotions() {
		if p.Pipeline == v.line.Spec.Name && p.Stage == v.stage.Name && p.Started == nil {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *state.Promotion) int {
		if a.Rollback != b.Rollback {
			if a.Rollback {
				return -1
			}
			return 1
		}
		return int(int64(b.Trial) - int64(a.Trial))
	})
	return out
}

// moot ends what has no purpose any more: the branch has the tree, or a newer
// commit went.
func (v *view) moot() state.Fact {
	open := v.open()
	for i, p := range open {
		there := p.Commit.Tree == v.up.Head.Tree && v.up.Head.Tree != ""
		if there || !p.Rollback && !p.Override && p.Trial <= v.up.Passed || i >= maxOpen {
			return &state.PromotionEnded{ID: p.ID, Outcome: state.PromotionSkipped, Found: v.up.Head.Hash}
		}
	}
	return nil
}

// lapsed ends a suspension whose time has come.
func (v *view) lapsed(d *Decision) state.Fact {
	if !v.up.Suspended || v.up.Until == 0 {
		return nil
	}
	if v.now.Wall >= v.up.Until {
		return &state.StageSuspended{Pipeline: v.line.Spec.Name, Stage: v.stage.Name}
	}
	d.Wake = sooner(d.Wake, v.steady(v.up.Until))
	return nil
}

// request opens a promotion for each commit that the stages before ran healthy,
// where nobody has to ask for it.
func (v *view) request() state.Fact {
	if !v.stage.Auto || v.up.Suspended {
		return nil
	}
	t := v.candidate(func(t *state.Trial) bool {
		return t.Healthy && !v.line.Quarantined(t.Commit.Tree) && !v.tried(t) && !v.isOpen(t)
	})
	if t == nil {
		return nil
	}
	return v.requested(t, nil)
}

func (v *view) requested(t *state.Trial, c *state.Command) *state.PromotionRequested {
	f := &state.PromotionRequested{
		ID: NextID(v.s), Pipeline: v.line.Spec.Name, Stage: v.stage.Name, Commit: t.Commit, Trial: t.Seq,
	}
	if c != nil {
		f.Override = c.Override
	}
	return f
}

// NextID names the next promotion.
func NextID(s *state.State) string { return fmt.Sprintf("p-%d", s.PromotionCount+1) }

func (v *view) tried(t *state.Trial) bool {
	return slices.ContainsFunc(v.up.Tried, func(o state.Tried) bool {
		return o.Trial == t.Seq && (o.From == "" || o.From == v.up.Head.Hash)
	})
}

func (v *view) isOpen(t *state.Trial) bool {
	for _, p := range v.s.Promotions {
		if p.Pipeline == v.line.Spec.Name && p.Stage == v.stage.Name && p.Trial == t.Seq && !p.Rollback {
			return true
		}
	}
	return false
}

// candidate is the newest commit that all stages before have, that is newer than
// what came here last, and that meets a condition; or nil.
func (v *view) candidate(meets func(*state.Trial) bool) *state.Trial {
	if len(v.stage.After) == 0 || v.up.Head.Hash == "" {
		return nil
	}
	_, first := v.line.Stage(v.stage.After[0])
	for i := range first.Trials {
		t := &first.Trials[len(first.Trials)-1-i]
		if t.Seq <= v.up.Passed || t.Commit.Tree == v.up.Head.Tree {
			return nil // what follows is older than what is there
		}
		if t.Commit.Tree != "" && !t.Failed && v.everywhere(t.Commit.Tree) && meets(t) {
			return t
		}
	}
	return nil
}

func (v *view) everywhere(tree string) bool {
	for _, name := range v.stage.After {
		if v.trial(name, tree) == nil {
			return false
		}
	}
	return true
}

// start moves the branch to the newest commit whose gates all pass, and asks for
// what isn't known yet of those that wait.
func (v *view) start(d *Decision) state.Fact {
	for _, p := range v.open() {
		results := v.judge(p)
		if passed(results) {
			return v.started(p, results)
		}
		for i := range results {
			d.Wake = sooner(d.Wake, results[i].wake)
		}
		if !p.Rollback {
			v.want(d, &p.Commit)
		}
	}
	// What could be asked for is looked at too, so that asking is answered at once.
	if t := v.candidate(func(*state.Trial) bool { return true }); t != nil {
		v.want(d, &t.Commit)
	}
	return nil
}

// judge is how the gates of an open promotion stand. A rollback brings back what
// passed them once: it waits only for its turn.
func (v *view) judge(p *state.Promotion) []Result {
	if p.Rollback {
		return []Result{v.branch(), v.queue(p)}
	}
	return v.gates(&p.Commit, p)
}

func (v *view) want(d *Decision, commit *state.Commit) {
	if r := v.review(commit); r != nil {
		again := r.At.Mono + reviewAgain
		if r.Held == 0 {
			return
		}
		if v.now.Mono < again {
			d.Wake = sooner(d.Wake, again)
			return
		}
	}
	w := Want{Stage: v.stage.Name, App: v.stage.App, Source: v.source(), From: v.up.Head.Hash, To: commit.Hash}
	if v.branch().Pass && !slices.Contains(d.Reviews, w) {
		d.Reviews = append(d.Reviews, w)
	}
}

// source is the stage's branch.
func (v *view) source() state.AppSource {
	var out state.AppSource
	if a := v.s.Apps[v.stage.App]; a != nil {
		out = a.Spec.Source
	}
	if out.Repo == "" {
		out.Repo = v.line.Spec.Repo
	}
	return out
}

// started is the intent to move the branch, with the evidence.
func (v *view) started(p *state.Promotion, results []Result) *state.PromotionStarted {
	f := &state.PromotionStarted{
		ID: p.ID, Source: v.source(), Old: v.up.Head.Hash, New: p.Commit.Hash, Tree: p.Commit.Tree,
		Key: state.DigestOf(fmt.Appendf(nil, "%x/%s", v.s.LogID[:], p.ID)),
	}
	for i := range results {
		r := &results[i]
		f.Evidence = append(f.Evidence, state.Evidence{Gate: r.Gate, Name: r.Name, Have: r.Have, Want: r.Want, Votes: r.Votes})
	}
	c := commit{Tree: p.Commit.Tree, Parents: []string{f.Old, p.Commit.Hash}, When: v.now.Time(), ID: p.ID, Key: f.Key}
	switch review := v.review(&p.Commit); {
	case p.Rollback:
		c.Parents = c.Parents[:1]
		c.Subject = fmt.Sprintf("Roll %s/%s back to what %s had", v.line.Spec.Name, v.stage.Name, short(p.Commit.Hash))
	case review.Forward:
		return f
	default:
		c.Subject = fmt.Sprintf("Promote %s to %s/%s", short(p.Commit.Hash), v.line.Spec.Name, v.stage.Name)
	}
	f.Object = c.encode()
	f.New = hash(f.Object)
	return f
}

func short(commit string) string { return commit[:min(7, len(commit))] }
