package manifest

import (
	"maps"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A fieldList says what becomes of a type's fields, by their JSON names. A test
// wants every field of every type that a kind reaches in one of the lists.
type fieldList struct {
	honoured string // mean what they mean under Kubernetes
	noted    string // are accepted without an effect, and a note says so (see noteOf)
	refused  string // are problems (see refusedField), but for values that ask for nothing (see asksNothing)
}

// A fieldClass is one of those lists.
type fieldClass int

const (
	honoured fieldClass = iota + 1
	noted
	refused
)

// supported is what becomes of each field of each type. A type that is not here
// is one of Tandem's own that is honoured whole.
func supported() map[reflect.Type]map[string]fieldClass {
	table := tandemFields()
	for _, fields := range []func() map[reflect.Type]fieldList{objectFields, appsFields, batchFields, podFields, containerFields, volumeFields} {
		maps.Copy(table, fields())
	}
	out := make(map[reflect.Type]map[string]fieldClass, len(table))
	for t, lists := range table {
		set := map[string]fieldClass{}
		for class, names := range map[fieldClass]string{honoured: lists.honoured, noted: lists.noted, refused: lists.refused} {
			for n := range strings.FieldsSeq(names) {
				set[n] = class
			}
		}
		out[t] = set
	}
	return out
}

func tandemFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[applicationSpec](): {
			honoured: "source path namespace variants prune suspend substitute helm ignoreKinds notes rollout dependsOn sync syncWindows",
		},
		reflect.TypeFor[applicationRollout](): {honoured: "onFailure healthTimeout"},
		reflect.TypeFor[applicationHelm]():    {honoured: "releaseName valueFiles"},
		reflect.TypeFor[applicationSetSpec](): {honoured: "paths exclude template"},
		reflect.TypeFor[applicationSource]():  {honoured: "repo ref commit tag semver verify"},
	}
}

// objectFields are those of every object, and of those that pods use.
func objectFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[metav1.LabelSelector]():            {honoured: "matchExpressions matchLabels"},
		reflect.TypeFor[metav1.LabelSelectorRequirement](): {honoured: "key operator values"},
		reflect.TypeFor[metav1.ObjectMeta](): {
			honoured: "annotations labels name namespace",
			noted:    "creationTimestamp generation managedFields resourceVersion selfLink uid",
			refused:  "deletionGracePeriodSeconds deletionTimestamp finalizers generateName ownerReferences",
		},
		reflect.TypeFor[corev1.ClientIPConfig](): {honoured: "timeoutSeconds"},
		reflect.TypeFor[corev1.ConfigMap](): {
			honoured: "apiVersion binaryData data kind metadata",
			noted:    "immutable",
		},
		reflect.TypeFor[corev1.Namespace](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[corev1.NamespaceSpec](): {
			honoured: "",
			noted:    "finalizers",
		},
		reflect.TypeFor[corev1.PersistentVolumeClaim](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[corev1.PersistentVolumeClaimSpec](): {
			honoured: "accessModes resources storageClassName volumeMode",
			refused:  "dataSource dataSourceRef selector volumeAttributesClassName volumeName",
		},
		reflect.TypeFor[corev1.Pod](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[corev1.Secret](): {
			honoured: "apiVersion data kind metadata stringData type",
			noted:    "immutable",
		},
		reflect.TypeFor[corev1.Service](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[corev1.ServiceAccount](): {
			honoured: "apiVersion imagePullSecrets kind metadata",
			noted:    "automountServiceAccountToken",
			refused:  "secrets",
		},
		reflect.TypeFor[corev1.ServicePort](): {
			honoured: "name nodePort port protocol targetPort",
			noted:    "appProtocol",
		},
		reflect.TypeFor[corev1.ServiceSpec](): {
			honoured: "clusterIP clusterIPs externalTrafficPolicy internalTrafficPolicy ipFamilies ipFamilyPolicy ports " +
				"publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig type",
			noted: "trafficDistribution",
			refused: "allocateLoadBalancerNodePorts externalIPs externalName healthCheckNodePort loadBalancerClass loadBalancerIP " +
				"loadBalancerSourceRanges",
		},
		reflect.TypeFor[corev1.SessionAffinityConfig](): {honoured: "clientIP"},
		reflect.TypeFor[corev1.VolumeResourceRequirements](): {
			honoured: "requests",
			refused:  "limits",
		},
	}
}

// appsFields are those of the kinds that keep pods.
func appsFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[appsv1.DaemonSet](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[appsv1.DaemonSetSpec]():           {honoured: "minReadySeconds revisionHistoryLimit selector template updateStrategy"},
		reflect.TypeFor[appsv1.DaemonSetUpdateStrategy](): {honoured: "rollingUpdate type"},
		reflect.TypeFor[appsv1.Deployment](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[appsv1.DeploymentSpec](): {
			honoured: "minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector strategy template",
		},
		reflect.TypeFor[appsv1.DeploymentStrategy]():               {honoured: "rollingUpdate type"},
		reflect.TypeFor[appsv1.RollingUpdateDaemonSet]():           {honoured: "maxSurge maxUnavailable"},
		reflect.TypeFor[appsv1.RollingUpdateDeployment]():          {honoured: "maxSurge maxUnavailable"},
		reflect.TypeFor[appsv1.RollingUpdateStatefulSetStrategy](): {honoured: "maxUnavailable partition"},
		reflect.TypeFor[appsv1.StatefulSet](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[appsv1.StatefulSetOrdinals]():                             {honoured: "start"},
		reflect.TypeFor[appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy](): {honoured: "whenDeleted whenScaled"},
		reflect.TypeFor[appsv1.StatefulSetSpec](): {
			honoured: "minReadySeconds ordinals persistentVolumeClaimRetentionPolicy podManagementPolicy replicas revisionHistoryLimit selector " +
				"serviceName template updateStrategy volumeClaimTemplates",
		},
		reflect.TypeFor[appsv1.StatefulSetUpdateStrategy](): {honoured: "rollingUpdate type"},
	}
}

// batchFields are those of Jobs, CronJobs and of what disruptions obey.
func batchFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[batchv1.CronJob](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[batchv1.CronJobSpec](): {
			honoured: "concurrencyPolicy failedJobsHistoryLimit jobTemplate schedule startingDeadlineSeconds successfulJobsHistoryLimit suspend " +
				"timeZone",
		},
		reflect.TypeFor[batchv1.Job](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[batchv1.JobSpec](): {
			honoured: "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions maxFailedIndexes parallelism " +
				"podFailurePolicy podReplacementPolicy successPolicy suspend template ttlSecondsAfterFinished",
			refused: "managedBy manualSelector scheduling selector",
		},
		reflect.TypeFor[batchv1.JobTemplateSpec]():                        {honoured: "metadata spec"},
		reflect.TypeFor[batchv1.PodFailurePolicy]():                       {honoured: "rules"},
		reflect.TypeFor[batchv1.PodFailurePolicyOnExitCodesRequirement](): {honoured: "containerName operator values"},
		reflect.TypeFor[batchv1.PodFailurePolicyOnPodConditionsPattern](): {honoured: "status type"},
		reflect.TypeFor[batchv1.PodFailurePolicyRule]():                   {honoured: "action onExitCodes onPodConditions"},
		reflect.TypeFor[batchv1.SuccessPolicy]():                          {honoured: "rules"},
		reflect.TypeFor[batchv1.SuccessPolicyRule]():                      {honoured: "succeededCount succeededIndexes"},
		reflect.TypeFor[policyv1.PodDisruptionBudget](): {
			honoured: "apiVersion kind metadata spec",
			noted:    "status",
		},
		reflect.TypeFor[policyv1.PodDisruptionBudgetSpec](): {honoured: "maxUnavailable minAvailable selector unhealthyPodEvictionPolicy"},
		reflect.TypeFor[schedulingv1.PriorityClass]():       {honoured: "apiVersion description globalDefault kind metadata preemptionPolicy value"},
	}
}
