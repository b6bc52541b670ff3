package plan

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Forfeit is a claim whose data is to be deleted, because its StatefulSet's
// retention policy says so.
type Forfeit struct {
	Claim *state.Claim
	Why   state.ClaimsFate
}

// storage is what the claims of a batch's pods mean for where they may go.
type storage struct {
	node  state.NodeName     // where their data is; empty: anywhere
	bind  []state.ClaimBound // get their volumes where the first pod goes
	lone  bool               // one of them is for one pod at a time
	claim state.Ref          // the one that says node
	held  *state.Held        // no pod may start
}

// storageOf looks at the claims of the pods to start. here has those that were
// bound before in the same decision.
func storageOf(s *state.State, w *state.Workload, start rollout.Start, here map[state.Ref]state.NodeName) storage {
	var out storage
	hold := func(code state.HoldCode, params ...string) storage {
		out.held = &state.Held{Object: w.Ref, Code: code, OS: start.Template.OS, Count: int32(start.Count), Params: params}
		return out
	}
	for _, use := range start.Template.Claims {
		ref := use.Claim(w.Ref.Namespace, start.Ordinal)
		if !use.Each {
			ref = use.Claim(w.Ref.Namespace, 0)
		}
		c := s.Claims[ref]
		at, fresh := here[ref]
		switch {
		case c != nil && c.Dropped != 0, c != nil && c.Once && s.InUse(c):
			return hold(state.HoldClaimBusy, ref.Name)
		case c != nil:
			at, out.lone = c.Node, out.lone || c.Once
		case fresh:
		default:
			b, ok := toBind(s, w, use, ref, start.Ordinal)
			if !ok {
				return hold(state.HoldClaimMissing, ref.Name)
			}
			out.bind, out.lone = append(out.bind, b), out.lone || b.Once
			continue
		}
		if out.node != "" && out.node != at {
			return hold(state.HoldVolume, volumeParam(w, start, ref, at, "apart"))
		}
		out.node, out.claim = at, ref
	}
	return out
}

// toBind is the claim that a pod asks for: in the text, or of a template of its
// StatefulSet. What the text itself has under that name comes first, and is
// nobody's to delete but the text's.
func toBind(s *state.State, w *state.Workload, use state.ClaimUse, ref state.Ref, ordinal int32) (state.ClaimBound, bool) {
	b := state.ClaimBound{Claim: ref}
	if o := s.Objects[ref]; o != nil {
		pvc, ok := o.Object.First().(*corev1.PersistentVolumeClaim)
		if !ok {
			return b, false
		}
		b.Capacity, b.Once = asked(&pvc.Spec)
		return b, true
	}
	set, ok := w.StatefulSet()
	if !use.Each || !ok {
		return b, false
	}
	b.Workload, b.Template, b.Ordinal = w.Ref, use.Volume, ordinal
	for i := range set.Spec.VolumeClaimTemplates {
		if t := &set.Spec.VolumeClaimTemplates[i]; t.Name == use.Volume {
			b.Capacity, b.Once = asked(&t.Spec)
			return b, true
		}
	}
	return b, false
}

// asked is how many bytes a claim wants, and whether for one pod at a time.
func asked(spec *corev1.PersistentVolumeClaimSpec) (bytes int64, once bool) {
	return spec.Resources.Requests.Storage().Value(), slices.Contains(spec.AccessModes, corev1.ReadWriteOncePod)
}

// Asked is how many bytes a claim of the text wants.
func Asked(o *state.Object) int64 {
	if pvc, ok := o.First().(*corev1.PersistentVolumeClaim); ok {
		bytes, _ := asked(&pvc.Spec)
		return bytes
	}
	return 0
}

// volumeParam is what a HoldVolume says of a pod: its name or that of its
// workload, the claim, the node that has the data, and why it can't run there.
func volumeParam(w *state.Workload, start rollout.Start, claim state.Ref, node state.NodeName, why string) string {
	name := w.Ref.Name
	if start.Ordinal >= 0 && w.Ref.Kind == "StatefulSet" {
		name = fmt.Sprintf("%s-%d", w.Ref.Name, start.Ordinal)
	}
	return fmt.Sprintf("%s %s %s %s", name, claim.Name, node, why)
}

// earlier is what was found for the batches of one decision before this one: room
// there is, and room that others make.
type earlier struct{ placed, made []schedule.Placed }

// place answers for one batch of pods, with where their data is.
func (p *Planner) place(d *Decision, s *state.State, w *state.Workload, start rollout.Start, before *earlier, here map[state.Ref]state.NodeName) {
	var data storage
	if len(start.Template.Claims) > 0 {
		if data = storageOf(s, w, start, here); data.held != nil {
			d.Waiting = true
			d.Held = append(d.Held, *data.held)
			return
		}
	}
	rest := 0
	if data.lone || len(data.bind) > 0 {
		// The first pod says where the data is, and may be the only one.
		rest, start.Count = start.Count-1, 1
	}
	req := schedule.Request{Workload: w, Variant: start.Variant, Template: start.Template, Count: start.Count, After: before.placed, Node: data.node}
	answer := p.roster.Place(s, req)
	before.placed = append(before.placed, schedule.Placed{Workload: w, Template: start.Template, Spots: answer.Spots})
	first := start
	if rest > 0 && len(start.Ordinals) > 0 {
		first.Ordinals = start.Ordinals[:1]
	}
	d.Decided = append(d.Decided, Placement{first, answer, data.bind})
	if lack := start.Count - len(answer.Spots); lack > 0 {
		d.Waiting = true
		lack += rest
		if data.node != "" {
			h := state.Held{Object: w.Ref, Code: state.HoldVolume, OS: start.Template.OS, Count: int32(lack)}
			h.Params = []string{volumeParam(w, start, data.claim, data.node, reasonAt(s, data.node, answer.Groups))}
			d.Held = append(d.Held, h)
		} else {
			d.Held = append(d.Held, noRoom(w, start, answer, lack))
		}
		if !answer.Static {
			req.Count, req.After = lack, before.placed
			before.made = p.preempt(d, s, req, before.made)
		}
		return
	}
	for i := range data.bind {
		here[data.bind[i].Claim] = answer.Spots[0].Node.Name
	}
	switch {
	case rest == 0:
	case data.lone:
		d.Waiting = true
		d.Held = append(d.Held, state.Held{Object: w.Ref, Code: state.HoldClaimBusy, OS: start.Template.OS, Count: int32(rest), Params: lone(start)})
	default:
		start.Count = rest
		if len(start.Ordinals) > 0 {
			start.Ordinals = start.Ordinals[1:]
		}
		p.place(d, s, w, start, before, here)
	}
}

func lone(start rollout.Start) []string {
	var names []string
	for _, use := range start.Template.Claims {
		names = append(names, use.ClaimName(start.Ordinal))
	}
	return names
}

// reasonAt says in a word why a node takes no pod now.
func reasonAt(s *state.State, node state.NodeName, groups []state.ReasonGroup) string {
	n := s.Nodes[node]
	if n == nil {
		return "removed"
	}
	for _, g := range groups {
		if !slices.Contains(schedule.Members(g), n.Index) {
			continue
		}
		switch g.Reason { //nolint:exhaustive // the rest is for `why` to tell
		case state.NodeNotReady:
			return "lost"
		case state.NodeIsCordoned:
			return "cordoned"
		case state.NodeShortCPU, state.NodeShortMemory, state.NodeShortStorage, state.NodeShortPods:
			return "full"
		}
	}
	return "unfit"
}

// A move is the identities that the text moves to the other OS while their data
// is on a node of the old one, by ordinal.
type move map[int32][]*state.Claim

// moveOf finds them and holds them: their data doesn't follow.
func moveOf(d *Decision, s *state.State, w *state.Workload) move {
	var names []string
	out := move{}
	for _, c := range s.ClaimsOf(w.Ref) {
		n := s.Nodes[c.Node]
		for _, v := range w.Variants {
			if n != nil && !w.Deleting && v.OS != state.AnyOS && v.OS != n.Facts.OS && c.Ordinal >= v.Start && c.Ordinal < v.Start+v.Replicas {
				out[c.Ordinal] = append(out[c.Ordinal], c)
				names = append(names, c.Ref.Name)
			}
		}
	}
	if len(out) > 0 {
		slices.Sort(names)
		d.Held, d.Waiting = append(d.Held, state.Held{Object: w.Ref, Code: state.HoldMove, Count: int32(len(out)), Params: names}), true
	}
	return out
}

// apply keeps these identities as they are, until a person gives their data up:
// then the pod goes, and with it the data.
func (m move) apply(d *Decision, w *state.Workload, step *rollout.Step) {
	if len(m) == 0 {
		return
	}
	step.Start = slices.DeleteFunc(step.Start, func(x rollout.Start) bool { return m[x.Ordinal] != nil })
	if old := w.Holds[HoldID(state.Held{Object: w.Ref, Code: state.HoldMove})]; old == nil || !old.Approved {
		step.Stop = slices.DeleteFunc(step.Stop, func(x rollout.Stop) bool { return m[x.Pod.Ordinal] != nil && x.Why == state.StopOutdated })
		return
	}
	for ordinal, claims := range m {
		for _, c := range claims {
			if c.Dropped == 0 && !hasOrdinal(w, ordinal) {
				d.Forfeit = append(d.Forfeit, Forfeit{c, state.DropApproved})
			}
		}
	}
	slices.SortFunc(d.Forfeit, func(a, b Forfeit) int { return a.Claim.Ref.Compare(b.Claim.Ref) })
}

// forfeit finds the claims whose data the retention policy of their StatefulSet
// gives up: of identities that it has no more, once their pods are gone, and of
// a deleted set all. A restarted pod or a lost node is no reason (Kubernetes's
// rule), and what the text has under the same name isn't the set's.
func forfeit(d *Decision, s *state.State, w *state.Workload) {
	set, ok := w.StatefulSet()
	if !ok || set.Spec.PersistentVolumeClaimRetentionPolicy == nil {
		return
	}
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	why, all := state.DropScaled, false
	switch {
	case w.Deleting && policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType:
		if len(w.Pods) > 0 {
			return
		}
		why, all = state.DropDeleted, true
	case w.Deleting || policy.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType:
		return
	}
	for _, c := range s.ClaimsOf(w.Ref) {
		if c.Dropped != 0 || s.Objects[c.Ref] != nil || !all && (wantsOrdinal(w, c.Ordinal) || hasOrdinal(w, c.Ordinal)) {
			continue
		}
		d.Forfeit = append(d.Forfeit, Forfeit{c, why})
	}
}

func wantsOrdinal(w *state.Workload, ordinal int32) bool {
	return slices.ContainsFunc(w.Variants, func(v *state.WorkloadVariant) bool { return ordinal >= v.Start && ordinal < v.Start+v.Replicas })
}

func hasOrdinal(w *state.Workload, ordinal int32) bool {
	return slices.ContainsFunc(w.Pods, func(p *state.Pod) bool { return p.Ordinal == ordinal })
}
