package manifest

import "strings"

// ignoring is how an Application leaves a kind out.
const ignoring = "name it in spec.ignoreKinds of an Application that has this path"

// insteadOf says what to write in place of a kind that is refused.
func insteadOf(apiVersion, kind string) string {
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = "" // the core's
	}
	remedy := insteadOfGroup(group)
	if remedy == "" {
		remedy = insteadOfKind(kind)
	}
	switch {
	case remedy != "":
		return remedy
	case strings.HasSuffix(group, ".k8s.io") || !strings.Contains(group, "."):
		return "remove it, or " + ignoring + "; kinds that run: Deployment, StatefulSet, DaemonSet, Job, CronJob, Pod, PodDisruptionBudget, PriorityClass, Service, ServiceAccount, ConfigMap, Secret, PersistentVolumeClaim, Namespace"
	}
	return "remove it, or " + ignoring + ": it is for a controller that runs in a Kubernetes cluster"
}

// insteadOfGroup is insteadOf for kinds of other tools.
func insteadOfGroup(group string) string {
	switch group {
	case "kustomize.config.k8s.io":
		return "name its directory, not its file, in resources or components"
	case "argoproj.io", "source.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io":
		return "write an Application of tandem.dev/v1 with the source and the path, or " + ignoring
	case "bitnami.com", "external-secrets.io":
		return "write a Secret, encrypted with SOPS; or " + ignoring
	case "networking.istio.io", "gateway.networking.k8s.io":
		return "use a Service of type NodePort; or " + ignoring
	case "rbac.authorization.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "admissionregistration.k8s.io", "coordination.k8s.io":
		return "remove it, or " + ignoring + ": Tandem has no Kubernetes API server inside"
	case "storage.k8s.io":
		return "remove it, or " + ignoring + ": a PersistentVolumeClaim gets a directory of the node that its first pod runs on"
	case "snapshot.storage.k8s.io":
		return "remove it, or " + ignoring + ": copy the data with a Job that has the PersistentVolumeClaim"
	case "autoscaling", "autoscaling.k8s.io":
		return "remove it and set spec.replicas and resources of the workload; or " + ignoring
	case "node.k8s.io":
		return "remove it, or " + ignoring + ": isolation follows from the image, the node and what nodeSelector says"
	}
	return ""
}

// insteadOfKind is insteadOf for kinds of Kubernetes.
func insteadOfKind(kind string) string {
	switch kind {
	case "Ingress", "IngressClass":
		return "use a Service of type NodePort; or " + ignoring
	case "ReplicaSet", "ReplicationController":
		return "use a Deployment"
	case "PodTemplate":
		return "use a Deployment, or a Pod"
	case "NetworkPolicy":
		return "remove it, or " + ignoring + ": this version of Tandem lets all pods reach each other"
	case "PersistentVolume":
		return "remove it, or " + ignoring + ": a PersistentVolumeClaim gets a directory of the node that its first pod runs on"
	case "LimitRange", "ResourceQuota":
		return "remove it, or " + ignoring + ", and write requests and limits into the pods themselves"
	case "Endpoints", "EndpointSlice":
		return "remove it: a Service's selector finds the pods; an address outside is given to the containers, in env"
	case "Node":
		return "remove it: a machine becomes a node with `tandem agent join`"
	}
	return ""
}
