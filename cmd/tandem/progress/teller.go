package progress

import (
	"fmt"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A teller makes lines of what a person would put on a timeline. Pods are not
// told one by one: a workload is, when it becomes ready and when it no longer is.
type teller struct {
	words   report.Words
	shown   map[state.Ref]string // of each workload, what was told last
	touched map[state.Ref]bool   // since settle was last called
	at      state.Instant
	idle    bool          // all had converged
	since   state.Instant // what came first after that
}

func (t *teller) line(at state.Instant, format string, args ...any) string {
	t.at = at
	return at.Time().Local().Format(time.TimeOnly) + " " + fmt.Sprintf(format, args...)
}

// tell makes the lines of one record.
func (t *teller) tell(s *state.State, r *state.Record, begun state.Instant) []string {
	if t.touched == nil {
		t.touched = map[state.Ref]bool{}
	}
	t.at = r.At
	t.disturb(r)
	switch f := r.Fact.(type) {
	case *state.NodeReady:
		if n := s.Nodes[f.Node]; n != nil {
			simulated := ""
			if n.Facts.Simulated {
				simulated = ", simulated"
			}
			return []string{t.line(r.At, "node %s ready (%s%s)", f.Node, report.Platform(&n.Facts), simulated)}
		}
	case *state.NodeLost:
		return []string{t.line(r.At, "node %s lost: its lease lapsed", f.Node)}
	case *state.NodeCordoned:
		word := "uncordoned"
		if f.On {
			word = "cordoned"
		}
		return []string{t.line(r.At, "node %s %s", f.Node, word)}
	case *state.RevisionRejected:
		text := strings.TrimRight(t.words(f.Detail), "\n")
		return []string{t.line(r.At, "%s %s: %d problems, nothing of it was applied\n%s", r.App, f.Revision.Short(), f.Problems, text)}
	case *state.RevisionApplied:
		return []string{t.line(r.At, "%s %s: %s", r.App, f.Revision.Short(), t.applied(s, r, f))}
	case *state.Converged:
		return append(t.settle(s), t.converged(s, r, begun)...)
	case *state.Held:
		if f.Code != state.HoldPredecessor {
			return []string{t.line(r.At, "held %s %s: %s", f.ID, report.Short(f.Object), report.HoldText(f))}
		}
	case *state.Released:
		return []string{t.line(r.At, "released %s %s", f.ID, report.Short(f.Object))}
	case *state.Stalled:
		return []string{t.line(r.At, "%s stuck: no progress within its deadline", f.Workload.Name)}
	case *state.SourceLost:
		return []string{t.line(r.At, "%s git does not answer: %s", r.App, t.words(f.Detail))}
	case *state.SourceBack:
		return []string{t.line(r.At, "%s git answers again", r.App)}
	default:
		t.touch(s, r)
	}
	return nil
}

// touch remembers the workload that a record is about.
func (t *teller) touch(s *state.State, r *state.Record) {
	pod := func(uid state.UID) {
		if p := s.Pods[uid]; p != nil {
			t.touched[p.Workload] = true
		}
	}
	switch f := r.Fact.(type) {
	case *state.PodPlaced:
		t.touched[f.Workload] = true
	case *state.PodObserved:
		pod(f.UID)
	case *state.PodStopping:
		pod(f.UID)
	case *state.PodFlapping:
		pod(f.UID)
	case *state.RolledOut:
		t.touched[f.Workload] = true
	default:
	}
}

// applied is "5 objects, linux and windows; 5 pods to make", and later "5
// objects, linux and windows; changed: deploy/web". It follows from the record
// alone: the state may be further by now.
func (t *teller) applied(s *state.State, r *state.Record, f *state.RevisionApplied) string {
	var objects int
	for _, o := range s.Objects {
		if o.App == r.App {
			objects++
		}
	}
	oses := map[state.OS]bool{}
	for _, w := range s.Workloads {
		if w.App != r.App {
			continue
		}
		for _, v := range w.Variants {
			oses[v.OS] = true
		}
	}
	out := fmt.Sprintf("%d objects", objects)
	if oses[state.Linux] && oses[state.Windows] {
		out += ", linux and windows"
	}
	pods, lists := 0, map[string][]string{}
	for _, c := range f.Changes {
		w := s.Workloads[c.Ref]
		switch {
		case c.Verb == state.Create && w != nil:
			pods += int(w.Replicas())
		case c.Verb == state.Create && len(f.Changes) < objects:
			lists["new"] = append(lists["new"], report.Short(c.Ref))
		case c.Verb == state.Update:
			lists["changed"] = append(lists["changed"], report.Short(c.Ref))
		case c.Verb == state.Delete || c.Verb == state.Retire:
			lists["gone"] = append(lists["gone"], report.Short(c.Ref))
		}
	}
	if pods > 0 {
		out += fmt.Sprintf("; %d pods to make", pods)
	}
	for _, what := range []string{"new", "changed", "gone"} {
		if list := lists[what]; len(list) > 0 {
			out = strings.Join([]string{out, what + ": " + some(list)}, "; ")
		}
	}
	return out
}

// namesMost is how many objects a line names.
const namesMost = 4

func some(list []string) string {
	if len(list) <= namesMost {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:namesMost-1], ", "), len(list)-namesMost+1)
}

// settle tells the workloads that have become ready, or no longer are.
func (t *teller) settle(s *state.State) []string {
	var out []string
	for _, w := range s.SortedWorkloads() {
		if !t.touched[w.Ref] || w.Deleting { // "0/2 ready" is no news of what is to go
			continue
		}
		v := report.NewWorkload(s, w)
		now := "ready"
		if !v.Ready {
			now = "unready"
		}
		before := t.shown[w.Ref]
		if now == "ready" {
			now += fmt.Sprint(w.Revision, v.Pods, w.Restart)
		}
		switch {
		case before == now, before == "" && !v.Ready:
			// It is on its way for the first time: the line comes when it is there.
		case v.Ready:
			out = append(out, t.line(t.at, "%s %s ready: %s", w.Ref.Name, v.Pods, byOS(&v)))
		default:
			out = append(out, t.line(t.at, "%s %s ready%s", w.Ref.Name, v.Pods, worst(w, t.words)))
		}
		t.shown[w.Ref] = now
	}
	t.touched = map[state.Ref]bool{}
	return out
}

// converged tells that all there is has converged, and in what time.
func (t *teller) converged(s *state.State, r *state.Record, begun state.Instant) []string {
	for _, a := range s.Apps {
		if !a.Converged && !a.Spec.Suspend.On {
			return []string{t.line(r.At, "%s converged", r.App)}
		}
	}
	from := t.since
	if from.IsZero() {
		from = begun
	}
	t.since, t.idle = state.Instant{}, true
	return []string{t.line(r.At, "converged in %.1f s", r.At.Since(from).Seconds())}
}

// disturb remembers what first came after all had converged: the next time is
// counted from there.
func (t *teller) disturb(r *state.Record) {
	if !t.idle {
		return
	}
	switch r.Fact.(type) {
	case *state.RevisionApplied, *state.Degraded, *state.Commanded, *state.NodeLost, *state.PodGone, *state.PodStopping, *state.AppDeclared:
		t.since, t.idle = r.At, false
	default:
	}
}
