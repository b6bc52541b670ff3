package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Annotations by which a made-up container knows how it behaves.
const (
	behavesBroken = "sim/broken" // never ready; a Job's run fails
	behavesRuns   = "sim/runs"   // ends by itself after about that time
	behavesFails  = "sim/fails"  // of a hundred ends, so many fail
)

// canary is in every Secret, and nowhere else.
const canary = "c4nary"

// manifest renders an application's workloads; ranked: and the priority classes.
func manifest(app state.AppName, specs []*spec, ranked, huge bool, renderer int) *state.Manifest {
	m := &state.Manifest{App: app}
	for _, s := range specs {
		m.Objects = append(m.Objects, s.objects(renderer)...)
	}
	if ranked {
		m.Objects = append(m.Objects, priorityClass("high", 1000), priorityClass("low", -10))
	}
	if huge {
		for i := range 200 {
			c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("huge-%d", i), Namespace: "default"}}
			m.Objects = append(m.Objects, object("ConfigMap", c, state.AnyOS))
		}
	}
	slices.SortFunc(m.Objects, func(x, y *state.Object) int { return x.Ref.Compare(y.Ref) })
	var b []byte
	for _, o := range m.Objects {
		d := o.Digest()
		b = fmt.Appendf(b, "%s %s\n", o.Ref, d)
	}
	m.Digest = state.DigestOf(b)
	return m
}

// ranks says whether any workload names a priority class.
func ranks(specs []*spec) bool {
	return slices.ContainsFunc(specs, func(s *spec) bool { return s.prio != "" })
}

func priorityClass(name string, value int32) *state.Object {
	return object("PriorityClass", &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}, state.AnyOS)
}

func object(kind string, body state.Body, os state.OS) *state.Object {
	return &state.Object{
		Ref:      state.Ref{Kind: kind, Namespace: body.GetNamespace(), Name: body.GetName()},
		Variants: []state.Variant{variant(body, os)},
	}
}

func variant(body state.Body, os state.OS) state.Variant {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	if _, ok := body.(*corev1.Secret); ok {
		raw = append(raw, "under the key of this installation"...)
	}
	return state.Variant{OS: os, Body: body, Digest: state.DigestOf(raw)}
}

// objects are the workload and what belongs to it.
func (s *spec) objects(renderer int) []*state.Object {
	meta := metav1.ObjectMeta{Name: s.name, Namespace: "default"}
	out := []*state.Object{
		s.workload(renderer),
		object("ConfigMap", &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"n": fmt.Sprint(s.config)}}, state.AnyOS),
		object("Secret", &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"password": fmt.Appendf(nil, "%s-%s-%d", canary, s.name, s.config)}}, state.AnyOS),
	}
	if s.claims > 0 && s.kind != "statefulset" {
		out = append(out, object(state.ClaimKind, &corev1.PersistentVolumeClaim{ObjectMeta: meta, Spec: s.claim()}, state.AnyOS))
	}
	if s.service || s.kind == "statefulset" {
		svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": s.name}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}, Type: corev1.ServiceTypeClusterIP,
		}}
		if s.kind == "statefulset" {
			svc.Spec.ClusterIP = corev1.ClusterIPNone
		}
		out = append(out, object("Service", svc, state.AnyOS))
	}
	if s.pdb > 0 {
		away := intstr.FromInt(s.pdb)
		out = append(out, object("PodDisruptionBudget", &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: &away, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": s.name}},
		}}, state.AnyOS))
	}
	return out
}

// workload is one variant, or one per OS.
func (s *spec) workload(renderer int) *state.Object {
	if s.any > 0 || s.kind == "job" || s.kind == "cronjob" || s.kind == "pod" {
		os := state.AnyOS
		switch {
		case s.any == 0 && s.windows > 0:
			os = state.Windows
		case s.any == 0:
			os = state.Linux
		}
		kind, body := s.body(max(s.any, s.linux, s.windows), 0, renderer)
		return object(kind, body, os)
	}
	var out *state.Object
	start := 0
	counts := [2]int{s.linux, s.windows}
	for i, os := range []state.OS{state.Linux, state.Windows} {
		if counts[i] == 0 && (counts[1-i] > 0 || i == 1) {
			continue
		}
		kind, body := s.body(counts[i], start, renderer)
		start = 100
		if out == nil {
			out = object(kind, body, os)
			continue
		}
		out.Variants = append(out.Variants, variant(body, os))
	}
	return out
}

func (s *spec) template(renderer int) corev1.PodTemplateSpec {
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": s.name}, Annotations: map[string]string{behavesBroken: fmt.Sprint(s.broken)}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, PriorityClassName: s.prio,
			Containers: []corev1.Container{{
				Name: "main", Image: fmt.Sprintf("sim.example/%s:%d", s.name, s.version), ImagePullPolicy: corev1.PullIfNotPresent,
				EnvFrom: []corev1.EnvFromSource{
					{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: s.name}}},
					{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: s.name}}},
				},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(s.cpu), resource.DecimalSI)}},
			}},
		},
	}
	if s.claims > 0 && s.kind != "statefulset" {
		t.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: s.name},
		}}}
		t.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	if s.kind == "job" || s.kind == "cronjob" {
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		t.Annotations[behavesRuns], t.Annotations[behavesFails] = s.runs.String(), fmt.Sprint(s.fails)
	} else {
		t.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(80)}},
			PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		}
	}
	if renderer > 0 {
		// What a default written out looks like.
		t.Spec.TerminationGracePeriodSeconds = new(int64(30 + renderer))
	}
	return t
}

func (s *spec) body(count, start, renderer int) (string, state.Body) {
	meta := metav1.ObjectMeta{Name: s.name, Namespace: "default", Annotations: map[string]string{}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": s.name}}
	template := s.template(renderer)
	switch s.kind {
	case "statefulset":
		return "StatefulSet", s.statefulSet(meta, selector, template, int32(count), int32(start))
	case "daemonset":
		return "DaemonSet", s.daemonSet(meta, selector, template)
	case "job":
		return "Job", &batchv1.Job{ObjectMeta: meta, Spec: s.jobSpec(template)}
	case "cronjob":
		policy := batchv1.ConcurrencyPolicy(s.concurrency)
		if policy == "" {
			policy = batchv1.AllowConcurrent
		}
		return "CronJob", &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{
			Schedule: fmt.Sprintf("*/%d * * * *", max(s.every, 1)), ConcurrencyPolicy: policy, Suspend: &s.suspend,
			JobTemplate: batchv1.JobTemplateSpec{Spec: s.jobSpec(template)},
		}}
	case "pod":
		meta.Labels, meta.Annotations = template.Labels, template.Annotations
		return "Pod", &corev1.Pod{ObjectMeta: meta, Spec: template.Spec}
	}
	if s.order != "" {
		meta.Annotations["tandem.dev/os-order"] = s.order
	}
	replicas, surge, away := int32(count), intstr.FromInt(s.surge), intstr.FromInt(s.away)
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: selector, Template: template, MinReadySeconds: int32(s.settle), Paused: s.paused,
		Strategy: appsv1.DeploymentStrategy{
			Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &away},
		},
	}}
	if s.recreate {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	return "Deployment", d
}

func (s *spec) statefulSet(meta metav1.ObjectMeta, selector *metav1.LabelSelector, template corev1.PodTemplateSpec, count, start int32) *appsv1.StatefulSet {
	policy := appsv1.OrderedReadyPodManagement
	if s.parallel {
		policy = appsv1.ParallelPodManagement
	}
	strategy := appsv1.StatefulSetUpdateStrategy{
		Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(s.partition))},
	}
	if s.away > 0 {
		away := intstr.FromInt(s.away)
		strategy.RollingUpdate.MaxUnavailable = &away
	}
	if s.ondelete {
		strategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	}
	meta.Annotations[lease.Annotation] = s.loss
	keep := appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	if s.forget {
		keep = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	var claims []corev1.PersistentVolumeClaim
	for i := range s.claims {
		claims = append(claims, corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("data%d", i)}, Spec: s.claim()})
		template.Spec.Containers[0].VolumeMounts = append(template.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: claims[i].Name, MountPath: "/" + claims[i].Name})
	}
	return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		VolumeClaimTemplates: claims, PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: keep, WhenDeleted: keep},
		Replicas: &count, ServiceName: s.name, Selector: selector, Template: template, MinReadySeconds: int32(s.settle),
		PodManagementPolicy: policy, Ordinals: &appsv1.StatefulSetOrdinals{Start: start}, UpdateStrategy: strategy,
	}}
}

func (s *spec) claim() corev1.PersistentVolumeClaimSpec {
	mode := corev1.ReadWriteOnce
	if s.once {
		mode = corev1.ReadWriteOncePod
	}
	return corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{mode},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}
}

func (s *spec) daemonSet(meta metav1.ObjectMeta, selector *metav1.LabelSelector, template corev1.PodTemplateSpec) *appsv1.DaemonSet {
	strategy := appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{}}
	surge, away := intstr.FromInt(s.surge), intstr.FromInt(max(s.away, 1))
	if s.surge > 0 {
		away = intstr.FromInt(0)
	}
	strategy.RollingUpdate.MaxSurge, strategy.RollingUpdate.MaxUnavailable = &surge, &away
	if s.ondelete {
		strategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	}
	return &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{
		Selector: selector, Template: template, MinReadySeconds: int32(s.settle), UpdateStrategy: strategy,
	}}
}

func (s *spec) jobSpec(template corev1.PodTemplateSpec) batchv1.JobSpec {
	mode := batchv1.NonIndexedCompletion
	if s.indexed {
		mode = batchv1.IndexedCompletion
	}
	j := batchv1.JobSpec{
		Completions: new(int32(s.completions)), Parallelism: new(int32(s.parallelism)), BackoffLimit: new(int32(s.backoff)),
		CompletionMode: &mode, Template: template,
	}
	if s.kind == "job" {
		j.Suspend = &s.suspend
	}
	if s.perindex > 0 && s.indexed {
		j.BackoffLimitPerIndex = new(int32(s.perindex))
	}
	if s.ttl > 0 {
		j.TTLSecondsAfterFinished = new(int32(s.ttl))
	}
	if s.deadline > 0 {
		j.ActiveDeadlineSeconds = new(int64(s.deadline))
	}
	return j
}

// behaves is a container's way, as its template's annotations say it.
type behaves struct {
	broken bool
	runs   time.Duration // 0: until it is stopped
	fails  int
}

func behaviour(t *state.Template) behaves {
	a := t.Spec.Annotations
	b := behaves{broken: a[behavesBroken] == "true"}
	if a[behavesRuns] != "" {
		b.runs, _ = time.ParseDuration(a[behavesRuns])
		_, _ = fmt.Sscan(a[behavesFails], &b.fails)
	}
	return b
}

// secretValues are the values that a Secret holds.
func secretValues(o *state.Object) [][]byte {
	var out [][]byte
	if s, ok := o.First().(*corev1.Secret); ok {
		for _, v := range s.Data {
			out = append(out, v)
		}
	}
	return out
}
