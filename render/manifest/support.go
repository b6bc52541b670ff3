package manifest

import (
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// apiGroup is the group of Tandem's own kinds.
const apiGroup = "tandem.dev"

// objectKinds are the kinds that this version runs, by apiVersion and kind.
func objectKinds() map[string]func() state.Body {
	return map[string]func() state.Body{
		"apps/v1 Deployment":                 func() state.Body { return &appsv1.Deployment{} },
		"apps/v1 StatefulSet":                func() state.Body { return &appsv1.StatefulSet{} },
		"apps/v1 DaemonSet":                  func() state.Body { return &appsv1.DaemonSet{} },
		"batch/v1 Job":                       func() state.Body { return &batchv1.Job{} },
		"batch/v1 CronJob":                   func() state.Body { return &batchv1.CronJob{} },
		"policy/v1 PodDisruptionBudget":      func() state.Body { return &policyv1.PodDisruptionBudget{} },
		"scheduling.k8s.io/v1 PriorityClass": func() state.Body { return &schedulingv1.PriorityClass{} },
		"v1 Pod":                             func() state.Body { return &corev1.Pod{} },
		"v1 Service":                         func() state.Body { return &corev1.Service{} },
		"v1 ConfigMap":                       func() state.Body { return &corev1.ConfigMap{} },
		"v1 Secret":                          func() state.Body { return &corev1.Secret{} },
		"v1 ServiceAccount":                  func() state.Body { return &corev1.ServiceAccount{} },
		"v1 Namespace":                       func() state.Body { return &corev1.Namespace{} },
		"v1 PersistentVolumeClaim":           func() state.Body { return &corev1.PersistentVolumeClaim{} },
	}
}

// laterOfPods says what to write in place of fields of a pod that a later version
// will honour.
func laterOfPods(name string) string {
	switch name {
	case "hostPID", "hostIPC":
		return "remove " + name + "; containers of one pod see each other's processes with shareProcessNamespace: true"
	case "ephemeralContainers":
		return "remove it; look into a running container with `tandem exec`"
	case "hostUsers":
		return "remove it, and give securityContext.runAsUser and runAsNonRoot"
	case "runtimeClassName":
		return "remove it; isolation follows from the image, the node and what nodeSelector says"
	case "readinessGates":
		return "remove it, and let a readinessProbe say it"
	}
	return ""
}

func refusedServiceField(name string) (cause, remedy string) {
	switch name {
	case "externalName":
		return "belongs to type ExternalName, which is not supported yet", "give the name to the containers, in env"
	case "externalIPs":
		return "not supported yet: nodes answer at their own addresses", "use type: NodePort, and remove it"
	}
	return "belongs to type LoadBalancer, which is not supported yet", "use type: NodePort, and remove it"
}

const notYet = "not supported yet"

// refusedField says why a field that Kubernetes knows is refused, and what to do.
func refusedField(t reflect.Type, name string) (cause, remedy string) {
	cause = notYet
	switch t {
	case reflect.TypeFor[metav1.ObjectMeta]():
		switch name {
		case "generateName":
			return "has no meaning in Git: every apply would make another object", "give metadata.name"
		case "finalizers":
			return "nobody would take them away: there are no controllers besides Tandem", "remove it"
		case "ownerReferences":
			return "what Git says is owned by its Application", "remove it; what is taken out of Git is pruned"
		}
		return "is written by a cluster, not by people", "remove it"
	case reflect.TypeFor[batchv1.JobSpec]():
		if name == "selector" || name == "manualSelector" {
			return "is Tandem's to choose: a Job's pods are found by its name", "remove " + name
		}
		if name == "managedBy" {
			return "there is one controller", "remove managedBy"
		}
	case reflect.TypeFor[applicationRollout]():
		return "is said of each workload", "annotate the workload: tandem.dev/os-order: linux,windows"
	case reflect.TypeFor[corev1.ServiceAccount]():
		return "Tandem makes no tokens: it has no Kubernetes API server inside", "remove " + name
	case reflect.TypeFor[applicationHelm]():
		return "values lie in files, so that they are never recorded", "write them into a file beside the chart and name it in valueFiles"
	case reflect.TypeFor[corev1.Volume]():
		return cause + ": a volume of kind " + name, "use persistentVolumeClaim, configMap, secret, projected, downwardAPI, emptyDir or hostPath, or remove it"
	case reflect.TypeFor[corev1.VolumeProjection]():
		if name == "serviceAccountToken" {
			return "Tandem makes no tokens: it has no Kubernetes API server inside", "remove it, and give what the program must show in a Secret"
		}
	case reflect.TypeFor[corev1.PersistentVolumeClaimSpec]():
		return refusedClaimField(name)
	case reflect.TypeFor[corev1.VolumeResourceRequirements]():
		return "a directory has no size that could be limited", "remove " + name + "; requests.storage is recorded and shown"
	case reflect.TypeFor[corev1.ServiceSpec]():
		return refusedServiceField(name)
	}
	return refusedPodField(t, name)
}

// refusedPodField is refusedField of a pod and of what it consists of.
func refusedPodField(t reflect.Type, name string) (cause, remedy string) {
	cause = notYet
	switch t {
	case reflect.TypeFor[corev1.PodSpec]():
		if name == "priority" {
			return "is written by a cluster, from the class", "use priorityClassName"
		}
		if remedy := laterOfPods(name); remedy != "" {
			return cause, remedy
		}
		if name == "nodeName" {
			return "would go past the scheduler", "use nodeSelector: {kubernetes.io/hostname: NODE}"
		}
	case reflect.TypeFor[corev1.LifecycleHandler]():
		if name == "tcpSocket" {
			return "never did anything", "use exec, httpGet or sleep"
		}
	case reflect.TypeFor[corev1.SecurityContext](), reflect.TypeFor[corev1.PodSecurityContext]():
		if name == "appArmorProfile" {
			return cause + ": AppArmor", "remove it, and confine the container with seccompProfile, capabilities and allowPrivilegeEscalation: false"
		}
		if name == "seLinuxOptions" || name == "seLinuxChangePolicy" {
			return cause + ": SELinux", "remove " + name
		}
	case reflect.TypeFor[corev1.Lifecycle]():
		if name == "stopSignal" {
			return cause, "set STOPSIGNAL in the image"
		}
	case reflect.TypeFor[corev1.Container]():
		if name == "stdin" || name == "stdinOnce" || name == "tty" {
			return cause + ": nobody is attached to a container's own process", "remove " + name + "; `tandem exec` opens a terminal in it"
		}
	case reflect.TypeFor[corev1.SeccompProfile]():
		return cause + ": profiles of the node", "use type: RuntimeDefault, and remove it"
	}
	return cause, fmt.Sprintf("remove %s; what this version runs can't honour it", name)
}
