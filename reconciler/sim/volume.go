package sim

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// makeVolume makes a claim's directory, or finds it. Data outlives everything
// but the word of the records.
func (n *node) makeVolume(v step.PodVolume) {
	if n.volumes == nil {
		n.volumes = map[state.UID]state.Ref{}
	}
	if _, ok := n.volumes[v.UID]; !ok && v.Begun {
		n.w.fail("I7", "%s: the data of %s is gone", n.name, v.Claim)
	}
	n.volumes[v.UID] = v.Claim
}

// deleteVolume: what is deleted, the records gave up, and no pod has it open.
func (n *node) deleteVolume(uid state.UID) {
	w := n.w
	claim, ok := n.volumes[uid]
	if !ok {
		return
	}
	if w.ctl.machine != nil {
		if c := w.ctl.machine.State().ClaimOfVolume(uid); c != nil && c.Dropped == 0 {
			w.fail("I7", "%s deletes the data of %s, which the records keep", n.name, claim)
		}
	}
	for _, c := range n.containers {
		if c.Running && c.pod.Key.Namespace == claim.Namespace && uses(c.pod, claim) {
			w.fail("I7", "%s deletes the data of %s under %s", n.name, claim, c.pod.Key)
		}
	}
	w.logf("%s: deletes the data of %s", n.name, claim)
	delete(n.volumes, uid)
}

func uses(p *state.AssignedPod, claim state.Ref) bool {
	for _, u := range p.Template.Claims {
		if u.ClaimName(p.Ordinal) == claim.Name {
			return true
		}
	}
	return false
}

// obeyClaims: a pod runs where its data is, and no volume is given up unless a
// policy or a person says so.
func (w *world) obeyClaims(s *state.State, records []*state.Record) {
	for _, r := range records {
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			p := s.Pods[state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)]
			if p == nil {
				continue
			}
			for _, u := range p.Template.Claims {
				if c := s.Claims[u.Claim(f.Pod.Namespace, f.Ordinal)]; c == nil || c.Node != f.Node {
					w.fail("I7", "%s is placed on %s and its data is elsewhere", f.Pod, f.Node)
				}
			}
		case *state.ClaimDropped:
			if c := s.Claims[f.Claim]; c != nil && !allowed(s, c, f.Why) {
				w.fail("I7", "%s is given up (%s), and no policy says so", f.Claim, f.Why)
			}
		}
	}
}

func allowed(s *state.State, c *state.Claim, why state.ClaimsFate) bool {
	if why == state.DropApproved || why == state.DropRequested {
		return true
	}
	w := s.Workloads[c.Workload]
	if w == nil {
		return why == state.DropDeleted // the set's last record came in the same step
	}
	set, ok := w.StatefulSet()
	if !ok || s.Objects[c.Ref] != nil {
		return false
	}
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	if why == state.DropDeleted {
		return w.Deleting && policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	for _, v := range w.Variants {
		if c.Ordinal >= v.Start && c.Ordinal < v.Start+v.Replicas {
			return false
		}
	}
	return policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}
