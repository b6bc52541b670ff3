package kubeapi

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// scanClaims shows the claims of the text, those that StatefulSets made, and
// those that neither wants any more but whose data is kept.
func scanClaims(s *scan) {
	for ref, o := range s.state.Objects {
		if ref.Kind != state.ClaimKind {
			continue
		}
		c := s.state.Claims[ref]
		k, uid, f := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, o.Created)), claimFinger(s.state, c).num(uint64(o.Changed)).flag(o.Kept)
		if s.same(k, uid, f) {
			continue
		}
		out := &corev1.PersistentVolumeClaim{ObjectMeta: meta(s.state, o)}
		if pvc, ok := o.Object.First().(*corev1.PersistentVolumeClaim); ok {
			out.Spec = *pvc.Spec.DeepCopy()
		}
		fillClaim(s.state, out, c)
		s.put(k, uid, f, out)
	}
	for ref, c := range s.state.Claims {
		if s.state.Objects[ref] != nil {
			continue
		}
		k, uid, f := key{ref.Namespace, ref.Name}, c.Volume.String(), claimFinger(s.state, c)
		if s.same(k, uid, f) {
			continue
		}
		s.put(k, uid, f, madeClaim(s.state, c))
	}
}

func claimFinger(s *state.State, c *state.Claim) finger {
	if c == nil {
		return fingerStart
	}
	return fingerStart.num(uint64(c.Changed)).str(report.ClaimState(s, c))
}

// madeClaim is one that isn't in the text: a StatefulSet made it, as its
// template says if that is still there.
func madeClaim(s *state.State, c *state.Claim) *corev1.PersistentVolumeClaim {
	mode, filesystem, class := corev1.ReadWriteOnce, corev1.PersistentVolumeFilesystem, state.StorageClass
	if c.Once {
		mode = corev1.ReadWriteOncePod
	}
	out := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.Ref.Name, Namespace: c.Ref.Namespace, UID: uidType(c.Volume.String()), CreationTimestamp: metav1.NewTime(c.Bound.Time()),
			Generation: int64(c.Changed), Annotations: map[string]string{"tandem.dev/application": string(c.App)}, Labels: map[string]string{},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{mode}, VolumeMode: &filesystem, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *quantity.NewQuantity(c.Capacity, quantity.BinarySI)}},
		},
	}
	if w := s.Workloads[c.Workload]; w != nil {
		if set, ok := w.StatefulSet(); ok {
			maps.Copy(out.Labels, set.Spec.Selector.MatchLabels)
			for i := range set.Spec.VolumeClaimTemplates {
				if t := &set.Spec.VolumeClaimTemplates[i]; t.Name == c.Template {
					maps.Copy(out.Labels, t.Labels)
					maps.Copy(out.Annotations, t.Annotations)
				}
			}
		}
	}
	fillClaim(s, out, c)
	return out
}

func fillClaim(s *state.State, out *corev1.PersistentVolumeClaim, c *state.Claim) {
	out.Finalizers = []string{"kubernetes.io/pvc-protection"}
	if c == nil {
		out.Status.Phase = corev1.ClaimPending
		return
	}
	out.Spec.VolumeName = "pvc-" + c.Volume.String()
	out.Annotations["tandem.dev/node"] = string(c.Node)
	out.Annotations["tandem.dev/claim-state"] = report.ClaimState(s, c)
	out.Annotations["volume.kubernetes.io/selected-node"] = string(c.Node)
	out.Status = corev1.PersistentVolumeClaimStatus{
		Phase: corev1.ClaimBound, AccessModes: out.Spec.AccessModes,
		Capacity: corev1.ResourceList{corev1.ResourceStorage: *quantity.NewQuantity(c.Capacity, quantity.BinarySI)},
	}
	if s.Nodes[c.Node] == nil {
		out.Status.Phase = corev1.ClaimLost
	}
	if c.Dropped != 0 {
		at := metav1.NewTime(c.DropAt.Time())
		out.DeletionTimestamp = &at
	}
}

func claimColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "Node", "Used", "Age", "+VolumeMode")
}

func claimRow(o object, now time.Time) []any {
	c, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	status := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		status = "Terminating"
	}
	var modes []string
	for _, m := range c.Spec.AccessModes {
		modes = append(modes, map[corev1.PersistentVolumeAccessMode]string{corev1.ReadWriteOnce: "RWO", corev1.ReadWriteOncePod: "RWOP"}[m])
	}
	slices.Sort(modes)
	capacity := ""
	if q, ok := c.Status.Capacity[corev1.ResourceStorage]; ok {
		capacity = q.String()
	}
	class, mode := "", ""
	if c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	if c.Spec.VolumeMode != nil {
		mode = string(*c.Spec.VolumeMode)
	}
	return []any{
		c.Name, status, c.Spec.VolumeName, capacity, strings.Join(slices.Compact(modes), ","), class, c.Annotations["tandem.dev/node"],
		c.Annotations["tandem.dev/claim-state"], age(c.CreationTimestamp, now), mode,
	}
}

// deleteClaim gives up a claim's data, where the text doesn't want it.
func (a *api) deleteClaim(c *call, t target) error {
	var o metav1.DeleteOptions
	if err := a.decode(c, &o); err != nil {
		return err
	}
	e := a.caches[t.resource].find(key{t.namespace, t.name})
	if e == nil {
		return noSuch(t)
	}
	if o.Preconditions != nil && o.Preconditions.UID != nil && string(*o.Preconditions.UID) != e.uid {
		return apierrors.NewBadRequest(fmt.Sprintf("claim %s has the UID %s, not %s", t.name, e.uid, *o.Preconditions.UID))
	}
	ref := state.Ref{Kind: state.ClaimKind, Namespace: t.namespace, Name: t.name}
	var wanted bool
	a.Controller.View(func(s *state.State) {
		obj, claim := s.Objects[ref], s.Claims[ref]
		wanted = obj != nil && !obj.Kept && (claim == nil || s.Nodes[claim.Node] != nil && s.Nodes[claim.Node].Ready)
	})
	if wanted {
		return a.refuse(t, "delete")
	}
	if len(o.DryRun) == 0 && e.object.GetDeletionTimestamp() == nil {
		if _, err := a.ask(c.r.Context(), c.user, &state.Command{Verb: state.CmdDropClaim, Object: ref}, "deleted with kubectl"); err != nil {
			return err
		}
	}
	if now := a.caches[t.resource].find(key{t.namespace, t.name}); now != nil {
		e = now
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(e.JSON())
	return nil
}
