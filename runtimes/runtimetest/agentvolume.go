package runtimetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// volumes: a pod sees projected files, a part of a volume, a directory of the
// host and its group's directory.
func volumes(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	host := t.TempDir()
	for name, text := range map[string]string{"sub/in": "from the host", "out": "beside it"} {
		path := filepath.Join(host, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.objects = append(w.objects, config("hello\n"))
	group, user := int64(4242), int64(1000)
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group, RunAsUser: &user}
		s.Volumes = []corev1.Volume{
			{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Items: []corev1.KeyToPath{{Key: "greeting", Path: "say/hello"}},
				}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
					Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"},
				}}}},
			}}}},
			{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
			{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{
			{Name: "all", MountPath: "/all"},
			{Name: "host", MountPath: "/part", SubPath: "sub"},
			{Name: "host", MountPath: "/one", SubPath: "out"},
			{Name: "state", MountPath: "/state"},
		}
	}, "read", "/all/say/hello", "read", "/part/in", "read", "/one", "append", "/state/mine", "x", "read", "/all/name", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	want := "hello\nfrom the host\nbeside it\n"
	wait(t, "the container read its volumes", func() bool {
		return strings.HasPrefix(w.reads(t, agent.LogRequest{UID: p.UID, Container: "main"}), want)
	})
	wait(t, "the group's directory is written", func() bool { return w.told(p.UID, "mine") == "x " })
	w.assign()
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
	if b, err := os.ReadFile(filepath.Join(host, "sub", "in")); err != nil || string(b) != "from the host\n" {
		t.Errorf("the host's file after the pod: %q, %v", b, err)
	}
}

// subPathStays: a symbolic link that a container left in a volume leads nobody
// out of it.
func subPathStays(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	host := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(host, "way-out")); err != nil {
		t.Fatal(err)
	}
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/part", SubPath: "way-out"}}
	}, "wait")
	w.assign(p)
	w.until(t, "the way out is refused", func() bool { s := w.pods[p.UID]; return !s.Ready && strings.Contains(s.Message, "way-out") })
}
