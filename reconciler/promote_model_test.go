package reconciler_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// TestPromotionModel explores the promotion machine exhaustively up to a depth:
// every order of commits, health, votes, suspension, rollback, a push by
// somebody else, and a controller that dies before or after a push. What must
// hold is judged by the world's own books, not by the machine's.
func TestPromotionModel(t *testing.T) {
	t.Parallel()
	depth := 5
	if testing.Short() {
		depth = 3
	}
	if os.Getenv("TANDEM_SOAK") != "" {
		depth = 8
	}
	type node struct{ path []string }
	seen := map[string]bool{}
	var moved, conflicts, lost int
	for _, start := range modelStarts() {
		frontier := []node{{path: start}}
		for d := 0; d <= depth && len(frontier) > 0; d++ {
			var next []node
			for _, n := range frontier {
				w := playModel(t, n.path)
				if t.Failed() {
					return
				}
				if key := w.key(); seen[key] {
					continue
				} else {
					seen[key] = true
				}
				moved, conflicts, lost = moved+w.moved, conflicts+w.conflicts, lost+w.lost
				for _, a := range w.actions() {
					next = append(next, node{append(slices.Clone(n.path), a)})
				}
				w.settles(n.path)
			}
			frontier = next
		}
	}
	t.Logf("%d states; %d pushes moved a branch, %d met another, %d answers were lost", len(seen), moved, conflicts, lost)
	if moved == 0 || conflicts == 0 || lost == 0 {
		t.Error("the model explores too little: no push, no conflict or no lost answer")
	}
}

// modelStarts are the ways into the interesting parts, each explored in depth.
func modelStarts() [][]string {
	tested := []string{"commit", "see dev", "tick", "push", "see staging"}
	requested := append(slices.Clone(tested), "promote rita")
	ready := append(slices.Clone(requested), "approve sam", "tick", "tick")
	done := append(slices.Clone(ready), "push", "see prod")
	second := append(slices.Clone(done), "commit", "see dev", "tick", "push", "see staging")
	return [][]string{nil, tested, requested, ready, done, second}
}

const (
	modelSoak = 2 * time.Minute // of staging, for prod
	modelTick = time.Minute     // and of dev, for staging
)

// A modelCommit is one of the made-up repository.
type modelCommit struct {
	tree    string
	parents []string
	author  string
}

// modelWorld is a repository, people and nodes around a machine.
type modelWorld struct {
	t       *testing.T
	m       *reconciler.Machine
	shelf   *shelf
	log     []*state.Record
	now     state.Instant
	commits map[string]modelCommit
	refs    map[string]string // by stage
	seen    map[string]string // what the sources said last
	pending []*state.Push
	notes   []*state.NoteWanted
	used    map[string]int // of actions that happen only so often
	often   int            // times as often; 0: as often as in the model
	path    []string
	left    map[string]bool // who has left the group, where the root says who is in it
	stopped bool            // prod is suspended
	jobs    *modelJobs      // nil: prod waits for no Job

	// The books of the world: what is true whatever the machine thinks.
	healthy                map[string]state.Instant // since when a stage is, by stage
	sound                  map[string]time.Duration // the longest unbroken health of a tree, by stage/tree
	failed                 map[string]bool          // trees
	votes                  map[string]map[string]bool
	moved, conflicts, lost int
}

func modelStages() []string { return []string{"dev", "staging", "prod"} }

func modelHash(n int) string { return fmt.Sprintf("%040x", n) }

func person(name string) state.Text {
	d := state.DigestOf([]byte(name))
	return state.Text(d[:16])
}

func modelPipeline() state.Pipeline {
	return state.Pipeline{Name: "shop", Stages: []state.Stage{
		{Name: "dev", App: "dev"},
		{Name: "staging", App: "staging", After: []string{"dev"}, Auto: true, Gates: []state.Gate{{Kind: state.GateHealthy, For: modelTick}}},
		{Name: "prod", App: "prod", After: []string{"staging"}, Gates: []state.Gate{
			{Kind: state.GateHealthy, For: modelSoak},
			{Kind: state.GateApprovals, Count: 2, Groups: []string{"release"}, NotAuthor: true},
		}},
	}}
}

func newModel(t *testing.T) *modelWorld { return newModelWith(t, nil) }

func newModelWith(t *testing.T, jobs *modelJobs) *modelWorld {
	w := &modelWorld{
		jobs: jobs,
		t:    t, shelf: &shelf{map[state.Digest]*state.Manifest{}, map[state.Digest]*state.Template{}},
		now:     state.Instant{Mono: time.Second, Wall: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC).UnixNano()},
		commits: map[string]modelCommit{modelHash(1): {tree: "t1", author: "zoe"}}, refs: map[string]string{}, seen: map[string]string{},
		used: map[string]int{}, healthy: map[string]state.Instant{}, sound: map[string]time.Duration{}, failed: map[string]bool{},
		votes: map[string]map[string]bool{},
	}
	w.m = reconciler.New(w.shelf)
	w.take(w.m.Start(w.now, state.DigestOf([]byte("model")), "test"))
	var apps []state.Application
	for _, s := range modelStages() {
		apps = append(apps, state.Application{Name: state.AppName(s), Path: s, Source: state.AppSource{Ref: s}})
		w.refs[s] = modelHash(1)
	}
	line, manifest := modelPipeline(), (*state.Manifest)(nil)
	if jobs != nil {
		line, manifest = jobs.pipeline(line), jobs.root(w)
		w.take(w.m.Step(w.now, jobs.node()))
	}
	w.take(w.m.Step(w.now, []state.Event{&state.RootRendered{
		Revision: "main@sha1:" + state.Revision(modelHash(99)), Apps: apps, Pipelines: []state.Pipeline{line}, Manifest: manifest,
	}}))
	for _, s := range modelStages() {
		w.see(s)
	}
	return w
}

func playModel(t *testing.T, path []string) *modelWorld { return playModelWith(t, path, nil) }

func playModelWith(t *testing.T, path []string, jobs *modelJobs) *modelWorld {
	w := newModelWith(t, jobs)
	w.path = path
	for _, a := range path {
		w.do(a)
	}
	return w
}

// take keeps what a step made and answers reviews at once.
func (w *modelWorld) take(out reconciler.Output) {
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			w.shelf.manifests[b.Digest] = b.Manifest
			continue
		}
		tpl, err := state.ParseTemplate(b.Template)
		if err != nil {
			w.t.Fatal(err)
		}
		w.shelf.templates[b.Digest] = tpl
	}
	for _, r := range out.Records {
		w.log = append(w.log, r)
		w.judge(r)
	}
	var answers []state.Event
	for _, e := range out.Effects {
		switch e := e.(type) {
		case *state.ReviewWanted:
			answers = append(answers, w.review(e))
		case *state.Push:
			w.pending = append(w.pending, e)
		case *state.NoteWanted:
			w.notes = append(w.notes, e)
		case *state.LookUp:
			answers = append(answers, &state.ImageLooked{App: e.App, Manifest: e.Manifest, Image: modelImage(e.Image)})
		}
	}
	if err := w.m.Check(); err != nil {
		w.t.Errorf("%v: %v", w.path, err)
	}
	if len(answers) > 0 {
		w.take(w.m.Step(w.now, answers))
	}
}

func (w *modelWorld) ancestors(of string) map[string]bool {
	out := map[string]bool{}
	var visit func(string)
	visit = func(h string) {
		if h == "" || out[h] {
			return
		}
		out[h] = true
		for _, p := range w.commits[h].parents {
			visit(p)
		}
	}
	visit(of)
	return out
}

// between are the commits that going from one to another brings.
func (w *modelWorld) between(from, to string) []string {
	had := w.ancestors(from)
	var out []string
	for h := range w.ancestors(to) {
		if !had[h] {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}

func (w *modelWorld) review(e *state.ReviewWanted) *state.Reviewed {
	r := &state.Reviewed{Pipeline: e.Pipeline, Stage: e.Stage, From: e.From, To: e.To, Forward: w.ancestors(e.To)[e.From]}
	for _, h := range w.between(e.From, e.To) {
		r.Commits++
		r.Authors = append(r.Authors, person(w.commits[h].author))
	}
	return r
}

// see tells the machine where a branch is.
func (w *modelWorld) see(stage string) {
	h := w.refs[stage]
	w.seen[stage] = h
	w.jobs.leave(stage, w.commits[h].tree)
	w.healthy[stage] = w.now
	tree := w.commits[h].tree
	m := &state.Manifest{App: state.AppName(stage), Digest: state.DigestOf([]byte(stage + tree))}
	w.shelf.manifests[m.Digest] = m
	w.take(w.m.Step(w.now, []state.Event{&state.Rendered{
		App: state.AppName(stage), Revision: state.Revision(stage + "@sha1:" + h), Commit: state.Commit{Hash: h, Tree: tree}, Manifest: m,
	}}))
}

// actions are what may happen next.
func (w *modelWorld) actions() []string {
	var out []string
	few := func(a string, most int) {
		if w.used[a] < most*max(1, w.often) {
			out = append(out, a)
		}
	}
	if len(w.pending) > 0 {
		out = append(out, "push")
		few("lose answer", 1)
		few("crash", 1)
		few("unavailable", 1)
	}
	few("commit", 2)
	for _, s := range modelStages() {
		if w.seen[s] != w.refs[s] {
			out = append(out, "see "+s)
		}
		if w.healthy[s].IsZero() {
			out = append(out, "heal "+s)
		} else if s != "dev" {
			few("degrade "+s, 1)
		}
	}
	few("tick", 4)
	few("promote rita", 2)
	few("hotfix", 1)
	few("rollback", 1)
	few("suspend", 1)
	if w.stopped {
		out = append(out, "resume")
	}
	if w.jobs != nil {
		if w.jobs.running(w) != nil {
			few("job succeeds", 2)
			few("job fails", 1)
		}
		few("rejudge", 1)
	}
	if w.often > 0 {
		few("leave sam", 1)
		few("join sam", 1)
	}
	if w.open() != "" {
		for _, who := range []string{"sam", "rita", "ada", "mallory"} {
			few("approve "+who, 1)
		}
		few("reject", 1)
	}
	return out
}

func (w *modelWorld) open() string {
	for _, p := range slices.Backward(w.m.State().SortedPromotions()) {
		if p.Stage == "prod" && p.Started == nil {
			return p.ID
		}
	}
	return ""
}

func (w *modelWorld) do(action string) {
	w.used[action]++
	verb, what, _ := strings.Cut(action, " ")
	switch verb {
	case "commit":
		n := len(w.commits) + 1
		author := []string{"ada", "rita"}[(w.used["commit"]-1)%2]
		w.commits[modelHash(n)] = modelCommit{tree: fmt.Sprint("t", n), parents: []string{w.refs["dev"]}, author: author}
		w.refs["dev"] = modelHash(n)
	case "hotfix":
		n := len(w.commits) + 1
		w.commits[modelHash(n)] = modelCommit{tree: fmt.Sprint("t", n), parents: []string{w.refs["prod"]}, author: "eva"}
		w.refs["prod"] = modelHash(n)
	case "see":
		w.see(what)
	case "tick":
		w.now = w.now.Add(modelTick)
		for s, since := range w.healthy {
			if k := s + "/" + w.commits[w.seen[s]].tree; !since.IsZero() {
				w.sound[k] = max(w.sound[k], w.now.Since(since))
			}
		}
		w.take(w.m.Step(w.now, w.jobs.renewed(w)))
	case "degrade":
		w.healthy[what] = state.Instant{}
		w.sound[what+"/"+w.commits[w.seen[what]].tree] = 0
		w.take(w.m.Fold(w.now, state.AppName(what), &state.Degraded{}))
	case "heal":
		w.healthy[what] = w.now
		w.take(w.m.Fold(w.now, state.AppName(what), &state.Converged{}))
	case "promote":
		w.command(what, &state.Command{Verb: state.CmdPromote, Object: state.Ref{Kind: "Pipeline", Name: "shop/prod"}})
	case "rollback":
		w.command("rita", &state.Command{Verb: state.CmdRollback, Object: state.Ref{Kind: "Pipeline", Name: "shop/prod"}})
	case "leave", "join":
		members := []string{"rita", "ada"}
		w.left = map[string]bool{what: verb == "leave"}
		if verb == "join" {
			members = append(members, what)
		}
		w.root(accessOf(members...))
	case "suspend":
		w.stopped = true
		w.command("rita", &state.Command{Verb: state.CmdSuspend, Object: state.Ref{Kind: "Pipeline", Name: "shop/prod"}})
	case "resume":
		w.stopped = false
		w.command("rita", &state.Command{Verb: state.CmdResume, Object: state.Ref{Kind: "Pipeline", Name: "shop/prod"}})
	case "job":
		w.jobs.end(w, what == "succeeds")
	case "rejudge":
		w.jobs.rejudge(w)
	case "approve":
		w.command(what, &state.Command{Verb: state.CmdApprove, Hold: w.open()})
	case "reject":
		w.command("sam", &state.Command{Verb: state.CmdReject, Hold: w.open()})
	default:
		w.pushing(verb)
	}
}

func (w *modelWorld) command(who string, c *state.Command) {
	c.Actor = person(who)
	if who != "mallory" {
		c.Groups = []string{"release"}
	}
	w.take(w.m.Step(w.now, []state.Event{c}))
}

// pushing is what becomes of the push that is under way.
func (w *modelWorld) pushing(how string) {
	if len(w.pending) == 0 {
		return
	}
	p := w.pending[0]
	w.pending = w.pending[1:]
	answer := &state.Pushed{ID: p.ID}
	if how == "push" || how == "lose" {
		answer.Outcome = w.perform(p)
		answer.Found = w.refs[p.Source.Ref]
		answer.Grown = answer.Outcome == state.PromotionConflict && w.ancestors(answer.Found)[p.Old]
	}
	switch how {
	case "push", "unavailable":
		w.take(w.m.Step(w.now, []state.Event{answer}))
	case "lose", "crash":
		w.lost++
		w.pending = nil // they died with it
		w.restart()
	}
}

// perform is what a Git server does: compare and swap, unless it is done already.
func (w *modelWorld) perform(p *state.Push) state.PromotionOutcome {
	at := w.refs[p.Source.Ref]
	switch at {
	case p.New:
		return state.PromotionDone
	case p.Old:
	default:
		w.conflicts++
		return state.PromotionConflict
	}
	if p.Object != nil {
		w.commits[p.New] = parsed(string(p.Object))
	}
	if !w.ancestors(p.New)[at] {
		w.t.Errorf("%v: %s goes from %s to %s, which doesn't follow from it: a lost update", w.path, p.Source.Ref, at, p.New)
	}
	if promotion := w.m.State().Promotions[p.ID]; w.commits[p.New].tree != promotion.Commit.Tree {
		w.t.Errorf("%v: the promoted tree is %s, the tested one %s", w.path, w.commits[p.New].tree, promotion.Commit.Tree)
	}
	w.refs[p.Source.Ref] = p.New
	w.moved++
	return state.PromotionDone
}

func parsed(object string) modelCommit {
	c := modelCommit{author: "tandem"}
	for line := range strings.Lines(object) {
		if tree, ok := strings.CutPrefix(strings.TrimSpace(line), "tree "); ok {
			c.tree = tree
		}
		if parent, ok := strings.CutPrefix(strings.TrimSpace(line), "parent "); ok {
			c.parents = append(c.parents, parent)
		}
	}
	return c
}

// restart is another controller over the same log; nobody looked in between.
func (w *modelWorld) restart() {
	w.m = reconciler.New(w.shelf)
	for _, r := range w.log {
		if err := w.m.Replay(r); err != nil {
			w.t.Fatal(err)
		}
	}
	w.take(w.m.Start(w.now, state.Digest{}, "test"))
	if w.jobs != nil {
		w.take(w.m.Step(w.now, w.jobs.node()))
	}
}

// judge holds what was decided against the world's own books.
func (w *modelWorld) judge(r *state.Record) {
	switch f := r.Fact.(type) {
	case *state.Converged:
		// A controller that starts looks by itself, and finds all there.
		if stage := string(r.App); w.healthy[stage].IsZero() {
			w.healthy[stage] = r.At
		}
	case *state.GateJobStarted:
		w.jobs.begins(w, f)
	case *state.PromotionVoted:
		if w.votes[f.ID] == nil {
			w.votes[f.ID] = map[string]bool{}
		}
		for _, who := range []string{"sam", "rita", "ada", "mallory"} {
			if r.Actor == person(who) {
				w.votes[f.ID][who] = f.Approve
			}
		}
	case *state.PromotionStarted:
		p := w.m.State().Promotions[f.ID]
		if p == nil || p.Rollback {
			return
		}
		before, soak := "dev", modelTick
		if p.Stage == "prod" {
			before, soak = "staging", modelSoak
			if w.jobs != nil {
				w.jobs.judge(w, p)
			} else {
				w.judgeVotes(p, f)
			}
		}
		if got := w.sound[before+"/"+p.Commit.Tree]; got < soak {
			w.t.Errorf("%v: %s goes to %s after %s in %s, not %s: a skipped soak", w.path, p.Commit.Tree, p.Stage, got, before, soak)
		}
		if w.failed[p.Commit.Tree] {
			w.t.Errorf("%v: %s was rolled back from, and goes again", w.path, p.Commit.Tree)
		}
		if p.Stage == "prod" && w.stopped {
			w.t.Errorf("%v: %s goes to a suspended stage", w.path, p.Commit.Tree)
		}
	case *state.PromotionEnded:
		if l := w.m.State().Lines["shop"]; l != nil && f.Outcome == state.PromotionDone {
			for _, q := range l.Failed {
				w.failed[q.Tree] = true
			}
		}
	}
}

// judgeVotes counts those who may: release managers who wrote none of the
// commits that come.
func (w *modelWorld) judgeVotes(p *state.Promotion, f *state.PromotionStarted) {
	count := 0
	for who, yes := range w.votes[p.ID] {
		wrote := slices.ContainsFunc(w.between(f.Old, p.Commit.Hash), func(h string) bool { return w.commits[h].author == who })
		if yes && who != "mallory" && !wrote && !w.left[who] {
			count++
		}
	}
	if count < 2 {
		w.t.Errorf("%v: %s goes with %d approvals that count: a bypass", w.path, p.Commit.Tree, count)
	}
}

// settles plays on without surprises: every push that began has an outcome.
func (w *modelWorld) settles(path []string) {
	w.path = append(slices.Clone(path), "settle")
	for range 20 {
		switch {
		case len(w.pending) > 0:
			w.do("push")
		case w.used["unavailable"] > 0 && slices.ContainsFunc(w.m.State().SortedPromotions(), func(p *state.Promotion) bool { return p.Started != nil }):
			w.do("tick") // the next try
		default:
			for _, s := range modelStages() {
				if w.seen[s] != w.refs[s] {
					w.do("see " + s)
				}
			}
			if len(w.pending) == 0 {
				for _, p := range w.m.State().SortedPromotions() {
					if p.Started != nil {
						w.t.Errorf("%v: %s began and has no outcome", w.path, p.ID)
					}
				}
				return
			}
		}
	}
	w.t.Errorf("%v: does not settle", w.path)
}

// key is all that what happens next depends on.
func (w *modelWorld) key() string {
	var b strings.Builder
	s := w.m.State()
	for _, u := range s.Lines["shop"].Stages {
		fmt.Fprintf(&b, "%s %s %s %t|", u.Head.Hash, w.refs[u.Name], w.seen[u.Name], u.Suspended)
		for i := range u.Trials {
			t := &u.Trials[i]
			fmt.Fprintf(&b, "%s %t %s %t %t %t,", t.Commit.Hash, t.Healthy, min(t.Soak(w.now), modelSoak), t.Proven, t.Failed, t.Seq <= u.Passed)
		}
		for _, t := range u.Tried {
			fmt.Fprintf(&b, "%s;", t.From)
		}
	}
	for _, p := range s.SortedPromotions() {
		fmt.Fprintf(&b, "|%s %s %t %t", p.Stage, p.Commit.Hash, p.Rollback, p.Started != nil)
		for _, v := range p.Votes {
			fmt.Fprintf(&b, " %s", v.By)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(w.used)) {
		if !strings.HasPrefix(k, "see") && !strings.HasPrefix(k, "heal") && k != "push" {
			fmt.Fprintf(&b, "|%s=%d", k, w.used[k])
		}
	}
	w.jobs.key(&b, s)
	fmt.Fprintf(&b, "|%d %v", len(w.pending), s.Lines["shop"].Failed)
	return b.String()
}
