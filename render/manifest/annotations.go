package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
)

// SubstituteAnnotation keeps the variables of one object as they are written.
const SubstituteAnnotation = "tandem.dev/substitute"

// ours refuses an annotation of Tandem's own that nothing reads where it stands.
func (c *validator) ours(p Path, key string) {
	kinds := map[string][]string{
		rollout.OSOrder:   {"Deployment", "DaemonSet"},
		rollout.PausedSet: {"StatefulSet"}, rollout.DeadlineOfSet: {"StatefulSet"}, lease.Annotation: {"StatefulSet"},
		SubstituteAnnotation: {c.object.Kind},
	}
	of, known := kinds[key]
	switch {
	case !known:
		c.fail(p, "is none of the annotations that Tandem reads", "remove it, or write one of "+strings.Join(sortedKeys(kinds), ", "))
	case len(p) != len(Path(nil).Key("metadata", "annotations", key)):
		c.fail(p, "is read in the object's own metadata alone", "write it into metadata.annotations")
	case !slices.Contains(of, c.object.Kind):
		c.fail(p, fmt.Sprintf("has no meaning for a %s", c.object.Kind), fmt.Sprintf("remove it: it is for a %s", strings.Join(of, " or a ")))
	}
}

// annotation notes those by which Kubernetes, or the tool that applied the text
// before, does something that nothing does here. All others are somebody's own.
func (c *validator) annotation(p Path, key string) {
	if prefix, _, _ := strings.Cut(key, "/"); prefix == "tandem.dev" {
		c.ours(p, key)
		return
	}
	if cause, remedy := annotationNote(key); cause != "" {
		c.note(p, "has no effect: "+cause, remedy)
	}
}

func annotationNote(key string) (cause, remedy string) {
	const confine = "remove it, and confine the container with seccompProfile, capabilities and allowPrivilegeEscalation: false"
	prefix, name, _ := strings.Cut(key, "/")
	switch prefix {
	case "container.apparmor.security.beta.kubernetes.io":
		return "there is no AppArmor", confine
	case "container.seccomp.security.alpha.kubernetes.io", "seccomp.security.alpha.kubernetes.io":
		return "Kubernetes reads it no longer", "write securityContext.seccompProfile instead"
	case "service.beta.kubernetes.io":
		return "no cloud makes a load balancer", "remove it"
	case "argocd.argoproj.io":
		switch name {
		case "hook", "hook-delete-policy", "sync-wave":
			return "it is for Argo CD; here all objects of a commit go together", "remove it; of two Applications one waits for the other with spec.dependsOn, and a container of a pod for what it needs in an init container"
		case "sync-options", "compare-options":
			return "it is for Argo CD", "remove it"
		}
	case "kustomize.toolkit.fluxcd.io":
		if name != "substitute" { // which is read like our own
			return "it is for Flux", "remove it"
		}
	}
	return annotationOfKubernetes(key)
}

func annotationOfKubernetes(key string) (cause, remedy string) {
	switch key {
	case corev1.BetaStorageClassAnnotation:
		return "volumes are directories of their node", "remove it"
	case corev1.PodDeletionCost:
		return "which pods go first is the planner's to choose", "remove it"
	case corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints:
		return "every ready pod has the same share of the connections", "remove it, or write internalTrafficPolicy: Local"
	case "service.alpha.kubernetes.io/tolerate-unready-endpoints":
		return "Kubernetes reads it no longer", "write publishNotReadyAddresses: true into the spec"
	case "scheduler.alpha.kubernetes.io/critical-pod":
		return "Kubernetes reads it no longer", "write priorityClassName: system-cluster-critical into the spec"
	case "experimental.windows.kubernetes.io/isolation-type":
		return "isolation follows from the image and the node: Hyper-V where process isolation can't run the image's build", "remove it"
	case "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth":
		return "a pod's traffic has no limit", "remove it"
	case "volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
		"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller":
		return "it is written by a cluster", "remove it"
	}
	return "", ""
}

// label notes those by which Kubernetes does something that nothing does here.
func (c *validator) label(p Path, key string) {
	switch prefix, _, _ := strings.Cut(key, "/"); {
	case prefix == "pod-security.kubernetes.io" && c.object.Kind == "Namespace":
		c.note(p, "has no effect: no pod is judged by a level of Pod Security", "remove it, and write what it asks for into the securityContext of the pods")
	case key == "service.kubernetes.io/service-proxy-name" && c.object.Kind == "Service":
		c.note(p, "has no effect: there is one service proxy", "remove it")
	}
}
