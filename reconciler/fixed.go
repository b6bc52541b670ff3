package reconciler

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// fixed finds the fields that a manifest changes and that can't be changed while
// the object exists (Kubernetes: ValidateStatefulSetUpdate,
// ValidatePersistentVolumeClaimUpdate): its pods, or its data, are made by them.
func (m *Machine) fixed(manifest *state.Manifest) []state.Fixed {
	var out []state.Fixed
	for _, o := range manifest.Objects {
		owned := m.fold.Objects[o.Ref]
		if owned == nil || owned.Object == o {
			continue
		}
		switch now := o.First().(type) {
		case *appsv1.StatefulSet:
			if was, ok := owned.Object.First().(*appsv1.StatefulSet); ok {
				out = append(out, fixedOfSet(o.Ref, &was.Spec, &now.Spec)...)
			}
		case *corev1.PersistentVolumeClaim:
			if was, ok := owned.Object.First().(*corev1.PersistentVolumeClaim); ok && m.fold.Claims[o.Ref] != nil {
				out = append(out, fixedOfClaim(o.Ref, "spec", &was.Spec, &now.Spec)...)
			}
		}
	}
	return out
}

func fixedOfSet(ref state.Ref, was, now *appsv1.StatefulSetSpec) []state.Fixed {
	var out []state.Fixed
	for _, f := range []struct {
		field  string
		change bool
	}{
		{"spec.selector", !equality.Semantic.DeepEqual(was.Selector, now.Selector)},
		{"spec.serviceName", was.ServiceName != now.ServiceName},
		{"spec.podManagementPolicy", was.PodManagementPolicy != now.PodManagementPolicy},
		{"spec.volumeClaimTemplates", !sameTemplates(was.VolumeClaimTemplates, now.VolumeClaimTemplates)},
	} {
		if f.change {
			out = append(out, state.Fixed{Object: ref, Field: f.field})
		}
	}
	return out
}

func sameTemplates(was, now []corev1.PersistentVolumeClaim) bool {
	return slices.EqualFunc(was, now, func(a, b corev1.PersistentVolumeClaim) bool {
		return a.Name == b.Name && len(fixedOfClaim(state.Ref{}, "", &a.Spec, &b.Spec)) == 0 &&
			a.Spec.Resources.Requests.Storage().Cmp(*b.Spec.Resources.Requests.Storage()) == 0
	})
}

// fixedOfClaim compares what is written, not what a version filled in: another
// default is no change of the text.
func fixedOfClaim(ref state.Ref, at string, was, now *corev1.PersistentVolumeClaimSpec) []state.Fixed {
	var out []state.Fixed
	if !equality.Semantic.DeepEqual(was.AccessModes, now.AccessModes) {
		out = append(out, state.Fixed{Object: ref, Field: at + ".accessModes"})
	}
	if was.Resources.Requests.Storage().Cmp(*now.Resources.Requests.Storage()) > 0 {
		out = append(out, state.Fixed{Object: ref, Field: at + ".resources.requests.storage"})
	}
	return out
}
