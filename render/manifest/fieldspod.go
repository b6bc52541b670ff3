package manifest

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
)

// podFields are those of a pod as a whole: where it runs, and as whom.
func podFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[corev1.Affinity]():             {honoured: "nodeAffinity podAffinity podAntiAffinity"},
		reflect.TypeFor[corev1.Capabilities]():         {honoured: "add drop"},
		reflect.TypeFor[corev1.HostAlias]():            {honoured: "hostnames ip"},
		reflect.TypeFor[corev1.LocalObjectReference](): {honoured: "name"},
		reflect.TypeFor[corev1.NodeAffinity](): {
			honoured: "preferredDuringSchedulingIgnoredDuringExecution requiredDuringSchedulingIgnoredDuringExecution",
		},
		reflect.TypeFor[corev1.NodeSelector]():            {honoured: "nodeSelectorTerms"},
		reflect.TypeFor[corev1.NodeSelectorRequirement](): {honoured: "key operator values"},
		reflect.TypeFor[corev1.NodeSelectorTerm]():        {honoured: "matchExpressions matchFields"},
		reflect.TypeFor[corev1.PodAffinity](): {
			honoured: "preferredDuringSchedulingIgnoredDuringExecution requiredDuringSchedulingIgnoredDuringExecution",
		},
		reflect.TypeFor[corev1.PodAffinityTerm](): {honoured: "labelSelector matchLabelKeys mismatchLabelKeys namespaceSelector namespaces topologyKey"},
		reflect.TypeFor[corev1.PodAntiAffinity](): {
			honoured: "preferredDuringSchedulingIgnoredDuringExecution requiredDuringSchedulingIgnoredDuringExecution",
		},
		reflect.TypeFor[corev1.PodDNSConfig]():       {honoured: "nameservers options searches"},
		reflect.TypeFor[corev1.PodDNSConfigOption](): {honoured: "name value"},
		reflect.TypeFor[corev1.PodOS]():              {honoured: "name"},
		reflect.TypeFor[corev1.PodSchedulingGate]():  {honoured: "name"},
		reflect.TypeFor[corev1.PodSecurityContext](): {
			honoured: "fsGroup runAsGroup runAsNonRoot runAsUser seccompProfile supplementalGroups sysctls windowsOptions",
			noted:    "fsGroupChangePolicy",
			refused:  "appArmorProfile seLinuxChangePolicy seLinuxOptions supplementalGroupsPolicy",
		},
		reflect.TypeFor[corev1.PodSpec](): {
			honoured: "activeDeadlineSeconds affinity containers dnsConfig dnsPolicy enableServiceLinks hostAliases hostNetwork hostname " +
				"imagePullSecrets initContainers nodeSelector os preemptionPolicy priorityClassName restartPolicy schedulerName schedulingGates " +
				"securityContext serviceAccount serviceAccountName shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations " +
				"topologySpreadConstraints volumes",
			noted: "automountServiceAccountToken",
			refused: "ephemeralContainers evictionResponders hostIPC hostPID hostUsers hostnameOverride nodeName overhead " +
				"priority readinessGates resourceClaims resources runtimeClassName schedulingGroup setHostnameAsFQDN",
		},
		reflect.TypeFor[corev1.PodTemplateSpec]():         {honoured: "metadata spec"},
		reflect.TypeFor[corev1.PreferredSchedulingTerm](): {honoured: "preference weight"},
		reflect.TypeFor[corev1.SeccompProfile](): {
			honoured: "type",
			refused:  "localhostProfile",
		},
		reflect.TypeFor[corev1.SecurityContext](): {
			honoured: "allowPrivilegeEscalation capabilities privileged readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seccompProfile " +
				"windowsOptions",
			refused: "appArmorProfile procMount seLinuxOptions",
		},
		reflect.TypeFor[corev1.Sysctl]():     {honoured: "name value"},
		reflect.TypeFor[corev1.Toleration](): {honoured: "effect key operator tolerationSeconds value"},
		reflect.TypeFor[corev1.TopologySpreadConstraint](): {
			honoured: "labelSelector matchLabelKeys maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy topologyKey whenUnsatisfiable",
		},
		reflect.TypeFor[corev1.WeightedPodAffinityTerm](): {honoured: "podAffinityTerm weight"},
		reflect.TypeFor[corev1.WindowsSecurityContextOptions](): {
			honoured: "runAsUserName",
			refused:  "gmsaCredentialSpec gmsaCredentialSpecName hostProcess",
		},
	}
}

// containerFields are those of a container and of what it consists of.
func containerFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[corev1.ConfigMapEnvSource]():   {honoured: "name optional"},
		reflect.TypeFor[corev1.ConfigMapKeySelector](): {honoured: "key name optional"},
		reflect.TypeFor[corev1.Container](): {
			honoured: "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resources restartPolicy " +
				"securityContext startupProbe terminationMessagePath terminationMessagePolicy volumeMounts workingDir",
			noted:   "resizePolicy",
			refused: "restartPolicyRules stdin stdinOnce tty volumeDevices",
		},
		reflect.TypeFor[corev1.ContainerPort](): {honoured: "containerPort hostIP hostPort name protocol"},
		reflect.TypeFor[corev1.EnvFromSource](): {honoured: "configMapRef prefix secretRef"},
		reflect.TypeFor[corev1.EnvVar]():        {honoured: "name value valueFrom"},
		reflect.TypeFor[corev1.EnvVarSource](): {
			honoured: "configMapKeyRef fieldRef resourceFieldRef secretKeyRef",
			refused:  "fileKeyRef",
		},
		reflect.TypeFor[corev1.ExecAction](): {honoured: "command"},
		reflect.TypeFor[corev1.GRPCAction](): {
			honoured: "port service",
			refused:  "mode",
		},
		reflect.TypeFor[corev1.HTTPGetAction](): {
			honoured: "host httpHeaders path port scheme",
			refused:  "protocol",
		},
		reflect.TypeFor[corev1.HTTPHeader](): {honoured: "name value"},
		reflect.TypeFor[corev1.Lifecycle](): {
			honoured: "postStart preStop",
			refused:  "stopSignal",
		},
		reflect.TypeFor[corev1.LifecycleHandler](): {
			honoured: "exec httpGet sleep",
			refused:  "tcpSocket",
		},
		reflect.TypeFor[corev1.ObjectFieldSelector](): {honoured: "apiVersion fieldPath"},
		reflect.TypeFor[corev1.Probe](): {
			honoured: "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket " +
				"terminationGracePeriodSeconds timeoutSeconds",
		},
		reflect.TypeFor[corev1.ResourceFieldSelector](): {honoured: "containerName divisor resource"},
		reflect.TypeFor[corev1.ResourceRequirements](): {
			honoured: "limits requests",
			refused:  "claims",
		},
		reflect.TypeFor[corev1.SecretEnvSource]():   {honoured: "name optional"},
		reflect.TypeFor[corev1.SecretKeySelector](): {honoured: "key name optional"},
		reflect.TypeFor[corev1.SleepAction]():       {honoured: "seconds"},
		reflect.TypeFor[corev1.TCPSocketAction]():   {honoured: "host port"},
		reflect.TypeFor[corev1.VolumeMount](): {
			honoured: "mountPath mountPropagation name readOnly subPath subPathExpr",
			refused:  "bindMountOptions recursiveReadOnly",
		},
	}
}

// volumeFields are those of a pod's volumes.
func volumeFields() map[reflect.Type]fieldList {
	return map[reflect.Type]fieldList{
		reflect.TypeFor[corev1.ConfigMapProjection](): {honoured: "items name optional"},
		reflect.TypeFor[corev1.ConfigMapVolumeSource](): {
			honoured: "defaultMode items name optional",
			refused:  "defaultUser",
		},
		reflect.TypeFor[corev1.DownwardAPIProjection](): {honoured: "items"},
		reflect.TypeFor[corev1.DownwardAPIVolumeFile](): {
			honoured: "fieldRef mode path resourceFieldRef",
			refused:  "user",
		},
		reflect.TypeFor[corev1.DownwardAPIVolumeSource](): {
			honoured: "defaultMode items",
			refused:  "defaultUser",
		},
		reflect.TypeFor[corev1.EmptyDirVolumeSource](): {
			honoured: "medium sizeLimit",
			refused:  "mode",
		},
		reflect.TypeFor[corev1.HostPathVolumeSource](): {honoured: "path type"},
		reflect.TypeFor[corev1.KeyToPath](): {
			honoured: "key mode path",
			refused:  "user",
		},
		reflect.TypeFor[corev1.PersistentVolumeClaimVolumeSource](): {honoured: "claimName readOnly"},
		reflect.TypeFor[corev1.ProjectedVolumeSource](): {
			honoured: "defaultMode sources",
			refused:  "defaultUser",
		},
		reflect.TypeFor[corev1.SecretProjection](): {honoured: "items name optional"},
		reflect.TypeFor[corev1.SecretVolumeSource](): {
			honoured: "defaultMode items optional secretName",
			refused:  "defaultUser",
		},
		reflect.TypeFor[corev1.Volume](): {
			honoured: "configMap downwardAPI emptyDir hostPath name persistentVolumeClaim projected secret",
			refused: "awsElasticBlockStore azureDisk azureFile cephfs cinder csi ephemeral fc flexVolume flocker gcePersistentDisk gitRepo " +
				"glusterfs image iscsi nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume",
		},
		reflect.TypeFor[corev1.VolumeProjection](): {
			honoured: "configMap downwardAPI secret",
			refused:  "clusterTrustBundle podCertificate serviceAccountToken",
		},
	}
}
