package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// placeKey is the scope of a recorded scheduling answer.
type placeKey struct {
	workload state.Ref
	os       state.OS
	refused  bool // of a template that the workload hasn't got
}

// answered is the record that has a scheduling answer's reasons.
type answered struct {
	digest state.Digest
	seq    state.Seq
}

// sorted are the keys of a map, in order. Most are asked of most steps, and empty.
func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	keys := slices.AppendSeq(make([]K, 0, len(m)), maps.Keys(m))
	slices.Sort(keys)
	return keys
}

// rounds bounds how often planning may go round within one step: each round
// records something, and what it records ends.
const rounds = 10_000

// plan plans every dirty workload, in canonical order, until there is none.
func (m *Machine) plan() {
	for range rounds {
		if len(m.dirty) == 0 {
			m.cleanUp()
			if len(m.dirty) == 0 {
				return
			}
		}
		refs := slices.SortedFunc(maps.Keys(m.dirty), m.order)
		clear(m.dirty)
		causes := m.causes
		m.causes = map[state.Ref]state.Seq{}
		for _, ref := range refs {
			if w := m.fold.Workloads[ref]; w != nil {
				m.cause = causes[ref]
				m.workload(w)
			} else {
				delete(m.waiting, ref)
				m.wakes.set(ref, 0)
			}
		}
		m.cause = 0
	}
	panic("planning does not come to an end")
}

// order is the canonical order: higher priority first, then by name.
func (m *Machine) order(a, b state.Ref) int {
	return cmp.Or(cmp.Compare(m.priority(b), m.priority(a)), a.Compare(b))
}

func (m *Machine) priority(ref state.Ref) int32 {
	w := m.fold.Workloads[ref]
	if w == nil || len(w.Variants) == 0 || len(m.fold.Rules) == 0 && w.Variants[0].Spec.Spec.PriorityClassName == "" {
		return 0
	}
	value, _ := schedule.PriorityOf(m.fold, &w.Variants[0].Spec.Spec)
	return value
}

// workload plans one workload and records what was decided.
func (m *Machine) workload(w *state.Workload) {
	d := m.planner.Workload(m.fold, w, m.now)
	set(m.waiting, w.Ref, d.Waiting)
	set(m.tight, w.Ref, slices.ContainsFunc(d.Held, func(h state.Held) bool { return h.Code == state.HoldBudget }))
	m.wakes.set(w.Ref, d.Wake)
	decided := map[state.OS]state.Seq{}
	for i := range d.Refused {
		m.refused(w, &d.Refused[i], decided)
	}
	if len(d.Revise) > 0 {
		m.revise(w, d.Revise)
		m.hold(w, d.Held, decided)
		return
	}
	if len(d.Count) > 0 || d.Job != nil {
		m.job(w, &d)
		return
	}
	for _, x := range d.Scaled {
		m.emit(w.App, &state.Scaled{Workload: w.Ref, OS: x.Variant.OS, Replicas: x.Replicas})
	}
	for _, s := range d.Stop {
		m.emit(m.appOf(s.Pod), &state.PodStopping{UID: s.Pod.UID, Why: s.Why})
	}
	for i := range d.Decided {
		m.placed(w, &d.Decided[i], decided)
	}
	m.hold(w, d.Held, decided)
	if d.Stalled {
		m.emit(w.App, &state.Stalled{Workload: w.Ref})
	}
	if d.Complete && !w.Complete {
		m.emit(w.App, &state.RolledOut{Workload: w.Ref, Partial: d.Partial, Keep: keeps(w)})
	}
	m.apps[w.App] = true
	for _, f := range d.Forfeit {
		m.dropClaim(f.Claim, f.Why)
	}
	m.cron(w, &d)
	if d.Expired && !w.Deleting {
		m.emit(w.App, &state.JobDropped{Job: w.Ref, Why: state.DropExpired})
	}
	if d.Gone {
		m.emit(w.App, &state.ObjectGone{Ref: w.Ref})
		delete(m.waiting, w.Ref)
		m.wakes.set(w.Ref, 0)
	}
}

// keeps is how many revisions of a workload stay; 0: it doesn't say.
func keeps(w *state.Workload) int32 {
	var limit *int32
	switch b := w.Owned.Object.First().(type) {
	case *appsv1.Deployment:
		limit = b.Spec.RevisionHistoryLimit
	case *appsv1.StatefulSet:
		limit = b.Spec.RevisionHistoryLimit
	case *appsv1.DaemonSet:
		limit = b.Spec.RevisionHistoryLimit
	}
	if limit == nil {
		return 0
	}
	return 1 + min(*limit, math.MaxInt32-1)
}

func set(in map[state.Ref]bool, ref state.Ref, on bool) {
	if on {
		in[ref] = true
	} else {
		delete(in, ref)
	}
}

func (m *Machine) revise(w *state.Workload, list []plan.Revise) {
	number := w.Revision + 1
	for _, r := range list {
		m.keep(&r)
		m.emit(w.App, &state.Revised{Workload: w.Ref, OS: r.Variant.OS, Template: r.Template.Digest, Number: number, Keep: keeps(w)})
	}
}

// keep puts a template beside the log.
func (m *Machine) keep(r *plan.Revise) {
	if _, known := m.blobs.templates[r.Template.Digest]; !known {
		m.blobs.templates[r.Template.Digest] = r.Template
		m.out.Blobs = append(m.out.Blobs, Blob{Digest: r.Template.Digest, Template: r.Raw, Compiled: r.Template})
	}
}

// refused records why no node could take a template, where it says something new.
func (m *Machine) refused(w *state.Workload, r *plan.Refusal, decided map[state.OS]state.Seq) {
	key := placeKey{w.Ref, r.Template.OS, true}
	digest := groupsDigest(r.Template, r.Groups)
	if last := m.groups[key]; last.digest == digest {
		decided[r.Template.OS] = last.seq
		return
	}
	m.keep(&r.Revise)
	record := m.emit(w.App, &state.Decided{
		Workload: w.Ref, OS: r.Template.OS, Template: r.Template.Digest, Asked: r.Variant.Replicas, Groups: r.Groups,
	})
	decided[r.Template.OS] = record.Seq
	m.groups[key] = answered{digest, record.Seq}
}

// placed records a scheduling answer, with every refused node's reason where it
// says something new, and the pods that it places.
func (m *Machine) placed(w *state.Workload, p *plan.Placement, decided map[state.OS]state.Seq) {
	key := placeKey{w.Ref, p.Start.Template.OS, false}
	digest := groupsDigest(p.Start.Template, p.Answer.Groups)
	last := m.groups[key]
	decided[p.Start.Template.OS] = last.seq // 0, or as long as the nodes' reasons are the same
	if len(p.Answer.Spots) > 0 || last.digest != digest {
		cause := m.cause
		r := m.emit(w.App, &state.Decided{
			Workload: w.Ref, OS: p.Start.Template.OS, Template: p.Start.Template.Digest,
			Asked: int32(p.Start.Count), Placed: int32(len(p.Answer.Spots)), Groups: p.Answer.Groups,
		})
		decided[p.Start.Template.OS] = r.Seq
		m.groups[key] = answered{digest, r.Seq}
		m.cause = r.Seq
		defer func() { m.cause = cause }()
	}
	if len(p.Answer.Spots) > 0 {
		for i := range p.Bind {
			b := p.Bind[i]
			b.Node = p.Answer.Spots[0].Node.Name
			m.emit(m.appOfClaim(w, b.Claim), &b)
		}
	}
	for i, spot := range p.Answer.Spots {
		ordinal := p.Start.Ordinal
		if len(p.Start.Ordinals) > 0 {
			ordinal = p.Start.Ordinals[i]
		}
		key, serial := m.nextName(w, p.Start.Template, ordinal)
		m.emit(w.App, &state.PodPlaced{
			Pod: key, Workload: w.Ref, OS: spot.Node.Facts.OS, Ordinal: ordinal, Template: p.Start.Template.Digest,
			Node: spot.Node.Name, Isolation: spot.Isolation, Serial: serial,
			Loss: lossOf(w, spot.Node),
		})
	}
}

func groupsDigest(t *state.Template, groups []state.ReasonGroup) state.Digest {
	b := append([]byte(nil), t.Digest[:]...)
	for _, g := range groups {
		b = fmt.Appendf(b, "%d:%v;", g.Reason, g.Nodes)
	}
	return state.DigestOf(b)
}

// job records what ends of a Job's pods count for, or the Job's next stage.
func (m *Machine) job(w *state.Workload, d *plan.Decision) {
	for _, c := range d.Count {
		m.emit(w.App, &state.PodCounted{UID: c.Pod.UID, Verdict: c.Verdict})
	}
	if d.Job != nil {
		m.emit(w.App, &state.JobMoved{Workload: w.Ref, Stage: d.Job.Stage, Why: d.Job.Why})
	}
}

// cron records which Jobs a CronJob drops, and the one that it begins.
func (m *Machine) cron(w *state.Workload, d *plan.Decision) {
	for _, x := range d.Drop {
		m.emit(w.App, &state.JobDropped{Job: x.Job.Ref, Why: x.Why})
	}
	if d.Fire != nil {
		m.emit(w.App, &state.CronFired{CronJob: w.Ref, Job: d.Fire.Job, At: d.Fire.At, Missed: d.Fire.Missed})
	}
}

// gone ends a pod's life; what it counts for is recorded before.
func (m *Machine) gone(p *state.Pod, vanished bool) {
	if m.cause == 0 {
		m.cause = p.Changed // what was last recorded of it: that it should stop, or ran
		defer func() { m.cause = 0 }()
	}
	if w := m.fold.Workloads[p.Workload]; w != nil {
		if v := rollout.Verdict(w, p, true); v != 0 {
			m.emit(w.App, &state.PodCounted{UID: p.UID, Verdict: v})
		}
	}
	m.emit(m.appOf(p), &state.PodGone{UID: p.UID, Vanished: vanished})
}

// nextName gives the next pod its name: its identity's, or one that no pod has.
func (m *Machine) nextName(w *state.Workload, t *state.Template, ordinal int32) (state.PodKey, uint64) {
	key := state.PodKey{Namespace: w.Ref.Namespace}
	for serial := w.Serial + 1; ; serial++ {
		key.Name = plan.PodName(w, t, ordinal, serial)
		if m.fold.ByName[key] == nil || w.Ref.Kind == "StatefulSet" || w.Ref.Kind == "Pod" {
			return key, serial
		}
	}
}

// hold records what holds now and what no longer does.
func (m *Machine) hold(w *state.Workload, now []state.Held, decided map[state.OS]state.Seq) {
	for i := range now {
		h := now[i]
		if seq, ok := decided[h.OS]; ok {
			h.Decided = seq
		} else if old := w.Holds[h.ID]; old != nil {
			h.Decided = old.Decided
		}
		if old := w.Holds[h.ID]; old == nil || !sameHold(&old.Held, &h) {
			m.emit(w.App, &h)
		}
	}
	for _, id := range sorted(w.Holds) {
		if !slices.ContainsFunc(now, func(h state.Held) bool { return h.ID == id }) {
			m.emit(w.App, &state.Released{ID: id, Object: w.Ref})
		}
	}
}

func sameHold(a, b *state.Held) bool {
	return a.Code == b.Code && a.OS == b.OS && a.Count == b.Count && slices.Equal(a.Params, b.Params)
}

// pending says what a decision would still record; empty where nothing.
func (m *Machine) pending(w *state.Workload, d *plan.Decision) string {
	switch {
	case len(d.Revise) > 0:
		return "a revision"
	case len(d.Scaled) > 0:
		return "shares of its revisions"
	case len(d.Stop) > 0:
		return fmt.Sprintf("to stop %s (%s)", d.Stop[0].Pod.Key, d.Stop[0].Why)
	case d.Complete && !w.Complete:
		return "that it is rolled out"
	case d.Stalled:
		return "that it is stalled"
	case d.Gone:
		return "that it is gone"
	case len(d.Forfeit) > 0:
		return "to drop " + d.Forfeit[0].Claim.Ref.String()
	case len(d.Count) > 0:
		return fmt.Sprintf("what %s counts for", d.Count[0].Pod.Key)
	case d.Job != nil:
		return "that it is " + d.Job.Stage.String()
	case len(d.Drop) > 0:
		return "to drop " + d.Drop[0].Job.Ref.String()
	case d.Fire != nil:
		return "to begin " + d.Fire.Job.String()
	case d.Expired && !w.Deleting:
		return "that its time is up"
	case len(d.Held) != len(w.Holds):
		return fmt.Sprintf("%d holds are recorded, %d hold", len(w.Holds), len(d.Held))
	}
	for i := range d.Decided {
		if n := len(d.Decided[i].Answer.Spots); n > 0 {
			return fmt.Sprintf("to place %d pods", n)
		}
	}
	for i := range d.Held {
		if old := w.Holds[d.Held[i].ID]; old == nil || !sameHold(&old.Held, &d.Held[i]) {
			return fmt.Sprintf("hold %s", d.Held[i].ID)
		}
	}
	return ""
}

// cleanUp drops ConfigMaps and Secrets that left the text and that no pod and
// no template in use names any more.
func (m *Machine) cleanUp() {
	if !m.retired {
		return
	}
	m.retired = false
	var gone []*state.Owned
	for _, o := range m.fold.Retired() {
		if !m.used(o.Object.Ref) {
			gone = append(gone, o)
		}
	}
	slices.SortFunc(gone, func(a, b *state.Owned) int { return a.Object.Ref.Compare(b.Object.Ref) })
	for _, o := range gone {
		m.emit(o.App, &state.ObjectGone{Ref: o.Object.Ref})
	}
}

func (m *Machine) used(ref state.Ref) bool {
	for _, w := range m.fold.WorkloadsIn(ref.Namespace) {
		for _, v := range w.Variants {
			if v.Update != nil && m.fold.Uses(w.Ref.Namespace, v.Update, ref) || v.Current != nil && m.fold.Uses(w.Ref.Namespace, v.Current, ref) {
				return true
			}
		}
		for _, p := range w.Pods {
			if m.fold.Uses(w.Ref.Namespace, p.Template, ref) {
				return true
			}
		}
	}
	return false
}
