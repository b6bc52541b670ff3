package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Line is one record as people read it.
type Line struct {
	Seq     state.Seq     `json:"seq"`
	At      time.Time     `json:"at"`
	Cause   state.Seq     `json:"cause,omitempty"`
	Kind    string        `json:"kind"` // "PodPlaced"
	What    string        `json:"what"` // "place"
	App     state.AppName `json:"application,omitempty"`
	Object  state.Ref     `json:"object,omitzero"`
	UID     string        `json:"uid,omitempty"` // of a pod
	Node    string        `json:"node,omitempty"`
	Outcome string        `json:"outcome"`
	Actor   string        `json:"actor,omitempty"`
	Commit  string        `json:"commit,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Bad     bool          `json:"bad,omitempty"` // something is wrong, or held

	Apps []state.AppName `json:"-"` // where it is about many
}

// A Teller tells records one after the other. It remembers what later records
// name by UID.
type Teller struct {
	words   Words
	log     state.Digest
	pods    map[state.UID]life
	claims  map[state.UID]life
	commits map[state.AppName]string
}

type life struct {
	ref  state.Ref
	node state.NodeName
}

// NewTeller makes a Teller for records that come after, or before, a state: it
// knows the pods that are there, and of others what it has been told.
func NewTeller(s *state.State, words Words) Teller {
	t := Teller{words: words, pods: map[state.UID]life{}, claims: map[state.UID]life{}, commits: map[state.AppName]string{}}
	if s == nil {
		return t
	}
	t.log = s.LogID
	for _, p := range s.Pods {
		t.pods[p.UID] = life{podRef(p.Key), p.Node}
	}
	for _, c := range s.Claims {
		t.claims[c.Volume] = life{c.Ref, c.Node}
	}
	for name, a := range s.Apps {
		t.commits[name] = shortCommit(a.Revision)
	}
	return t
}

func podRef(k state.PodKey) state.Ref {
	return state.Ref{Kind: "Pod", Namespace: k.Namespace, Name: k.Name}
}

func shortCommit(r state.Revision) string {
	c := r.Commit()
	return c[:min(7, len(c))]
}

// Tell puts a record into words.
func (t *Teller) Tell(r *state.Record) Line {
	l := Line{Seq: r.Seq, At: r.At.Time(), Cause: r.Cause, Kind: r.Fact.Kind().String(), App: r.App, Commit: t.commits[r.App], Outcome: "done"}
	if !r.Actor.IsZero() {
		l.Actor = t.words(r.Actor)
	}
	switch f := r.Fact.(type) {
	case *state.LogStarted:
		t.log = f.ID
		l.What, l.Reason = "start log", "format "+fmt.Sprint(f.Format)
	case *state.ControllerStarted:
		l.What, l.Reason = "start", "controller "+f.Version
	case *state.ControllerStopped:
		l.What, l.Reason = "stop", "controller; nodes are parked"
	case *state.ClockStepped:
		l.What, l.Reason = "clock", "stepped by "+f.By.String()
	case *state.NodeJoined, *state.NodeChanged, *state.NodeReady, *state.NodeLost, *state.NodeSuspect, *state.NodeCordoned, *state.NodeRemoved:
		t.node(&l, f)
	case *state.PodPlaced, *state.PodStopping, *state.PodHurried, *state.PodGone, *state.PodObserved, *state.PodFlapping, *state.PodSettled:
		t.pod(&l, r)
	case *state.AppQuarantined, *state.AppDeclared, *state.AppRemoved, *state.AppSuspended, *state.RevisionSeen, *state.RevisionsSeen, *state.RevisionRejected, *state.RevisionApplied, *state.Converged,
		*state.Degraded, *state.SourceLost, *state.SourceBack, *state.ObjectGone:
		t.app(&l, f)
	default:
		t.work(&l, f)
	}
	return l
}

func (t *Teller) node(l *Line, fact state.Fact) {
	set := func(name state.NodeName, what, outcome string) {
		l.What, l.Outcome, l.Node = what, outcome, string(name)
		l.Object = state.Ref{Kind: "Node", Name: string(name)}
	}
	switch f := fact.(type) {
	case *state.NodeJoined:
		set(f.Node, "join", Platform(&f.Facts))
		if f.Facts.Simulated {
			l.Reason = "simulated"
		}
	case *state.NodeChanged:
		set(f.Node, "change", Platform(&f.Facts))
	case *state.NodeReady:
		set(f.Node, "node", "ready")
	case *state.NodeLost:
		set(f.Node, "node", "lost")
		l.Bad, l.Reason = true, fmt.Sprintf("last heard %s before", ago(time.Duration(l.At.UnixNano()-f.Since.Wall)))
	case *state.NodeSuspect:
		set(f.Node, "node", "silent")
		l.Reason = fmt.Sprintf("for %s", f.Silent.Round(time.Second))
	case *state.NodeCordoned:
		set(f.Node, "uncordon", "done")
		if f.On {
			l.What = "cordon"
		}
	case *state.NodeRemoved:
		set(f.Node, "remove", "done")
	}
}

func (t *Teller) pod(l *Line, r *state.Record) {
	if f, ok := r.Fact.(*state.PodPlaced); ok {
		uid := state.NewUID(t.log, r.Seq, f.Pod.Namespace, f.Pod.Name)
		t.pods[uid] = life{podRef(f.Pod), f.Node}
		l.What, l.Object, l.UID, l.Node, l.Outcome = "place", podRef(f.Pod), uid.String(), string(f.Node), "on "+string(f.Node)
		if f.Isolation != state.NoIsolation {
			l.Reason = string(f.Isolation) + " isolation"
		}
		return
	}
	about := func(uid state.UID, what string) {
		p := t.pods[uid]
		l.What, l.Object, l.UID, l.Node = what, p.ref, uid.String(), string(p.node)
		if p.ref.IsZero() {
			l.Object = state.Ref{Kind: "Pod", Name: uid.String()}
		}
	}
	switch f := r.Fact.(type) {
	case *state.PodStopping:
		about(f.UID, "stop")
		l.Outcome, l.Reason = "stopping", f.Why.String()
	case *state.PodHurried:
		about(f.UID, "stop")
		l.Outcome, l.Reason = "hurried", "given "+f.Grace.String()+" to end"
	case *state.PodGone:
		about(f.UID, "end")
		l.Outcome = "gone"
		switch {
		case f.Fenced:
			l.Reason = "its node is silent for so long that it must have ended it"
		case f.Vanished:
			l.Bad, l.Reason = true, "the node had it no more, though nobody stopped it"
		case f.Exit != 0:
			l.Reason = fmt.Sprintf("exited %d", f.Exit)
		}
		delete(t.pods, f.UID)
	case *state.PodObserved:
		about(f.UID, "pod")
		t.observed(l, f)
	case *state.PodFlapping:
		about(f.UID, "pod")
		l.Outcome, l.Bad, l.Reason = "flapping", true, fmt.Sprintf("%d changes", f.Edges)
	case *state.PodSettled:
		about(f.UID, "pod")
		l.Outcome = "settled"
	}
}

func (t *Teller) observed(l *Line, f *state.PodObserved) {
	switch {
	case f.Ready:
		l.Outcome = "ready"
	case f.Reason != state.ReasonNone:
		l.Outcome = f.Reason.String()
		l.Bad = !underway(f.Reason)
	default:
		l.Outcome = f.Phase.String()
	}
	var said []string
	for i := range f.Containers {
		c := &f.Containers[i]
		if c.State == state.ContainerTerminated && c.ExitCode != 0 {
			said = append(said, fmt.Sprintf("%s exited %d", c.Name, c.ExitCode))
		}
		if c.Restarts > 0 {
			said = append(said, fmt.Sprintf("%s restarted %d times", c.Name, c.Restarts))
		}
	}
	if !f.Detail.IsZero() {
		said = append(said, firstLine(t.words(f.Detail)))
	}
	l.Reason = strings.Join(said, "; ")
}

func (t *Teller) app(l *Line, fact state.Fact) {
	self := func(what string) {
		l.What, l.Object = what, state.Ref{Kind: "Application", Name: string(l.App)}
	}
	switch f := fact.(type) {
	case *state.AppSuspended:
		self("suspend")
		l.Outcome = "on"
		if !f.On {
			l.Outcome = "off"
		}
	case *state.AppDeclared:
		l.App = f.Application.Name
		self("declare")
		l.Reason = f.Application.At.String()
	case *state.AppRemoved:
		l.App = f.Name
		self("remove")
		l.Outcome = "left the root"
	case *state.RevisionSeen:
		t.commits[l.App], l.Commit = shortCommit(f.Revision), shortCommit(f.Revision)
		self("see")
		l.Outcome, l.Reason = f.Revision.Short(), "changes nothing here"
	case *state.RevisionsSeen:
		for _, app := range f.Apps {
			t.commits[app] = shortCommit(f.Revision)
		}
		l.What, l.Commit, l.Apps = "see", shortCommit(f.Revision), f.Apps
		l.Outcome, l.Reason = f.Revision.Short(), "changes nothing in "+plural(len(f.Apps), "application")
	case *state.RevisionRejected:
		l.Commit = shortCommit(f.Revision)
		self("reject")
		l.Outcome, l.Bad = plural(int(f.Problems), "problem"), true
		l.Reason = firstLine(t.words(f.Detail))
		if len(f.Fixed) > 0 {
			l.Reason = fixedText(f.Fixed[0])
		}
	case *state.RevisionApplied:
		t.commits[l.App], l.Commit = shortCommit(f.Revision), shortCommit(f.Revision)
		self("apply")
		l.Outcome = f.Revision.Short()
		l.Reason = changes(f.Changes)
		if !f.Commit.Message.IsZero() {
			l.Reason += after("; ", fmt.Sprintf("%q", firstLine(t.words(f.Commit.Message))))
		}
	case *state.AppQuarantined:
		self("quarantine")
		l.Outcome, l.Bad, l.Reason = f.Revision.Short(), true, Short(f.Workload)+" was not healthy in time; "+f.Good.Short()+" is restored"
	case *state.Converged:
		self("converge")
		l.Outcome = f.Revision.Short()
	case *state.Degraded:
		self("degrade")
		l.Outcome, l.Bad, l.Reason = f.Revision.Short(), true, Short(f.Object)+" is not available"
	case *state.SourceLost:
		self("source")
		l.Outcome, l.Bad, l.Reason = "lost", true, firstLine(t.words(f.Detail))
	case *state.SourceBack:
		self("source")
		l.Outcome = "back"
	case *state.ObjectGone:
		l.What, l.Object, l.Outcome = "prune", f.Ref, "gone"
	}
}

// changes is "2 create, 1 update".
func changes(cs []state.Change) string {
	count := map[state.Verb]int{}
	for i := range cs {
		count[cs[i].Verb]++
	}
	var parts []string
	for v := state.Create; v <= state.Keep; v++ {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	if len(parts) == 0 {
		return "no object changes"
	}
	return strings.Join(parts, ", ")
}

func (t *Teller) work(l *Line, fact state.Fact) {
	switch f := fact.(type) {
	case *state.ImageResolved:
		l.What, l.Object = "resolve", state.Ref{Kind: "Image", Name: f.Image.Name}
		l.Outcome = f.Image.Index.Short()
		switch {
		case f.Image.Assumed:
			l.Outcome, l.Reason = "taken to exist", f.Image.Failure.String()
		case f.Image.Failure != 0:
			l.Outcome, l.Reason, l.Bad = "failed", f.Image.Failure.String(), true
		}
	case *state.Revised:
		l.What, l.Object = "revise", f.Workload
		l.Outcome, l.Reason = fmt.Sprintf("revision %d", f.Number), strings.TrimSpace(string(f.OS)+" template "+f.Template.Short())
	case *state.Decided:
		l.What, l.Object = "schedule", f.Workload
		l.Outcome = fmt.Sprintf("%d of %d placed", f.Placed, f.Asked)
		l.Bad = f.Placed < f.Asked
		l.Reason = string(f.OS)
	case *state.Held:
		l.What, l.Object, l.Outcome, l.Bad = "hold", f.Object, f.ID, f.Code != state.HoldPredecessor
		l.Reason = HoldText(f)
	case *state.Released:
		l.What, l.Object, l.Outcome = "release", f.Object, f.ID
		if f.Approved {
			l.What = "approve"
		}
	case *state.NodeRanged:
		l.What, l.Object, l.Outcome = "range", state.Ref{Kind: "Node", Name: string(f.Node)}, f.Range
	case *state.ServiceAddressed:
		l.What, l.Object, l.Outcome = "address", f.Service, orText(f.IP, "none: headless")
	case *state.RolledOut:
		l.What, l.Object = "roll out", f.Workload
	case *state.JobMoved:
		l.What, l.Object, l.Outcome, l.Reason = "job", f.Workload, f.Stage.String(), f.Why.String()
		l.Bad = f.Stage == state.JobFailed
	case *state.PodCounted:
		l.What, l.Outcome = "count", f.Verdict.String()
		if p, ok := t.pods[f.UID]; ok {
			l.Object, l.UID, l.Node = p.ref, f.UID.String(), string(p.node)
		}
	case *state.CronFired:
		l.What, l.Object, l.Outcome = "fire", f.CronJob, Short(f.Job)
		l.Reason, l.Bad = missed(f.Missed)
	case *state.JobDropped:
		l.What, l.Object, l.Outcome, l.Reason = "drop", f.Job, "done", f.Why.String()
	case *state.Scaled:
		l.What, l.Object, l.Outcome = "scale", f.Workload, fmt.Sprintf("%d wanted", f.Replicas)
		l.Reason = "in the midst of a rollout: shared out over its revisions"
	case *state.Stalled:
		l.What, l.Object, l.Outcome, l.Bad = "roll out", f.Workload, "stuck", true
		l.Reason = "no progress within its deadline"
	case *state.Commanded:
		l.What, l.Object, l.Outcome = f.Verb.String(), f.Object, "asked"
		if f.ID != "" {
			l.Outcome = f.ID
		}
		if !f.Reason.IsZero() {
			l.Reason = t.words(f.Reason)
		}
		if !f.Detail.IsZero() {
			l.Reason = strings.TrimPrefix(l.Reason+after("; ", firstLine(t.words(f.Detail))), "; ")
		}
	default:
		if !t.claim(l, fact) {
			t.promotion(l, fact)
		}
	}
}

// Lines prints history for people.
func Lines(w io.Writer, lines []Line, header bool) {
	var rows [][]string
	if header {
		rows = append(rows, []string{"SEQ", "TIME", "WHAT", "OBJECT", "OUTCOME", "ACTOR", "COMMIT", "REASON"})
	}
	now := time.Time{}
	if len(lines) > 0 {
		now = lines[len(lines)-1].At
	}
	for i := range lines {
		l := &lines[i]
		object := "-"
		if !l.Object.IsZero() {
			object = Short(l.Object)
		}
		rows = append(rows, []string{fmt.Sprint(l.Seq), clock(l.At, now), l.What, object, l.Outcome, orDash(l.Actor), orDash(l.Commit), l.Reason})
	}
	table(w, rows...)
}

// underway says whether a reason is a step on the way and no trouble.
func underway(r state.PodReason) bool {
	return r == state.ReasonContainerCreating || r == state.ReasonInitializing || r == state.ReasonCompleted || r == state.ReasonImagePull
}

// missed says how many runs of a CronJob passed before the one that begins, and
// whether they are too many to have been counted.
func missed(n int32) (words string, bad bool) {
	switch {
	case n >= plan.MaxMissed:
		return fmt.Sprintf("%d times or more before it missed: was a clock wrong? spec.startingDeadlineSeconds says how late one may be", n), true
	case n > 0:
		return plural(int(n), "time") + " before it missed", false
	default:
		return "", false
	}
}
