package kubeapi

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// What is shown of nodes and pods follows what is known of them: a fencer that
// fails is seen at once, and a pod whose node is lost isn't ready.
func TestLostAndUnfencedAreSeen(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Viewer)
	fenced := func() corev1.ConditionStatus {
		t.Helper()
		var n corev1.Node
		c.get("/api/v1/nodes/linux-1", &n)
		i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == conditionFenced })
		if i < 0 {
			return ""
		}
		return n.Status.Conditions[i].Status
	}
	if got := fenced(); got != "" {
		t.Errorf("a node without a fencer is fenced: %s", got)
	}
	facts := w.state.Nodes["linux-1"].Facts
	facts.Fences = true
	w.write("", &state.NodeChanged{Node: "linux-1", Facts: facts})
	if got := fenced(); got != corev1.ConditionTrue {
		t.Errorf("fenced: %q, its fencer runs", got)
	}
	facts.Unfenced = true
	w.write("", &state.NodeChanged{Node: "linux-1", Facts: facts})
	if got := fenced(); got != corev1.ConditionFalse {
		t.Errorf("fenced: %q, its fencer doesn't run", got)
	}
	ready := func() (out []corev1.ConditionStatus) {
		t.Helper()
		var p corev1.Pod
		c.get("/api/v1/namespaces/shop/pods/db-0", &p)
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
				out = append(out, c.Status)
			}
		}
		return out
	}
	if got := ready(); !slices.Equal(got, []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionTrue}) {
		t.Errorf("ready: %v", got)
	}
	w.write("", &state.NodeLost{Node: "linux-1"})
	if got := ready(); !slices.Equal(got, []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionFalse}) {
		t.Errorf("a pod of a lost node is ready: %v", got)
	}
	var slice discoveryv1.EndpointSlice
	c.get("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web", &slice)
	before := len(slice.Endpoints)
	web := slices.IndexFunc(w.state.SortedPods(), func(p *state.Pod) bool { return p.Workload.Name == "web" && p.Node == "windows-1" })
	w.write(state.RootApp, &state.PodObserved{UID: w.state.SortedPods()[web].UID, Phase: state.Failed, IP: "10.1.0.99"})
	c.get("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web", &slice)
	if len(slice.Endpoints) != before-1 {
		t.Errorf("%d endpoints of %d once one has ended", len(slice.Endpoints), before)
	}
}
