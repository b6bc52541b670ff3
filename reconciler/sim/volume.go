package sim

import (
	"fmt"
	"time"

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

// sole: the pods that use a claim are on one node, and of one that is for one pod
// at a time there is one. A suspended machine is excepted, as in alone.
func (w *world) sole(at *node, pod *state.AssignedPod) {
	for _, u := range pod.Template.Claims {
		claim := u.Claim(pod.Key.Namespace, pod.Ordinal)
		for _, n := range w.nodes {
			if n.frozen || n.thawed > 0 && w.now-n.thawed < 5*time.Second {
				continue
			}
			for _, c := range n.containers {
				if !c.Running || c.UID == pod.UID || c.pod.Key.Namespace != claim.Namespace || !uses(c.pod, claim) {
					continue
				}
				if n != at {
					w.fail("I7", "%s is used by %s on %s and by %s on %s", claim, pod.Key, at.name, c.pod.Key, n.name)
				} else if w.once(claim) {
					w.fail("I7", "%s is for one pod, and %s and %s use it", claim, pod.Key, c.pod.Key)
				}
			}
		}
	}
}

// once says whether the records have the claim as one for one pod at a time.
func (w *world) once(claim state.Ref) bool {
	if w.ctl.machine == nil {
		return false
	}
	c := w.ctl.machine.State().Claims[claim]
	return c != nil && c.Once
}

// unkept is the first of a node's volumes that should not be there any more, or of
// the records that nobody deletes.
func (n *node) unkept(s *state.State) string {
	for uid, claim := range n.volumes {
		if s.ClaimOfVolume(uid) == nil && !n.removed {
			return fmt.Sprintf("%s still has the data of %s, which is given up", n.name, claim)
		}
	}
	for _, c := range s.SortedClaims() {
		if c.Node == n.name && c.Dropped != 0 {
			return fmt.Sprintf("%s still has the data of %s", n.name, c.Ref)
		}
	}
	return ""
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
