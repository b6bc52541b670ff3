package reconciler

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan/promote"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// lines is what the machine knows of pipelines besides the fold. It is lost on
// restart: every pipeline is looked at then, and what was asked is asked again.
type lines struct {
	dirty   map[state.PipelineName]bool
	wakes   map[state.PipelineName]time.Duration
	byApp   map[state.AppName][]state.PipelineName
	wanted  map[state.PipelineName][]state.ReviewWanted
	reviews map[state.ReviewWanted]*asked
	pushes  map[string]*asked // by promotion
}

// asked is a question or a push that is under way, or that waits for its next try.
type asked struct {
	tries int
	next  time.Duration // steady time of the next try; 0: an answer is waited for
}

func newLines() lines {
	return lines{
		dirty: map[state.PipelineName]bool{}, wakes: map[state.PipelineName]time.Duration{}, byApp: nil,
		wanted: map[state.PipelineName][]state.ReviewWanted{}, reviews: map[state.ReviewWanted]*asked{}, pushes: map[string]*asked{},
	}
}

// wake is when something about pipelines is due; 0: never.
func (l *lines) wake() time.Duration {
	var at time.Duration
	for _, t := range l.wakes {
		at = soonest(at, t)
	}
	for _, a := range l.reviews {
		at = soonest(at, a.next)
	}
	for _, a := range l.pushes {
		at = soonest(at, a.next)
	}
	return at
}

func (m *Machine) allLines() {
	m.lines.byApp = nil
	for name := range m.fold.Lines {
		m.lines.dirty[name] = true
	}
	for _, p := range m.fold.Promotions {
		m.lines.dirty[p.Pipeline] = true
	}
}

// touchLines marks the pipelines that a record may change the decision of.
func (m *Machine) touchLines(r *state.Record) {
	switch f := r.Fact.(type) {
	case *state.PipelineDeclared:
		m.lines.dirty[f.Pipeline.Name], m.lines.byApp = true, nil
		return
	case *state.PipelineRemoved:
		m.lines.dirty[f.Name], m.lines.byApp = true, nil
		return
	case *state.AccessDeclared, *state.AccessRemoved:
		m.allLines() // who may approve changed
		return
	case *state.PromotionEnded:
		if p := m.fold.Promotions[f.ID]; p != nil {
			m.lines.dirty[p.Pipeline] = true
		}
	case *state.PromotionVoted:
		if p := m.fold.Promotions[f.ID]; p != nil {
			m.lines.dirty[p.Pipeline] = true
		}
	case *state.PromotionStarted:
		if p := m.fold.Promotions[f.ID]; p != nil {
			m.lines.dirty[p.Pipeline] = true
		}
	case *state.PromotionRequested:
		m.lines.dirty[f.Pipeline] = true
	case *state.ControllerStarted, *state.ClockStepped:
		m.allLines()
	}
	if len(m.fold.Lines) == 0 || r.App == "" {
		return
	}
	m.touchGates(r)
	for _, name := range m.linesOf(r.App) {
		m.lines.dirty[name] = true
	}
}

// linesOf are the pipelines that have a stage for an application.
func (m *Machine) linesOf(app state.AppName) []state.PipelineName {
	if m.lines.byApp == nil {
		m.lines.byApp = map[state.AppName][]state.PipelineName{}
		for name, l := range m.fold.Lines {
			for _, u := range l.Stages {
				m.lines.byApp[u.App] = append(m.lines.byApp[u.App], name)
			}
		}
	}
	return m.lines.byApp[app]
}

// piped says whether a pipeline moves an application.
func (m *Machine) piped(app state.AppName) bool { return len(m.linesOf(app)) > 0 }

// promotions decides for every pipeline that something happened to, until there
// is nothing more to record.
func (m *Machine) promotions() {
	for name, at := range m.lines.wakes {
		if at <= m.now.Mono {
			m.lines.dirty[name] = true
		}
	}
	for range rounds {
		if len(m.lines.dirty) == 0 {
			m.askReviews()
			m.askPushes()
			return
		}
		names := sorted(m.lines.dirty)
		clear(m.lines.dirty)
		for _, name := range names {
			m.line(name)
		}
	}
	panic("promotion does not come to an end")
}

func (m *Machine) line(name state.PipelineName) {
	delete(m.lines.wakes, name)
	delete(m.lines.wanted, name)
	for _, p := range m.fold.SortedPromotions() {
		if p.Pipeline == name {
			if f := promote.Orphan(m.fold, p); f != nil {
				m.emitFor(p, f)
			}
		}
	}
	l := m.fold.Lines[name]
	if l == nil {
		return
	}
	d := promote.Next(m.fold, l, m.now)
	if d.Fact != nil {
		m.promoted(l, d.Fact)
		m.lines.dirty[name] = true
		return
	}
	if d.Wake > 0 {
		m.lines.wakes[name] = d.Wake
	}
	m.lines.wanted[name] = wants(name, d.Reviews)
}

func wants(name state.PipelineName, list []promote.Want) []state.ReviewWanted {
	var out []state.ReviewWanted
	for _, w := range list {
		out = append(out, state.ReviewWanted{Pipeline: name, Stage: w.Stage, App: w.App, Source: w.Source, From: w.From, To: w.To})
	}
	return out
}

// promoted records what was decided, with what led to it as the cause.
func (m *Machine) promoted(l *state.Line, f state.Fact) {
	var id, stage string
	switch f := f.(type) {
	case *state.PromotionEnded:
		id = f.ID
	case *state.PromotionStarted:
		id = f.ID
	case *state.PromotionRequested:
		stage = f.Stage
	case *state.StageSuspended:
		stage = f.Stage
	case *state.GateJobStarted:
		stage = f.Stage
	case *state.GateJobEnded:
		m.gateJobEnded(l, f)
		return
	}
	if p := m.fold.Promotions[id]; p != nil {
		m.emitFor(p, f)
		return
	}
	var app state.AppName
	if spec, _ := l.Stage(stage); spec != nil {
		app = spec.App
	}
	m.emit(app, f)
}

// gateJobEnded records what a gate's Job says, and stops one that says nothing any
// more.
func (m *Machine) gateJobEnded(l *state.Line, f *state.GateJobEnded) {
	spec, up := l.Stage(f.Stage)
	cause := m.cause
	defer func() { m.cause = cause }()
	for i := range up.Jobs {
		if j := &up.Jobs[i]; j.Job == f.Job && m.cause == 0 {
			m.cause = max(j.Moved, j.Started)
		}
	}
	m.cause = m.emit(spec.App, f).Seq
	if f.Outcome == state.GateVoid {
		m.dropVoid(f.Job)
	}
}

// dropVoid stops a Job whose word no longer counts, where it still runs.
func (m *Machine) dropVoid(job state.Ref) {
	if w := m.fold.Workloads[job]; w != nil && !w.Deleting && !w.Job.Over() {
		m.emit(w.App, &state.JobDropped{Job: job, Why: state.DropVoid})
	}
}

// touchGates marks the pipelines with a gate that waits for one of the root's Jobs.
func (m *Machine) touchGates(r *state.Record) {
	if r.App != state.RootApp {
		return
	}
	switch r.Fact.(type) {
	case *state.RevisionApplied, *state.AppRemoved, *state.Revised, *state.RolledOut, *state.JobMoved, *state.JobDropped, *state.ObjectGone:
	default:
		return
	}
	for name, l := range m.fold.Lines {
		for i := range l.Spec.Stages {
			for j := range l.Spec.Stages[i].Gates {
				if l.Spec.Stages[i].Gates[j].Kind == state.GateJobs {
					m.lines.dirty[name] = true
				}
			}
		}
	}
}

// emitFor records something about a promotion.
func (m *Machine) emitFor(p *state.Promotion, f state.Fact) {
	cause := m.cause
	defer func() { m.cause = cause }()
	if m.cause == 0 {
		m.cause = p.Seq
	}
	m.emit(m.appOfPromotion(p), f)
}

func (m *Machine) appOfPromotion(p *state.Promotion) state.AppName {
	if l := m.fold.Lines[p.Pipeline]; l != nil {
		if spec, _ := l.Stage(p.Stage); spec != nil {
			return spec.App
		}
	}
	return ""
}

// askReviews asks for what isn't known, and again, with back-off, what couldn't
// be found out.
func (m *Machine) askReviews() {
	wanted := map[state.ReviewWanted]bool{}
	for _, list := range m.lines.wanted {
		for _, w := range list {
			wanted[w] = true
		}
	}
	maps.DeleteFunc(m.lines.reviews, func(w state.ReviewWanted, _ *asked) bool { return !wanted[w] })
	for _, w := range slices.SortedFunc(maps.Keys(wanted), compareWants) {
		a := m.lines.reviews[w]
		if a == nil {
			a = &asked{}
			m.lines.reviews[w] = a
		} else if a.next == 0 || a.next > m.now.Mono {
			continue
		}
		a.tries++
		a.next = 0
		m.out.Effects = append(m.out.Effects, &w)
	}
}

func compareWants(a, b state.ReviewWanted) int {
	return strings.Compare(
		strings.Join([]string{string(a.Pipeline), a.Stage, a.From, a.To}, "\x00"), strings.Join([]string{string(b.Pipeline), b.Stage, b.From, b.To}, "\x00"))
}

// askPushes lets every push go whose intent is recorded and whose outcome isn't:
// after a restart too, whoever pushes looks at the branch first.
func (m *Machine) askPushes() {
	maps.DeleteFunc(m.lines.pushes, func(id string, _ *asked) bool { return m.fold.Promotions[id] == nil })
	for _, p := range m.fold.SortedPromotions() {
		if p.Started == nil {
			continue
		}
		a := m.lines.pushes[p.ID]
		if a == nil {
			a = &asked{}
			m.lines.pushes[p.ID] = a
		} else if a.next == 0 || a.next > m.now.Mono {
			continue
		}
		a.tries++
		a.next = 0
		m.out.Effects = append(m.out.Effects, &state.Push{ID: p.ID, Source: p.Started.Source, Old: p.Started.Old, New: p.Started.New, Object: p.Started.Object, App: m.appOfPromotion(p)})
	}
}

// again sets the next try.
func (a *asked) again(now time.Duration) {
	a.next = now + min(lookupFirst<<min(max(a.tries-1, 0), 10), lookupLast)
}

func (m *Machine) reviewed(e *state.Reviewed) {
	for w, a := range m.lines.reviews {
		if w.Pipeline != e.Pipeline || w.Stage != e.Stage || w.From != e.From || w.To != e.To {
			continue
		}
		if e.Lost {
			a.again(m.now.Mono)
			return
		}
		delete(m.lines.reviews, w)
		m.emit(w.App, &state.CandidateReviewed{
			Pipeline: e.Pipeline, Stage: e.Stage, From: e.From, To: e.To, Commits: e.Commits, Authors: e.Authors, Unsigned: e.Unsigned,
			Forward: e.Forward, Problems: e.Problems, Held: m.wouldHold(w.App, e.Manifest), Detail: e.Detail,
		})
		return
	}
}

func (m *Machine) pushed(e *state.Pushed) {
	p, a := m.fold.Promotions[e.ID], m.lines.pushes[e.ID]
	switch {
	case p == nil || p.Started == nil:
	case e.Outcome == 0:
		if a != nil {
			a.again(m.now.Mono)
		}
	default:
		m.emitFor(p, &state.PromotionEnded{ID: e.ID, Outcome: e.Outcome, Found: e.Found, Detail: e.Detail, Grown: e.Grown})
	}
}

func (m *Machine) checked(e *state.Checked) {
	l := m.fold.Lines[e.Pipeline]
	if l == nil {
		return
	}
	spec, up := l.Stage(e.Stage)
	if spec == nil {
		return
	}
	// An answer that was sent again, or that a newer one overtook, says nothing.
	if had := up.Check(e.Name, e.Commit); had != nil && had.Time >= e.Time {
		return
	}
	m.emit(spec.App, &state.CheckReported{Pipeline: e.Pipeline, Stage: e.Stage, Name: e.Name, Commit: e.Commit, OK: e.OK, Detail: e.Detail, Time: e.Time})
}

// pipelines takes those that a root declares. An empty root removes none.
func (m *Machine) pipelines(e *state.RootRendered, empty bool) {
	wanted := map[state.PipelineName]bool{}
	for _, p := range e.Pipelines {
		wanted[p.Name] = true
		if old := m.fold.Lines[p.Name]; old != nil {
			same := old.Spec
			same.At = p.At
			if reflect.DeepEqual(same, p) {
				continue
			}
		}
		m.voidJobs(m.fold.Lines[p.Name], &p)
		m.emit("", &state.PipelineDeclared{Pipeline: p})
	}
	for _, l := range m.fold.SortedLines() {
		if !wanted[l.Spec.Name] && !empty {
			m.voidJobs(l, &state.Pipeline{})
			m.emit("", &state.PipelineRemoved{Name: l.Spec.Name})
		}
	}
}

// voidJobs ends the Jobs that judge for stages which are about to go, while it is
// known which they are.
func (m *Machine) voidJobs(l *state.Line, next *state.Pipeline) {
	if l == nil {
		return
	}
	for _, u := range l.Clone().Stages {
		if slices.ContainsFunc(next.Stages, func(s state.Stage) bool { return s.Name == u.Name && s.App == u.App }) {
			continue
		}
		for i := range u.Jobs {
			if j := &u.Jobs[i]; j.Outcome == 0 {
				m.gateJobEnded(l, &state.GateJobEnded{Pipeline: l.Spec.Name, Stage: u.Name, Job: j.Job, Commit: j.Commit.Hash, Outcome: state.GateVoid, Why: j.Why})
			}
		}
	}
}

// promotionCommand does what a person asks about pipelines; false: the command
// is about something else.
func (m *Machine) promotionCommand(e *state.Command) bool {
	var facts []state.Fact
	why, found := "", true
	switch p := m.fold.Promotions[e.Hold]; {
	case e.Verb == state.CmdApprove && p != nil:
		facts, why = m.voteFacts(p, e)
	case e.Verb == state.CmdReject && p != nil:
		facts, why = m.rejectFacts(p, e)
	case e.Object.Kind != "Pipeline":
		return false
	default:
		facts, why, found = m.stageFacts(e)
	}
	reply := &state.Reply{ID: e.ID, Code: state.ReplyDone, Why: why}
	m.out.Effects = append(m.out.Effects, reply)
	switch {
	case !found:
		reply.Code = state.ReplyNotFound
		return true
	case len(facts) == 0:
		reply.Code = state.ReplyRefused
		return true
	}
	app := m.appOfStage(e)
	r := m.emit(app, &state.Commanded{Verb: e.Verb, Object: e.Object, Reason: e.Reason, Detail: e.Detail, Until: e.Until, ID: e.Hold})
	reply.Seq, m.cause = r.Seq, r.Seq
	for _, f := range facts {
		m.emit(app, f)
		if f, ok := f.(*state.PromotionRequested); ok {
			reply.Promotion = f.ID
		}
	}
	return true
}

// appOfStage is the application that a command about pipelines is about.
func (m *Machine) appOfStage(e *state.Command) state.AppName {
	if p := m.fold.Promotions[e.Hold]; p != nil {
		return m.appOfPromotion(p)
	}
	name, stage, _ := strings.Cut(e.Object.Name, "/")
	if l := m.fold.Lines[state.PipelineName(name)]; l != nil {
		if spec, _ := l.Stage(stage); spec != nil {
			return spec.App
		}
	}
	return ""
}

func (m *Machine) voteFacts(p *state.Promotion, e *state.Command) ([]state.Fact, string) {
	as, why := promote.Vote(m.fold, p, e, m.now)
	if why != "" {
		return nil, why
	}
	return []state.Fact{&state.PromotionVoted{ID: p.ID, Approve: true, As: as}}, ""
}

// rejectFacts end a promotion; whoever may act on pipelines may say no.
func (m *Machine) rejectFacts(p *state.Promotion, e *state.Command) ([]state.Fact, string) {
	if p.Started != nil {
		return nil, "its branch is being moved already"
	}
	as, _ := promote.Vote(m.fold, p, e, m.now)
	return []state.Fact{&state.PromotionVoted{ID: p.ID, As: as}, &state.PromotionEnded{ID: p.ID, Outcome: state.PromotionRejected}}, ""
}

// stageFacts is what a command about a pipeline ("shop") or a stage
// ("shop/prod") leads to.
func (m *Machine) stageFacts(e *state.Command) (facts []state.Fact, why string, found bool) {
	name, stage, one := strings.Cut(e.Object.Name, "/")
	l := m.fold.Lines[state.PipelineName(name)]
	if l == nil {
		return nil, "there is no such pipeline", false
	}
	if spec, _ := l.Stage(stage); one && spec == nil {
		return nil, "there is no such stage", false
	}
	switch e.Verb {
	case state.CmdPromote:
		f, why := promote.Ask(m.fold, l, stage, e, m.now)
		if f == nil {
			return nil, why, true
		}
		facts := []state.Fact{f}
		// Who asks says yes, where their yes counts.
		p := &state.Promotion{ID: f.ID, Pipeline: f.Pipeline, Stage: f.Stage, Commit: f.Commit}
		if as, why := promote.Vote(m.fold, p, &state.Command{Verb: state.CmdApprove, Actor: e.Actor, Groups: e.Groups}, m.now); why == "" {
			facts = append(facts, &state.PromotionVoted{ID: f.ID, Approve: true, As: as})
		}
		return facts, "", true
	case state.CmdRollback:
		f, why := promote.Back(m.fold, l, stage, m.now)
		if f == nil {
			return nil, why, true
		}
		return []state.Fact{f}, "", true
	case state.CmdSuspend, state.CmdResume:
		on := e.Verb == state.CmdSuspend
		for i, u := range l.Stages {
			if (!one || u.Name == stage) && (on || u.Suspended) {
				facts = append(facts, &state.StageSuspended{Pipeline: l.Spec.Name, Stage: l.Stages[i].Name, On: on, Until: e.Until, Reason: e.Reason})
			}
		}
		if len(facts) == 0 {
			why = "it isn't suspended"
		}
		return facts, why, true
	default:
		return nil, fmt.Sprintf("a pipeline can't be asked to %s", e.Verb), true
	}
}

// checkLines is Check's part: looking at every pipeline from scratch decides
// nothing that this step didn't.
func (m *Machine) checkLines() error {
	for _, l := range m.fold.SortedLines() {
		d := promote.Next(m.fold, l, m.now)
		name := l.Spec.Name
		if d.Fact != nil {
			return fmt.Errorf("pipeline %s: incremental planning missed: %s", name, d.Fact.Kind())
		}
		if (d.Wake-m.lines.wakes[name]).Abs() > clockStep || (d.Wake == 0) != (m.lines.wakes[name] == 0) {
			return fmt.Errorf("pipeline %s: incremental planning would wake at %s, full planning at %s", name, m.lines.wakes[name], d.Wake)
		}
		for _, w := range wants(name, d.Reviews) {
			if m.lines.reviews[w] == nil {
				return fmt.Errorf("pipeline %s: incremental planning missed a review of %s", name, w.To)
			}
		}
	}
	for _, p := range m.fold.SortedPromotions() {
		if f := promote.Orphan(m.fold, p); f != nil || p.Started != nil && m.lines.pushes[p.ID] == nil {
			return fmt.Errorf("promotion %s: incremental planning missed it", p.ID)
		}
	}
	return nil
}

// wouldHold is how many workloads of a manifest could not run as the world is.
func (m *Machine) wouldHold(app state.AppName, manifest *state.Manifest) int32 {
	a := m.fold.Apps[app]
	if a == nil || manifest == nil {
		return 0
	}
	_, conflicts := m.diff(a, manifest)
	return int32(len(conflicts))
}
