package manifest

import (
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// refusedClaimField says why a field of a claim is refused. What there is, is
// one class: a directory of a node.
func refusedClaimField(name string) (cause, remedy string) {
	switch name {
	case "volumeName":
		return "there are no volumes to choose from: each claim gets its own", "remove volumeName"
	case "selector":
		return "there are no volumes to select from: each claim gets its own", "remove selector"
	case "dataSource", "dataSourceRef":
		return "not supported yet: a volume begins empty", "remove " + name + ", and fill the volume with an init container"
	case "volumeAttributesClassName":
		return "a directory has no attributes", "remove volumeAttributesClassName"
	}
	return "not supported yet", "remove " + name
}

func defaultClaim(s *corev1.PersistentVolumeClaimSpec) {
	orDefault(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	orDefault(&s.StorageClassName, state.StorageClass)
}

// defaultClaims are those of a StatefulSet. A template is an object of its own:
// the API server lets it say what it is.
func defaultClaims(s *appsv1.StatefulSetSpec) {
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		for _, when := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{&p.WhenDeleted, &p.WhenScaled} {
			if *when == "" {
				*when = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
			}
		}
	}
	for i := range s.VolumeClaimTemplates {
		t := &s.VolumeClaimTemplates[i]
		t.APIVersion, t.Kind, t.Namespace = "v1", state.ClaimKind, ""
		t.Status = corev1.PersistentVolumeClaimStatus{}
		defaultClaim(&t.Spec)
	}
}

// setWords validates what a StatefulSet says by annotations.
func (c *validator) setWords(meta Path, o *appsv1.StatefulSet) {
	at := func(name string) Path { return meta.Key("annotations", name) }
	if word, ok := o.Annotations[rollout.PausedSet]; ok && word != "true" && word != "false" {
		c.fail(at(rollout.PausedSet), fmt.Sprintf("want true or false, got %q", clip(word)), rollout.PausedSet+": \"true\"")
	}
	if word, ok := o.Annotations[rollout.DeadlineOfSet]; ok {
		if n, err := strconv.ParseInt(word, 10, 32); err != nil || n <= int64(o.Spec.MinReadySeconds) {
			c.fail(at(rollout.DeadlineOfSet), fmt.Sprintf("want seconds, more than minReadySeconds, got %q", clip(word)), rollout.DeadlineOfSet+": \"600\"")
		}
	}
}

// claims validates a StatefulSet's claim templates and what becomes of them.
func (c *validator) claims(p Path, s *appsv1.StatefulSetSpec) {
	seen := map[string]bool{}
	for i := range s.VolumeClaimTemplates {
		t := &s.VolumeClaimTemplates[i]
		tp := p.Key("volumeClaimTemplates").At(i, "")
		c.name(tp.Key("metadata", "name"), t.Name, nameLabel)
		c.meta(tp.Key("metadata"), t.Labels, t.Annotations)
		c.note(tp.Key("metadata", "namespace"), "has no effect: a claim is where its StatefulSet is", "remove it")
		if seen[t.Name] {
			c.fail(tp.Key("metadata", "name"), fmt.Sprintf("volume claim template %q is there twice", t.Name), "give it another name")
		}
		seen[t.Name] = true
		c.templates = append(c.templates, t.Name)
		c.claimSpec(tp.Key("spec"), &t.Spec)
	}
	pp := p.Key("persistentVolumeClaimRetentionPolicy")
	for _, when := range []struct {
		key string
		is  appsv1.PersistentVolumeClaimRetentionPolicyType
	}{{"whenDeleted", s.PersistentVolumeClaimRetentionPolicy.WhenDeleted}, {"whenScaled", s.PersistentVolumeClaimRetentionPolicy.WhenScaled}} {
		if when.is != appsv1.RetainPersistentVolumeClaimRetentionPolicyType && when.is != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			c.fail(pp.Key(when.key), fmt.Sprintf("want Retain or Delete, got %q", clip(string(when.is))), when.key+": Retain")
		}
	}
}

func (c *validator) claimSpec(p Path, s *corev1.PersistentVolumeClaimSpec) {
	mp := p.Key("accessModes")
	switch {
	case len(s.AccessModes) == 0:
		c.missing(mp, "accessModes: [ReadWriteOnce]")
	case slices.Contains(s.AccessModes, corev1.ReadWriteOncePod) && len(s.AccessModes) > 1:
		c.fail(mp, "ReadWriteOncePod goes with no other mode", "keep one")
	}
	for i, m := range s.AccessModes {
		switch m {
		case corev1.ReadWriteOnce, corev1.ReadWriteOncePod:
		case corev1.ReadWriteMany, corev1.ReadOnlyMany:
			c.fail(mp.At(i, ""), fmt.Sprintf("%s: a volume is on one node, and pods of others can't have it", m), "use ReadWriteOnce: all pods that have it run on that node")
		default:
			c.fail(mp.At(i, ""), fmt.Sprintf("want ReadWriteOnce or ReadWriteOncePod, got %q", clip(string(m))), "accessModes: [ReadWriteOnce]")
		}
	}
	rp := p.Key("resources", "requests", "storage")
	for _, name := range sortedResources(s.Resources.Requests) {
		if name != corev1.ResourceStorage {
			c.fail(p.Key("resources", "requests", string(name)), "has no meaning for a volume", "keep storage alone")
		}
	}
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		c.missing(rp, "say how much: resources: {requests: {storage: 1Gi}}")
	} else if q.Sign() <= 0 {
		c.fail(rp, "must be more than 0, is "+q.String(), "storage: 1Gi")
	}
	if class := *s.StorageClassName; class != state.StorageClass {
		cause := fmt.Sprintf("there is no storage class %q: volumes are directories of their node", clip(class))
		if class == "" {
			cause = "\"\" asks for a volume that somebody made before: there are none"
		}
		c.fail(p.Key("storageClassName"), cause, "remove it, or storageClassName: "+state.StorageClass)
	}
	if *s.VolumeMode != corev1.PersistentVolumeFilesystem {
		c.fail(p.Key("volumeMode"), fmt.Sprintf("not supported yet: %q", clip(string(*s.VolumeMode))), "volumeMode: Filesystem, or remove it")
	}
}

func (c *validator) claimVolume(p Path, v *corev1.PersistentVolumeClaimVolumeSource) {
	c.name(p.Key("claimName"), v.ClaimName, nameSubdomain)
	if c.everyNode {
		c.fail(p, "a volume is on one node, a DaemonSet's pods on each", "use hostPath, or a StatefulSet with volumeClaimTemplates")
	}
}
