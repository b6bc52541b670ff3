package manifest

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// setDefaults fills in what the API server of Kubernetes would
// (k8s.io/kubernetes pkg/apis/{apps,core}/v1/defaults.go), so that objects that
// mean the same are equal.
func setDefaults(b state.Body) {
	// What kubectl keeps of an object for itself holds a Secret's values in clear.
	if a := b.GetAnnotations(); a[lastApplied] != "" {
		delete(a, lastApplied)
		b.SetAnnotations(a)
	}
	switch o := b.(type) {
	case *appsv1.Deployment:
		o.Status = appsv1.DeploymentStatus{}
		defaultDeployment(&o.Spec)
	case *appsv1.StatefulSet:
		o.Status = appsv1.StatefulSetStatus{}
		defaultStatefulSet(&o.Spec)
	case *appsv1.DaemonSet:
		o.Status = appsv1.DaemonSetStatus{}
		defaultDaemonSet(&o.Spec)
	case *batchv1.Job:
		o.Status = batchv1.JobStatus{}
		defaultJob(&o.Spec)
	case *policyv1.PodDisruptionBudget:
		o.Status = policyv1.PodDisruptionBudgetStatus{}
	case *schedulingv1.PriorityClass:
		orDefault(&o.PreemptionPolicy, corev1.PreemptLowerPriority)
	case *batchv1.CronJob:
		o.Status = batchv1.CronJobStatus{}
		defaultCronJob(&o.Spec)
	case *corev1.Pod:
		o.Status = corev1.PodStatus{}
		defaultPod(&o.Spec)
	case *corev1.Service:
		o.Status = corev1.ServiceStatus{}
		defaultService(&o.Spec)
	case *corev1.PersistentVolumeClaim:
		o.Status = corev1.PersistentVolumeClaimStatus{}
		defaultClaim(&o.Spec)
	case *corev1.Secret:
		defaultSecret(o)
	case *corev1.Namespace:
		o.Spec, o.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
	}
}

// lastApplied is the annotation in which `kubectl apply` keeps a whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func orDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func defaultDeployment(s *appsv1.DeploymentSpec) {
	orDefault(&s.Replicas, 1)
	orDefault(&s.RevisionHistoryLimit, 10)
	orDefault(&s.ProgressDeadlineSeconds, 600)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		orDefault(&s.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		orDefault(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		orDefault(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	defaultTemplate(&s.Template)
}

func defaultStatefulSet(s *appsv1.StatefulSetSpec) {
	orDefault(&s.Replicas, 1)
	orDefault(&s.RevisionHistoryLimit, 10)
	if s.PodManagementPolicy == "" {
		s.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	if s.UpdateStrategy.Type == "" {
		// Kubernetes fills rollingUpdate in only where the type was left out;
		// `type: RollingUpdate` alone keeps it nil, and that means something.
		s.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		orDefault(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if r := s.UpdateStrategy.RollingUpdate; r != nil {
		orDefault(&r.Partition, 0)
		orDefault(&r.MaxUnavailable, intstr.FromInt32(1))
	}
	if s.PersistentVolumeClaimRetentionPolicy == nil {
		s.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		}
	}
	defaultClaims(s)
	defaultTemplate(&s.Template)
}

// DefaultTemplate fills in what a pod template leaves out; of one that is filled
// in it changes nothing.
func DefaultTemplate(t *corev1.PodTemplateSpec) { defaultTemplate(t) }

func defaultTemplate(t *corev1.PodTemplateSpec) {
	t.Name, t.Namespace = "", ""
	defaultPod(&t.Spec)
}

func defaultPod(s *corev1.PodSpec) {
	if s.RestartPolicy == "" {
		s.RestartPolicy = corev1.RestartPolicyAlways
	}
	if s.DNSPolicy == "" {
		s.DNSPolicy = corev1.DNSClusterFirst
	}
	if s.SchedulerName == "" {
		s.SchedulerName = corev1.DefaultSchedulerName
	}
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = "" // one of the two names, so that texts that mean the same are equal
	orDefault(&s.TerminationGracePeriodSeconds, 30)
	orDefault(&s.SecurityContext, corev1.PodSecurityContext{})
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i])
	}
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			defaultContainer(&list[i])
		}
	}
	for i := range s.TopologySpreadConstraints {
		c := &s.TopologySpreadConstraints[i]
		honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
		orDefault(&c.NodeAffinityPolicy, honor)
		orDefault(&c.NodeTaintsPolicy, ignore)
	}
	for i := range s.Tolerations {
		if s.Tolerations[i].Operator == "" {
			s.Tolerations[i].Operator = corev1.TolerationOpEqual
		}
	}
}

func defaultVolume(v *corev1.Volume) {
	if v.ConfigMap != nil {
		orDefault(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if v.Secret != nil {
		orDefault(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if v.Projected != nil {
		orDefault(&v.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	}
	if v.DownwardAPI != nil {
		orDefault(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
	}
	if v.HostPath != nil {
		orDefault(&v.HostPath.Type, corev1.HostPathUnset)
	}
	if v.ConfigMap == nil && v.Secret == nil && v.EmptyDir == nil && v.HostPath == nil && v.Projected == nil && v.DownwardAPI == nil && v.PersistentVolumeClaim == nil {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
}

func defaultContainer(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
		if tag := imageTag(c.Image); tag == "latest" {
			c.ImagePullPolicy = corev1.PullAlways
		}
	}
	if c.TerminationMessagePath == "" {
		c.TerminationMessagePath = corev1.TerminationMessagePathDefault
	}
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = corev1.TerminationMessageReadFile
	}
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
	for i := range c.Env {
		if v := c.Env[i].ValueFrom; v != nil && v.FieldRef != nil && v.FieldRef.APIVersion == "" {
			v.FieldRef.APIVersion = "v1"
		}
		if v := c.Env[i].ValueFrom; v != nil && v.ResourceFieldRef != nil && v.ResourceFieldRef.Divisor.IsZero() {
			v.ResourceFieldRef.Divisor = resource.MustParse("0")
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		defaultProbe(p)
	}
	defaultLifecycle(c.Lifecycle)
	// A limit without a request is a request.
	for name, q := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = q.DeepCopy()
		}
	}
}

// imageTag is the tag of an image name: "latest" where it has none, "" where a
// digest names it.
func imageTag(image string) string {
	if strings.Contains(image, "@") {
		return ""
	}
	name := image[strings.LastIndex(image, "/")+1:]
	if _, tag, ok := strings.Cut(name, ":"); ok {
		return tag
	}
	return "latest"
}

func defaultLifecycle(l *corev1.Lifecycle) {
	if l == nil {
		return
	}
	for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
		if h != nil {
			defaultHTTP(h.HTTPGet)
		}
	}
}

func defaultHTTP(h *corev1.HTTPGetAction) {
	if h == nil {
		return
	}
	if h.Path == "" {
		h.Path = "/"
	}
	if h.Scheme == "" {
		h.Scheme = corev1.URISchemeHTTP
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	setInt := func(n *int32, v int32) {
		if *n == 0 {
			*n = v
		}
	}
	setInt(&p.TimeoutSeconds, 1)
	setInt(&p.PeriodSeconds, 10)
	setInt(&p.SuccessThreshold, 1)
	setInt(&p.FailureThreshold, 3)
	defaultHTTP(p.HTTPGet)
	if p.GRPC != nil {
		orDefault(&p.GRPC.Service, "")
	}
}

func defaultService(s *corev1.ServiceSpec) {
	if s.Type == "" {
		s.Type = corev1.ServiceTypeClusterIP
	}
	if s.SessionAffinity == "" {
		s.SessionAffinity = corev1.ServiceAffinityNone
	}
	if s.Type == corev1.ServiceTypeNodePort && s.ExternalTrafficPolicy == "" {
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		orDefault(&s.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		c := s.SessionAffinityConfig
		orDefault(&c.ClientIP, corev1.ClientIPConfig{})
		orDefault(&c.ClientIP.TimeoutSeconds, corev1.DefaultClientIPServiceAffinitySeconds)
	}
	orDefault(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}
