package kubeapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A tally is what of a workload is there.
type tally struct {
	all, updated, ready, available, gone int32
	byOS                                 map[state.OS][2]int32 // ready, wanted
}

// count counts a workload's pods as Kubernetes does: those that are told to
// stop count no more.
func count(s *state.State, w *state.Workload, least time.Duration) tally {
	t := tally{byOS: map[state.OS][2]int32{}}
	for _, v := range w.Variants {
		n := t.byOS[v.OS]
		n[1] += v.Replicas
		t.byOS[v.OS] = n
	}
	for _, p := range w.Pods {
		if p.Stopping {
			t.gone++
			continue
		}
		t.all++
		if w.IsCurrent(p) {
			t.updated++
		}
		if p.Ready && !p.Lost {
			t.ready++
			os := p.OS
			if v := w.Variant(os); v != nil {
				os = v.OS
			}
			n := t.byOS[os]
			n[0]++
			t.byOS[os] = n
		}
		if p.Available(s.At, least) {
			t.available++
		}
	}
	return t
}

func (t tally) finger(w *state.Workload) finger {
	f := fingerStart.num(uint64(t.all)).num(uint64(t.updated)).num(uint64(t.ready)).num(uint64(t.available)).num(uint64(t.gone)).
		num(uint64(w.Owned.Changed)).num(uint64(w.Restart)).num(uint64(w.Revision)).flag(w.Complete).flag(w.IsStalled).flag(w.Deleting).
		flag(w.Owned.Kept).at(w.Since)
	for _, v := range w.Variants {
		f = f.num(uint64(t.byOS[v.OS][0]))
		if v.Update != nil {
			f = f.str(v.Update.Hash)
		}
		if v.Current != nil {
			f = f.str(v.Current.Hash)
		}
	}
	var holds uint64
	for _, h := range w.Holds {
		holds += uint64(h.Seq)
	}
	return f.num(holds)
}

// perOS is "4/4" for one OS, and "" where no variant is for it.
func (t tally) perOS(os state.OS) string {
	n, ok := t.byOS[os]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d/%d", n[0], n[1])
}

// annotate says what kubectl's own fields have no place for: the variants, and
// how many are ready on each OS.
func annotate(m *metav1.ObjectMeta, w *state.Workload, t tally) {
	if len(w.Variants) > 1 {
		wanted := map[state.OS]int32{}
		for _, v := range w.Variants {
			wanted[v.OS] = v.Replicas
		}
		if raw, err := json.Marshal(wanted); err == nil {
			m.Annotations["tandem.dev/variants"] = string(raw)
		}
	}
	for os, note := range map[state.OS]string{state.Linux: "tandem.dev/ready-linux", state.Windows: "tandem.dev/ready-windows"} {
		if n := t.perOS(os); n != "" {
			m.Annotations[note] = n
		}
	}
	if w.Restart > 0 {
		m.Annotations["tandem.dev/restart"] = strconv.FormatUint(uint64(w.Restart), 10)
	}
}

func (a *api) scanDeployments(s *scan) {
	for ref, w := range s.state.Workloads {
		d, ok := w.Deployment()
		if !ok {
			continue
		}
		t := count(s.state, w, time.Duration(d.Spec.MinReadySeconds)*time.Second)
		k, uid, f := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, w.Created)), t.finger(w)
		if !s.same(k, uid, f) {
			s.put(k, uid, f, a.deployment(s.state, w, d, t))
		}
	}
}

func (a *api) deployment(s *state.State, w *state.Workload, d *appsv1.Deployment, t tally) *appsv1.Deployment {
	out := &appsv1.Deployment{ObjectMeta: workloadMeta(s, w), Spec: *d.Spec.DeepCopy()}
	annotate(&out.ObjectMeta, w, t)
	out.Annotations["deployment.kubernetes.io/revision"] = strconv.FormatInt(w.Revision, 10)
	replicas := w.Replicas()
	out.Spec.Replicas = &replicas
	out.Spec.Template.Spec = *podSpec(&d.Spec.Template.Spec)
	defaultDeployment(&out.Spec)
	out.Status = appsv1.DeploymentStatus{
		ObservedGeneration: out.Generation, Replicas: t.all, UpdatedReplicas: t.updated, ReadyReplicas: t.ready,
		AvailableReplicas: t.available, UnavailableReplicas: max(0, replicas-t.available),
	}
	out.Status.TerminatingReplicas = &t.gone
	least := int32(0)
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		_, away := rollout.Allowance(d, int(replicas))
		least = replicas - int32(away)
	}
	out.Status.Conditions = append(out.Status.Conditions,
		deploymentCondition(appsv1.DeploymentAvailable, t.available >= least, "MinimumReplicasAvailable", "MinimumReplicasUnavailable", w.Progress))
	progress := progressing(w, d)
	if words := a.holdWords(w); words != "" {
		progress.Message = words
		out.Status.Conditions = append(out.Status.Conditions, appsv1.DeploymentCondition{
			Type: "Held", Status: corev1.ConditionTrue, Reason: "Held", Message: words,
			LastTransitionTime: metav1.NewTime(w.Since.Time()), LastUpdateTime: metav1.NewTime(w.Since.Time()),
		})
	}
	out.Status.Conditions = append(out.Status.Conditions, progress)
	return out
}

// progressing is Kubernetes's condition of that name: complete, stuck, paused or
// under way.
func progressing(w *state.Workload, d *appsv1.Deployment) appsv1.DeploymentCondition {
	c := deploymentCondition(appsv1.DeploymentProgressing, !w.IsStalled, "ReplicaSetUpdated", "ProgressDeadlineExceeded", w.Progress)
	switch {
	case w.Complete:
		c.Reason, c.Message = "NewReplicaSetAvailable", "all pods are of the newest revision and available"
	case d.Spec.Paused:
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "DeploymentPaused", "spec.paused is true"
	case w.IsStalled:
		c.Message = "no pod became available within progressDeadlineSeconds"
	}
	return c
}

func deploymentCondition(t appsv1.DeploymentConditionType, yes bool, good, bad string, at state.Instant) appsv1.DeploymentCondition {
	when := metav1.NewTime(at.Time())
	c := appsv1.DeploymentCondition{Type: t, Status: truth(yes), Reason: good, LastTransitionTime: when, LastUpdateTime: when}
	if !yes {
		c.Reason = bad
	}
	return c
}

func defaultDeployment(spec *appsv1.DeploymentSpec) {
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.RevisionHistoryLimit == nil {
		n := int32(10)
		spec.RevisionHistoryLimit = &n
	}
	if spec.ProgressDeadlineSeconds == nil {
		n := int32(600)
		spec.ProgressDeadlineSeconds = &n
	}
	if spec.Selector == nil {
		spec.Selector = &metav1.LabelSelector{}
	}
}

func workloadMeta(s *state.State, w *state.Workload) metav1.ObjectMeta {
	m := meta(s, w.Owned)
	m.UID = uidOf(s, w.Ref, w.Created)
	m.CreationTimestamp = metav1.NewTime(w.Created.Time())
	m.Generation += int64(w.Restart)
	if w.Deleting {
		at := metav1.NewTime(w.Since.Time())
		m.DeletionTimestamp = &at
		m.Finalizers = []string{"tandem.dev/pods"}
	}
	return m
}

// holdWords are what a workload waits for, in one line.
func (a *api) holdWords(w *state.Workload) string {
	var words []string
	for _, h := range w.Holds {
		words = append(words, h.ID+": "+report.HoldText(&h.Held))
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}

func (a *api) scanStatefulSets(s *scan) {
	for ref, w := range s.state.Workloads {
		set, ok := w.StatefulSet()
		if !ok {
			continue
		}
		t := count(s.state, w, time.Duration(set.Spec.MinReadySeconds)*time.Second)
		k, uid, f := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, w.Created)), t.finger(w)
		if !s.same(k, uid, f) {
			s.put(k, uid, f, a.statefulSet(s.state, w, set, t))
		}
	}
}

func (a *api) statefulSet(s *state.State, w *state.Workload, set *appsv1.StatefulSet, t tally) *appsv1.StatefulSet {
	out := &appsv1.StatefulSet{ObjectMeta: workloadMeta(s, w), Spec: *set.Spec.DeepCopy()}
	annotate(&out.ObjectMeta, w, t)
	replicas := w.Replicas()
	out.Spec.Replicas = &replicas
	out.Spec.Template.Spec = *podSpec(&set.Spec.Template.Spec)
	if out.Spec.PodManagementPolicy == "" {
		out.Spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	if out.Spec.UpdateStrategy.Type == "" {
		out.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	}
	if out.Spec.Selector == nil {
		out.Spec.Selector = &metav1.LabelSelector{}
	}
	out.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: out.Generation, Replicas: t.all, ReadyReplicas: t.ready, AvailableReplicas: t.available,
		UpdatedReplicas: t.updated, CurrentReplicas: t.all - t.updated,
	}
	if v := w.Variants[0]; v.Update != nil {
		out.Status.UpdateRevision = w.Ref.Name + "-" + v.Update.Hash
		out.Status.CurrentRevision = out.Status.UpdateRevision
		if v.Current != nil {
			out.Status.CurrentRevision = w.Ref.Name + "-" + v.Current.Hash
		}
		if out.Status.CurrentRevision == out.Status.UpdateRevision {
			out.Status.CurrentReplicas = t.updated
		}
	}
	if words := a.holdWords(w); words != "" {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.StatefulSetCondition{
			Type: "Held", Status: corev1.ConditionTrue, Reason: "Held", Message: words, LastTransitionTime: metav1.NewTime(w.Since.Time()),
		})
	}
	return out
}

func deploymentColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Ready", "Up-to-date", "Available", "Linux", "Windows", "Age", "+Containers", "+Images", "+Selector")
}

func deploymentRow(o object, now time.Time) []any {
	d, ok := o.(*appsv1.Deployment)
	if !ok {
		return nil
	}
	names, images := containerWords(&d.Spec.Template.Spec)
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, *d.Spec.Replicas), strconv.Itoa(int(d.Status.UpdatedReplicas)),
		strconv.Itoa(int(d.Status.AvailableReplicas)), osCell(d.Annotations, "tandem.dev/ready-linux"), osCell(d.Annotations, "tandem.dev/ready-windows"),
		age(d.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(d.Spec.Selector),
	}
}

// osCell is "-" where no variant is for that OS.
func osCell(annotations map[string]string, name string) string {
	if n := annotations[name]; n != "" {
		return n
	}
	return "-"
}

func containerWords(spec *corev1.PodSpec) (names, images string) {
	var ns, is []string
	for i := range spec.Containers {
		ns, is = append(ns, spec.Containers[i].Name), append(is, spec.Containers[i].Image)
	}
	return strings.Join(ns, ","), strings.Join(is, ",")
}

func statefulSetColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Ready", "Linux", "Windows", "Age", "+Containers", "+Images")
}

func statefulSetRow(o object, now time.Time) []any {
	s, ok := o.(*appsv1.StatefulSet)
	if !ok {
		return nil
	}
	names, images := containerWords(&s.Spec.Template.Spec)
	return []any{
		s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, *s.Spec.Replicas),
		osCell(s.Annotations, "tandem.dev/ready-linux"), osCell(s.Annotations, "tandem.dev/ready-windows"), age(s.CreationTimestamp, now), names, images,
	}
}
