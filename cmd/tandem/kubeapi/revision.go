package kubeapi

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// replicaSetRef names the ReplicaSet that kubectl is shown for a template: one
// per revision and variant.
func replicaSetRef(w *state.Workload, t *state.Template) state.Ref {
	return state.Ref{Kind: "ReplicaSet", Namespace: w.Ref.Namespace, Name: w.Ref.Name + "-" + t.Hash}
}

// A revision is one template of a workload with the pods made from it.
type revision struct {
	workload *state.Workload
	variant  *state.WorkloadVariant
	state.TemplateRevision
	pods, ready, available int32
	current                bool
}

// revisions are the templates of a workload that are in its history.
func revisions(s *state.State, w *state.Workload, least time.Duration) []revision {
	var out []revision
	for _, v := range w.Variants {
		for _, h := range v.History {
			r := revision{workload: w, variant: v, TemplateRevision: h, current: v.Update != nil && v.Update.Digest == h.Template.Digest}
			for _, p := range w.Pods {
				if p.Stopping || p.Template.Digest != h.Template.Digest {
					continue
				}
				r.pods++
				if p.Ready && !p.Lost {
					r.ready++
				}
				if p.Available(s.At, least) {
					r.available++
				}
			}
			out = append(out, r)
		}
	}
	return out
}

func (r *revision) finger() finger {
	return fingerStart.num(uint64(r.pods)).num(uint64(r.ready)).num(uint64(r.available)).num(uint64(r.Number)).flag(r.current).
		num(uint64(r.variant.Replicas)).num(uint64(r.workload.Owned.Changed))
}

func owner(s *state.State, w *state.Workload) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{
		APIVersion: "apps/v1", Kind: w.Ref.Kind, Name: w.Ref.Name, UID: uidOf(s, w.Ref, w.Created), Controller: &yes, BlockOwnerDeletion: &yes,
	}}
}

func scanReplicaSets(s *scan) {
	for _, w := range s.state.Workloads {
		d, ok := w.Deployment()
		if !ok {
			continue
		}
		for _, r := range revisions(s.state, w, time.Duration(d.Spec.MinReadySeconds)*time.Second) {
			ref := replicaSetRef(w, r.Template)
			k, uid, f := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, state.Instant{})), r.finger()
			if !s.same(k, uid, f) {
				s.put(k, uid, f, replicaSet(s.state, &r, d))
			}
		}
	}
}

func replicaSet(s *state.State, r *revision, d *appsv1.Deployment) *appsv1.ReplicaSet {
	w, t := r.workload, r.Template
	ref := replicaSetRef(w, t)
	labels := map[string]string{}
	maps.Copy(labels, t.Spec.Labels)
	labels["pod-template-hash"] = t.Hash
	wanted := r.pods
	if r.current {
		wanted = r.variant.Replicas
	}
	out := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: ref.Name, Namespace: ref.Namespace, UID: uidOf(s, ref, state.Instant{}), Labels: labels, OwnerReferences: owner(s, w),
			CreationTimestamp: metav1.NewTime(r.Created.Time()), Generation: int64(w.Owned.Changed),
			Annotations: map[string]string{
				"deployment.kubernetes.io/revision":         strconv.FormatInt(r.Number, 10),
				"deployment.kubernetes.io/desired-replicas": strconv.Itoa(int(r.variant.Replicas)),
				"tandem.dev/os": string(t.OS),
			},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &wanted, MinReadySeconds: d.Spec.MinReadySeconds, Template: shownTemplate(t, labels)},
		Status: appsv1.ReplicaSetStatus{
			Replicas: r.pods, ReadyReplicas: r.ready, AvailableReplicas: r.available, FullyLabeledReplicas: r.pods, ObservedGeneration: int64(w.Owned.Changed),
		},
	}
	out.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"pod-template-hash": t.Hash}}
	if d.Spec.Selector != nil {
		out.Spec.Selector.MatchExpressions = d.Spec.Selector.MatchExpressions
		maps.Copy(out.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels)
	}
	return out
}

// shownTemplate is a template with the labels that its pods carry.
func shownTemplate(t *state.Template, labels map[string]string) corev1.PodTemplateSpec {
	out := corev1.PodTemplateSpec{ObjectMeta: *t.Spec.ObjectMeta.DeepCopy(), Spec: *podSpec(&t.Spec.Spec)}
	out.Labels = labels
	if out.Spec.OS == nil && t.OS != state.AnyOS {
		out.Spec.OS = &corev1.PodOS{Name: corev1.OSName(t.OS)}
	}
	return out
}

func scanControllerRevisions(s *scan) {
	for _, w := range s.state.Workloads {
		if w.Ref.Kind != "StatefulSet" && w.Ref.Kind != "DaemonSet" {
			continue
		}
		for _, v := range w.Variants {
			for _, h := range v.History {
				ref := state.Ref{Kind: "ControllerRevision", Namespace: w.Ref.Namespace, Name: w.Ref.Name + "-" + h.Template.Hash}
				k, uid, f := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, state.Instant{})), fingerStart.num(uint64(h.Number))
				if !s.same(k, uid, f) {
					s.put(k, uid, f, controllerRevision(s.state, w, &h, ref))
				}
			}
		}
	}
}

func controllerRevision(s *state.State, w *state.Workload, h *state.TemplateRevision, ref state.Ref) *appsv1.ControllerRevision {
	labels := map[string]string{"controller.kubernetes.io/hash": h.Template.Hash}
	maps.Copy(labels, h.Template.Spec.Labels)
	patch := map[string]any{"spec": map[string]any{"template": shownTemplate(h.Template, h.Template.Spec.Labels)}}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: ref.Name, Namespace: ref.Namespace, UID: uidOf(s, ref, state.Instant{}), Labels: labels, OwnerReferences: owner(s, w),
			CreationTimestamp: metav1.NewTime(h.Created.Time()), Annotations: map[string]string{"tandem.dev/os": string(h.Template.OS)},
		},
		Revision: h.Number,
		Data:     runtime.RawExtension{Raw: mustJSON(patch)},
	}
}

func replicaSetColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Desired", "Current", "Ready", "OS", "Age", "+Containers", "+Images")
}

func replicaSetRow(o object, now time.Time) []any {
	r, ok := o.(*appsv1.ReplicaSet)
	if !ok {
		return nil
	}
	names, images := containerWords(&r.Spec.Template.Spec)
	return []any{
		r.Name, strconv.Itoa(int(*r.Spec.Replicas)), strconv.Itoa(int(r.Status.Replicas)), strconv.Itoa(int(r.Status.ReadyReplicas)),
		orAny(r.Annotations["tandem.dev/os"]), age(r.CreationTimestamp, now), names, images,
	}
}

func controllerRevisionColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Controller", "Revision", "OS", "Age")
}

func controllerRevisionRow(o object, now time.Time) []any {
	r, ok := o.(*appsv1.ControllerRevision)
	if !ok {
		return nil
	}
	by := ""
	if len(r.OwnerReferences) > 0 {
		by = lower(r.OwnerReferences[0].Kind) + ".apps/" + r.OwnerReferences[0].Name
	}
	return []any{r.Name, orNone(by), fmt.Sprint(r.Revision), orAny(r.Annotations["tandem.dev/os"]), age(r.CreationTimestamp, now)}
}

func orAny(os string) string {
	if os == "" {
		return "any"
	}
	return os
}
