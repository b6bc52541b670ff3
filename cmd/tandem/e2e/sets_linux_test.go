package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// logs are what the pods of db wrote into their volumes, by claim, as it lies on
// this machine's disk.
func (r *run) logs() map[string]string {
	out := map[string]string{}
	_ = filepath.WalkDir(r.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "claim" || filepath.Base(filepath.Dir(filepath.Dir(path))) != "volumes" {
			return nil //nolint:nilerr // what comes and goes meanwhile is no volume
		}
		claim, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // it was just deleted
		}
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "data", "log"))
		out[strings.TrimSpace(string(claim))] = strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ", ")
		return nil
	})
	return out
}

// edit replaces a part of the set's text.
func (r *run) edit(from, to string) {
	r.t.Helper()
	name := filepath.Join(r.dir, "sets.yaml")
	text, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(text), from) {
		r.t.Fatalf("no %q in %s: %v", from, name, err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) wantLogs(want map[string]string) {
	r.t.Helper()
	r.until(func() string {
		if got := r.logs(); !maps.Equal(got, want) {
			return fmt.Sprintf("volumes hold %v, want %v", got, want)
		}
		return ""
	})
}

func (r *run) wantSet(name string, ok func(*appsv1.StatefulSet) bool) {
	r.t.Helper()
	r.until(func() string {
		var s appsv1.StatefulSet
		if err := r.get("/apis/apps/v1/namespaces/sets/statefulsets/"+name, &s); err != nil {
			return err.Error()
		}
		if !ok(&s) {
			return fmt.Sprintf("stateful set %s: %+v", name, s.Status)
		}
		return ""
	})
}

// TestStatefulSetsOnContainerd runs those of Kubernetes's cases for StatefulSets
// that real containers and a real disk must bear out.
func TestStatefulSetsOnContainerd(t *testing.T) {
	r := newBusy(t, "sets")
	r.up()
	ready := func(n int32) func(*appsv1.StatefulSet) bool {
		return func(s *appsv1.StatefulSet) bool {
			return s.Status.AvailableReplicas == n && s.Status.UpdatedReplicas == n && s.Status.Replicas == n
		}
	}
	// should provide basic identity: a name, a host name and data for each
	r.wantSet("db", ready(3))
	r.wantLogs(map[string]string{"sets/data-db-0": "db-0 one", "sets/data-db-1": "db-1 one", "sets/data-db-2": "db-2 one"})
	// Scaling should halt if any stateful pod is unhealthy
	r.wantSet("broken", func(s *appsv1.StatefulSet) bool { return s.Status.Replicas == 1 && s.Status.ReadyReplicas == 0 })
	// should perform rolling updates and roll backs of template modifications with PVCs
	r.edit("value: one", "value: two")
	r.wantLogs(map[string]string{"sets/data-db-0": "db-0 one, db-0 two", "sets/data-db-1": "db-1 one, db-1 two", "sets/data-db-2": "db-2 one, db-2 two"})
	r.wantSet("db", ready(3))
	// a broken revision gives way to the corrected one by itself (kubernetes#67250)
	r.edit(`"false"`, `"true"`)
	r.wantSet("broken", ready(2))
	// the program is killed and started again: no container is restarted for it
	r.kill()
	r.up()
	r.wantSet("db", ready(3))
	// should delete PVCs with a OnScaledown policy
	r.edit("replicas: 3", "replicas: 1")
	r.wantSet("db", ready(1))
	r.wantLogs(map[string]string{"sets/data-db-0": "db-0 one, db-0 two"})
	var claims corev1.PersistentVolumeClaimList
	if err := r.get("/api/v1/namespaces/sets/persistentvolumeclaims", &claims); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for i := range claims.Items {
		names = append(names, claims.Items[i].Name+" "+string(claims.Items[i].Status.Phase))
	}
	if !slices.Equal(names, []string{"data-db-0 Bound"}) {
		t.Errorf("claims %v, want data-db-0 alone", names)
	}
}
