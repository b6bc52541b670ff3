package kubeapi

import (
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (a *api) scanDaemonSets(s *scan) {
	for ref, w := range s.state.Daemons {
		set, ok := w.Owned.Object.First().(*appsv1.DaemonSet)
		if !ok {
			continue
		}
		t := count(s.state, w, time.Duration(set.Spec.MinReadySeconds)*time.Second)
		d := report.NewDaemon(s.state, w)
		f := t.finger(w).num(uint64(d.Wanted)).num(uint64(d.Elsewhere)).num(uint64(len(d.Lacks))).str(strings.Join(d.Lacks, ","))
		k, uid := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, w.Created))
		if !s.same(k, uid, f) {
			s.put(k, uid, f, a.daemonSet(s.state, w, set, t, d))
		}
	}
}

func (a *api) daemonSet(s *state.State, w *state.Workload, set *appsv1.DaemonSet, t tally, d report.Daemon) *appsv1.DaemonSet {
	out := &appsv1.DaemonSet{ObjectMeta: workloadMeta(s, w), Spec: *set.Spec.DeepCopy()}
	for os, note := range map[state.OS]string{state.Linux: "tandem.dev/ready-linux", state.Windows: "tandem.dev/ready-windows"} {
		if n := d.Ready[os]; n.Wanted > 0 {
			out.Annotations[note] = n.String()
		}
	}
	if len(d.Lacks) > 0 {
		out.Annotations["tandem.dev/not-on"] = strings.Join(d.Lacks, ", ")
	}
	out.Spec.Template.Spec = *podSpec(&set.Spec.Template.Spec)
	if out.Spec.Selector == nil {
		out.Spec.Selector = &metav1.LabelSelector{}
	}
	out.Status = appsv1.DaemonSetStatus{
		ObservedGeneration: out.Generation, DesiredNumberScheduled: d.Wanted, CurrentNumberScheduled: t.all - d.Elsewhere, NumberMisscheduled: d.Elsewhere,
		NumberReady: t.ready, NumberAvailable: t.available, NumberUnavailable: max(0, d.Wanted-t.available), UpdatedNumberScheduled: t.updated,
	}
	if words := a.holdWords(w); words != "" {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.DaemonSetCondition{
			Type: "Held", Status: corev1.ConditionTrue, Reason: "Held", Message: words, LastTransitionTime: metav1.NewTime(w.Since.Time()),
		})
	}
	return out
}

func daemonSetColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Linux", "Windows", "Age", "+Containers", "+Images", "+Selector")
}

func daemonSetRow(o object, now time.Time) []any {
	d, ok := o.(*appsv1.DaemonSet)
	if !ok {
		return nil
	}
	n := func(v int32) string { return strconv.Itoa(int(v)) }
	var selector []string
	for k, v := range d.Spec.Template.Spec.NodeSelector {
		selector = append(selector, k+"="+v)
	}
	slices.Sort(selector)
	names, images := containerWords(&d.Spec.Template.Spec)
	return []any{
		d.Name, n(d.Status.DesiredNumberScheduled), n(d.Status.CurrentNumberScheduled), n(d.Status.NumberReady), n(d.Status.UpdatedNumberScheduled),
		n(d.Status.NumberAvailable), orNone(strings.Join(selector, ",")), osCell(d.Annotations, "tandem.dev/ready-linux"),
		osCell(d.Annotations, "tandem.dev/ready-windows"), age(d.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(d.Spec.Selector),
	}
}
