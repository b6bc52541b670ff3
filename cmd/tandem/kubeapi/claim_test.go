package kubeapi

import (
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// TestKubectlClaims: claims are seen with where their data is, and what nobody
// wants any more can be deleted.
func TestKubectlClaims(t *testing.T) {
	w := shop(t)
	claim := state.Ref{Kind: state.ClaimKind, Namespace: "shop", Name: "data-db-0"}
	w.write(state.RootApp, &state.ClaimBound{
		Claim: claim, Node: "linux-1", Capacity: 5 << 30, Once: true, Workload: state.Ref{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, Template: "data",
	})
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	k.want(k.run("get", "pvc", "-n", "shop"), `NAME +STATUS +VOLUME +CAPACITY +ACCESS MODES +STORAGECLASS +NODE +USED +AGE`,
		`data-db-0 +Bound +pvc-\S+ +5Gi +RWOP +tandem-local +linux-1 +free`)
	k.want(k.run("describe", "pvc", "data-db-0", "-n", "shop"), `StorageClass: +tandem-local`, `Capacity: +5Gi`, `Labels: +app=db`)
	k.want(k.run("auth", "can-i", "delete", "pvc"), `yes`)
	k.want(k.run("delete", "pvc", "data-db-0", "-n", "shop", "--timeout=20s"), `"data-db-0" deleted`)
	k.want(k.fails("get", "pvc", "data-db-0", "-n", "shop"), `NotFound`)
}
