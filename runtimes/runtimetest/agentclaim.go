package runtimetest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// claimer is a pod that has the claim prod/data as /data.
func (w *world) claimer(t *testing.T, n byte, args ...string) *state.AssignedPod {
	t.Helper()
	return w.pod(t, n, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
		}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}, args...)
}

func (w *world) volume() state.AssignedVolume {
	return state.AssignedVolume{UID: state.UID{1, 2, 3}, Claim: state.Ref{Kind: state.ClaimKind, Namespace: "prod", Name: "data"}}
}

func (w *world) dataFile(name string) string {
	return filepath.Join(w.dir, "volumes", w.volume().UID.String(), "data", name)
}

// volumeGone says whether the agent reported that nothing of it is left.
func (w *world) volumeGone() bool {
	return slices.ContainsFunc(w.reports, func(r state.Report) bool { return slices.Contains(r.Dropped, w.volume().UID) })
}

// claims: data outlives the pod, the agent and what the agent isn't told; one pod
// finds what another wrote; and only a volume that is given up, with no pod that
// has it, is deleted.
func claims(t *testing.T, w *world) {
	w.volumes = []state.AssignedVolume{w.volume()}
	first := w.claimer(t, 1, "append", "/data/file", "one", "wait")
	w.assign(first)
	w.ready(t, first.UID)
	w.keeps(t, "one ")
	w.assign()
	w.until(t, "the first pod is gone", func() bool { return len(w.pods) == 0 })
	w.keeps(t, "one ")
	w.volumes[0].Begun = true
	second := w.claimer(t, 2, "append", "/data/file", "two", "wait")
	w.assign(second)
	w.ready(t, second.UID)
	w.keeps(t, "one two ")
	w.restart(t)
	w.ready(t, second.UID)
	w.keeps(t, "one two ")
	// It is given up while a pod has it: the pod comes first.
	w.volumes[0].Drop = true
	w.assign(second)
	w.ready(t, second.UID)
	w.keeps(t, "one two ")
	w.assign()
	w.until(t, "the volume is gone", w.volumeGone)
	if _, err := os.Lstat(filepath.Dir(filepath.Dir(w.dataFile("file")))); !os.IsNotExist(err) {
		t.Errorf("something of the volume is left: %v", err)
	}
	// Told again, it says so again.
	w.mu.Lock()
	w.reports = nil
	w.mu.Unlock()
	w.restart(t)
	w.assign()
	w.until(t, "the volume is gone, said again", w.volumeGone)
}

// keeps checks what the pods wrote. On simulated nodes the test writes it.
func (w *world) keeps(t *testing.T, want string) {
	t.Helper()
	if w.Simulated {
		if err := os.WriteFile(w.dataFile("file"), []byte(want), 0o600); err != nil {
			t.Fatalf("the volume: %v", err)
		}
		return
	}
	wait(t, "the volume holds "+want, func() bool { b, err := os.ReadFile(w.dataFile("file")); return err == nil && string(b) == want })
}

// unspokenVolume: what nobody speaks of is kept.
func unspokenVolume(t *testing.T, w *world) {
	w.volumes = []state.AssignedVolume{w.volume()}
	p := w.claimer(t, 1, "wait")
	w.assign(p)
	w.ready(t, p.UID)
	w.volumes = nil
	w.assign()
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
	w.restart(t)
	q := w.pod(t, 2, nil, "wait")
	w.assign(q)
	w.ready(t, q.UID)
	if _, err := os.Lstat(filepath.Dir(w.dataFile("file"))); err != nil {
		t.Errorf("the volume is gone: %v", err)
	}
}

// lostData: an empty directory is no stand-in for data that there was.
func lostData(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	w.volumes = []state.AssignedVolume{w.volume()}
	w.volumes[0].Begun = true
	p := w.claimer(t, 1, "wait")
	w.assign(p)
	w.until(t, "that the data is gone is said", func() bool {
		s := w.pods[p.UID]
		return !s.Ready && strings.Contains(s.Message, "kubectl delete pvc data")
	})
	if err := os.MkdirAll(filepath.Dir(w.dataFile("file")), 0o755); err != nil {
		t.Fatal(err)
	}
	w.ready(t, p.UID) // it was put back
}

// claimOfGroup: a volume is its pod's group's, with what was in it before.
func claimOfGroup(t *testing.T, w *world) {
	if w.Simulated || w.OS == state.Windows {
		return
	}
	old := w.dataFile("below/old")
	if err := os.MkdirAll(filepath.Dir(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, []byte("old "), 0o600); err != nil {
		t.Fatal(err)
	}
	w.volumes = []state.AssignedVolume{w.volume()}
	group, user := int64(4242), int64(1000)
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group, RunAsUser: &user}
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
		}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "data", MountPath: "/part", SubPath: "below"}}
	}, "append", "/data/below/old", "new", "append", "/part/made", "x", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	wait(t, "both are written", func() bool {
		a, _ := os.ReadFile(old)
		b, _ := os.ReadFile(w.dataFile("below/made"))
		return string(a) == "old new " && string(b) == "x "
	})
	w.assign()
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
}
