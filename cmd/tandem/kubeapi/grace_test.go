package kubeapi

import (
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A client says how long a pod may take to end: the controller is asked for it,
// also where the pod ends already, and clients see what it has been given.
func TestGracePeriods(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Operator)
	db := w.state.ByName[state.PodKey{Namespace: "shop", Name: "db-0"}]
	w.write(state.RootApp, &state.PodStopping{UID: db.UID, Why: state.StopOutdated})
	seconds := func(n int64) *metav1.DeleteOptions { return &metav1.DeleteOptions{GracePeriodSeconds: &n} }
	for _, x := range []struct {
		pod  string
		body any
		sub  string
		want time.Duration // below 0: nothing is asked for
	}{
		{"db-0", &metav1.DeleteOptions{}, "", -1},
		{"db-0", seconds(5), "", 5 * time.Second},
		{"db-0", seconds(0), "", time.Second},
		{"db-0", seconds(-3), "", time.Second},
		{"db-0", seconds(1 << 62), "", graceMost * time.Second},
		{"db-0", &policyv1.Eviction{DeleteOptions: seconds(7)}, "/eviction", 7 * time.Second},
	} {
		before, method := len(w.commands), http.MethodDelete
		if x.sub != "" {
			method = http.MethodPost
			x.body.(*policyv1.Eviction).TypeMeta = metav1.TypeMeta{Kind: "Eviction", APIVersion: "policy/v1"}
		}
		w.stays = true
		if code, answer := c.do(method, "/api/v1/namespaces/shop/pods/"+x.pod+x.sub, x.body); code >= 300 {
			t.Fatalf("%d: %s", code, answer)
		}
		asked := w.commands[before:]
		switch {
		case x.want < 0 && len(asked) > 0:
			t.Errorf("asked for %v", asked[0])
		case x.want >= 0 && (len(asked) != 1 || asked[0].Grace != x.want):
			t.Errorf("asked for %+v, want a grace period of %s", asked, x.want)
		}
	}
	w.write(state.RootApp, &state.PodHurried{UID: db.UID, Grace: 5 * time.Second})
	var pod corev1.Pod
	c.get("/api/v1/namespaces/shop/pods/db-0", &pod)
	if n := pod.DeletionGracePeriodSeconds; n == nil || *n != 5 || !pod.DeletionTimestamp.Equal(&metav1.Time{Time: w.state.At.Time().Add(5 * time.Second).Truncate(time.Second)}) {
		t.Errorf("it ends at %v, within %v", pod.DeletionTimestamp, n)
	}
}
