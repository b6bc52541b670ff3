package runtimetest

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// shared gives every container of a pod one directory, /state.
func shared(s *corev1.PodSpec) {
	s.Volumes = append(s.Volumes, corev1.Volume{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: "state", MountPath: "/state"})
		}
	}
}

// told is what the containers of a pod wrote into a file of /state.
func (w *world) told(uid state.UID, name string) string {
	b, err := os.ReadFile(filepath.Join(w.dir, "pods", uid.String(), "volumes", "state", name))
	if err != nil {
		return ""
	}
	return string(b)
}

// initAndSidecars: init containers run one after the other, a sidecar among
// them goes on beside the main container and ends after it.
func initAndSidecars(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	always := corev1.ContainerRestartPolicyAlways
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		first, side, last := s.Containers[0], s.Containers[0], s.Containers[0]
		first.Name, first.Args = "first", []string{"append", "/state/order", "first", "exit", "0"}
		side.Name, side.Args, side.RestartPolicy = "side", []string{"append", "/state/order", "side", "wait"}, &always
		side.StartupProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/prog", "read", "/state/order"}}}}
		last.Name, last.Args = "last", []string{"append", "/state/order", "last", "exit", "0"}
		s.InitContainers = []corev1.Container{first, side, last}
		shared(s)
	}, "append", "/state/order", "main", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	wait(t, "the order of starts", func() bool { return w.told(p.UID, "order") == "first side last main " })
	w.mu.Lock()
	for i, c := range w.pods[p.UID].Containers {
		if want := i != 3; c.Init != want || c.Restarts != 0 {
			t.Errorf("container %d is %+v", i, c)
		}
	}
	w.mu.Unlock()
	told := *p
	told.Stop = true
	w.assign(&told)
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
}

// hooks: a container isn't ready before its postStart hook has ended, and its
// preStop hook ends before it is told to stop.
func hooks(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	dir := t.TempDir()
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Containers[0].Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/prog", "append", "/host/order", "postStart", "until", "/host/go"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/prog", "append", "/host/order", "preStop"}}},
		}
		s.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
	}, "finally", "/host/order", "end", "wait")
	order := func() string { b, _ := os.ReadFile(filepath.Join(dir, "order")); return string(b) }
	w.assign(p)
	wait(t, "the hook runs", func() bool { return order() == "postStart " })
	w.until(t, "it runs but isn't ready", func() bool {
		s := w.pods[p.UID]
		return len(s.Containers) == 1 && s.Containers[0].State == state.ContainerRunning && !s.Ready && !s.Containers[0].Ready
	})
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.ready(t, p.UID)
	w.assign()
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
	if got := order(); got != "postStart preStop end " {
		t.Errorf("order %q", got)
	}
}

// failingHook: a postStart hook that fails ends the container, and the status
// says so.
func failingHook(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Containers[0].Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/prog", "exit", "9"}}},
		}
	}, "wait")
	w.assign(p)
	w.until(t, "it is restarted because of its hook", func() bool {
		s := w.pods[p.UID]
		return s.Restarts() >= 1 && !s.Ready && s.Containers[0].LastWhy == state.ReasonUnhealthy
	})
}

// lastWords: what a container writes to its termination message, or said last,
// is in its pod's status.
func lastWords(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyNever
		s.Containers[0].TerminationMessagePath = "/dev/termination-log"
	}, "append", "/dev/termination-log", "the disk is on fire", "exit", "4")
	q := w.pod(t, 2, func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyNever
		s.Containers[0].TerminationMessagePath = "/dev/termination-log"
		s.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}, "say", "no such table", "exit", "5")
	w.assign(p, q)
	w.until(t, "the message", func() bool {
		a, b := w.pods[p.UID], w.pods[q.UID]
		return a.Message == "the disk is on fire " && b.Message == "no such table\n" && a.Phase == state.Failed
	})
	if got := w.reads(t, agent.LogRequest{UID: q.UID, Container: "main"}); got != "no such table\n" {
		t.Errorf("its log is %q", got)
	}
}
