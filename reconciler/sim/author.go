package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// author commits: it adds, changes, breaks, mends and removes workloads.
type author struct {
	w        *world
	specs    []*spec
	commits  int
	last     *state.RootRendered
	digest   state.Digest
	renderer int // its version, where another one renders other bytes on purpose
}

// spec is a workload as the author thinks of it.
type spec struct {
	name      string
	set       bool // a StatefulSet
	parallel  bool
	replicas  [2]int32 // linux, windows
	partition int32
	surge     int
	away      int
	settles   int32 // minReadySeconds
	version   int
	broken    bool
	config    int
	loss      lease.Class
}

func newAuthor(w *world) *author { return &author{w: w} }

// work commits now and then while there is trouble, and mends everything at its end.
func (a *author) work() {
	for range 3 {
		a.add()
	}
	a.commit()
	for at := time.Duration(0); at < trouble; {
		at += a.w.between(5*time.Second, 90*time.Second)
		a.w.after(min(at, trouble-time.Second), func() {
			for range 1 + a.w.rng.IntN(2) {
				a.edit()
			}
			a.commit()
		})
	}
	a.w.after(trouble, func() {
		for _, s := range a.specs {
			s.broken, s.partition = false, 0
		}
		a.commit()
	})
}

func (a *author) add() {
	r := a.w.rng
	s := &spec{
		name: fmt.Sprintf("app%d", len(a.specs)+a.commits*10), set: r.IntN(2) == 0, parallel: r.IntN(4) == 0,
		surge: r.IntN(3), away: r.IntN(3), version: 1, settles: [...]int32{0, 0, 5, 20}[r.IntN(4)],
	}
	if !a.w.hangs {
		s.loss = [...]lease.Class{lease.Failover, lease.Failover, lease.FailoverFast, lease.Wait}[r.IntN(4)]
	}
	s.replicas = [2]int32{int32(1 + r.IntN(5)), 0}
	switch r.IntN(4) {
	case 0:
		s.replicas = [2]int32{0, int32(1 + r.IntN(4))}
	case 1:
		s.replicas[1] = int32(1 + r.IntN(4))
	}
	a.specs = append(a.specs, s)
}

func (a *author) edit() {
	r := a.w.rng
	if len(a.specs) == 0 || len(a.specs) < 6 && r.IntN(6) == 0 {
		a.add()
		return
	}
	i := r.IntN(len(a.specs))
	s := a.specs[i]
	switch r.IntN(8) {
	case 0:
		if len(a.specs) > 1 {
			a.specs = slices.Delete(a.specs, i, i+1)
		}
	case 1:
		for os := range s.replicas {
			if s.replicas[os] > 0 {
				s.replicas[os] = int32(r.IntN(6))
				if s.replicas[0]+s.replicas[1] == 0 {
					s.replicas[os] = 1
				}
			}
		}
	case 2:
		s.config++
	case 3:
		s.broken = !s.broken
		s.version++
	case 4:
		s.partition = int32(r.IntN(4))
		s.version++
	default:
		s.version++
		s.broken = false
	}
}

// commit renders the text and tells the controller.
func (a *author) commit() {
	a.commits++
	m := a.manifest()
	rev := state.Revision(fmt.Sprintf("main@sha1:%040x", a.commits))
	a.last = &state.RootRendered{Revision: rev, Commit: state.Commit{Hash: rev.Commit(), Author: a.w.text("Ada")}, Manifest: m}
	a.digest = m.Digest
	a.w.logf("commit %d: %d objects", a.commits, len(m.Objects))
	a.resend()
}

// manifest renders the text.
func (a *author) manifest() *state.Manifest {
	m := &state.Manifest{App: state.RootApp}
	for _, s := range a.specs {
		m.Objects = append(m.Objects, s.object(a.renderer), s.configMap())
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

// resend is the shell reading the source again, as it does when it starts.
func (a *author) resend() {
	if a.last == nil {
		return
	}
	if a.w.opts.Mutate == MutateOtherRender {
		a.renderer++
		a.last.Manifest = a.manifest()
		a.digest = a.last.Manifest.Digest
	}
	a.w.ctl.submit(a.last)
}

func (s *spec) configMap() *state.Object {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: "default"}, Data: map[string]string{"n": fmt.Sprint(s.config)}}
	return object("ConfigMap", c, state.AnyOS)
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
	return state.Variant{OS: os, Body: body, Digest: state.DigestOf(raw)}
}

// object is the workload: one variant, or one per OS.
func (s *spec) object(renderer int) *state.Object {
	var out *state.Object
	start := int32(0)
	for i, os := range []state.OS{state.Linux, state.Windows} {
		if s.replicas[i] == 0 && s.replicas[1-i] > 0 {
			continue
		}
		kind, body := s.body(s.replicas[i], start, renderer)
		start = 100
		if out == nil {
			out = object(kind, body, os)
			continue
		}
		out.Variants = append(out.Variants, variant(body, os))
	}
	return out
}

func (s *spec) body(replicas, start int32, renderer int) (string, state.Body) {
	meta := metav1.ObjectMeta{Name: s.name, Namespace: "default"}
	labels := map[string]string{"app": s.name}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"sim/broken": fmt.Sprint(s.broken)}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{
				Name: "main", Image: fmt.Sprintf("sim.example/%s:%d", s.name, s.version), ImagePullPolicy: corev1.PullIfNotPresent,
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(80)}},
					PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
				},
				EnvFrom:   []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: s.name}}}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}},
			}},
		},
	}
	if renderer > 0 {
		// What a default written out looks like.
		template.Spec.TerminationGracePeriodSeconds = new(int64(30 + renderer))
	}
	if !s.set {
		surge, away := intstr.FromInt(s.surge), intstr.FromInt(s.away)
		return "Deployment", &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template, MinReadySeconds: s.settles,
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &away},
			},
		}}
	}
	policy := appsv1.OrderedReadyPodManagement
	if s.parallel {
		policy = appsv1.ParallelPodManagement
	}
	meta.Annotations = map[string]string{lease.Annotation: s.loss.String()}
	return "StatefulSet", &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, ServiceName: s.name, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template, MinReadySeconds: s.settles,
		PodManagementPolicy: policy, Ordinals: &appsv1.StatefulSetOrdinals{Start: start},
		UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
			Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(s.partition)},
		},
	}}
}

// registry is what every image is in this world: an index for both OSes.
func registry(name string) state.Image {
	platform := func(os state.OS, version string) state.Platform {
		return state.Platform{OS: os, Arch: "amd64", OSVersion: version, Digest: state.DigestOf([]byte(name + "/" + string(os)))}
	}
	return state.Image{
		Name: name, Index: state.DigestOf([]byte(name)),
		Platforms: []state.Platform{platform(state.Linux, ""), platform(state.Windows, "10.0.20348.2113")},
	}
}
