package kubeapi

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPodColumns holds READY, STATUS and RESTARTS to Kubernetes's printers_test.go.
func TestPodColumns(t *testing.T) {
	always, yes, no := corev1.ContainerRestartPolicyAlways, true, false
	run := func(ready bool) corev1.ContainerStatus {
		return corev1.ContainerStatus{Ready: ready, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	}
	wait := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Started: &no, RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	end := func(reason string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}
	}
	list := func(l ...corev1.ContainerStatus) []corev1.ContainerStatus { return l }
	for name, c := range map[string]struct {
		phase       corev1.PodPhase
		sidecar     bool // the first init container
		inits, main []corev1.ContainerStatus
		initialized bool
		ready       bool // the pod
		want        podView
	}{
		"runs":                       {phase: "Running", main: list(run(true)), initialized: true, ready: true, want: podView{"Running", 1, 1, 0}},
		"init begins":                {phase: "Pending", inits: list(wait("ContainerCreating")), main: list(wait("PodInitializing")), want: podView{"Init:0/1", 0, 1, 3}},
		"init runs":                  {phase: "Pending", inits: list(end("Completed", 0), run(false)), main: list(wait("PodInitializing")), want: podView{"Init:1/2", 0, 1, 0}},
		"init fails":                 {phase: "Pending", inits: list(wait("CrashLoopBackOff")), main: list(wait("PodInitializing")), want: podView{"Init:CrashLoopBackOff", 0, 1, 3}},
		"init failed for good":       {phase: "Failed", inits: list(end("Error", 1)), main: list(wait("PodInitializing")), want: podView{"Init:Error", 0, 1, 0}},
		"init's image isn't there":   {phase: "Pending", inits: list(wait("ErrImagePull"), wait("PodInitializing")), main: list(wait("PodInitializing")), want: podView{"Init:ErrImagePull", 0, 1, 3}},
		"a sidecar counts":           {phase: "Running", sidecar: true, inits: list(run(true)), main: list(run(true)), initialized: true, ready: true, want: podView{"Running", 2, 2, 0}},
		"a sidecar is waited for":    {phase: "Pending", sidecar: true, inits: list(wait("CrashLoopBackOff")), main: list(wait("PodInitializing")), want: podView{"Init:CrashLoopBackOff", 0, 2, 3}},
		"a sidecar fails later":      {phase: "Running", sidecar: true, inits: list(wait("CrashLoopBackOff")), main: list(run(true)), initialized: true, want: podView{"Init:CrashLoopBackOff", 1, 2, 3}},
		"the first says what's up":   {phase: "Running", main: list(wait("CrashLoopBackOff"), wait("ImagePullBackOff")), initialized: true, want: podView{"CrashLoopBackOff", 0, 2, 6}},
		"one of two ended":           {phase: "Running", main: list(end("Completed", 0), run(true)), initialized: true, want: podView{"NotReady", 1, 2, 0}},
		"one of two ended, and good": {phase: "Running", main: list(end("Completed", 0), run(true)), initialized: true, ready: true, want: podView{"Running", 1, 2, 0}},
		"init is forgotten":          {phase: "Running", inits: list(wait("ContainerCreating")), main: list(run(true)), initialized: true, ready: true, want: podView{"Running", 1, 1, 0}},
		"ended":                      {phase: "Succeeded", main: list(end("Completed", 0)), initialized: true, want: podView{"Completed", 0, 1, 0}},
		"ended without a word":       {phase: "Failed", main: list(end("", 7)), initialized: true, want: podView{"ExitCode:7", 0, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{Status: corev1.PodStatus{Phase: c.phase, Conditions: []corev1.PodCondition{
				{Type: corev1.PodInitialized, Status: truth(c.initialized)}, {Type: corev1.PodReady, Status: truth(c.ready)},
			}}}
			for i := range c.inits {
				c.inits[i].Name = "init-" + string(rune('0'+i))
				spec := corev1.Container{Name: c.inits[i].Name}
				if c.sidecar && i == 0 {
					spec.RestartPolicy = &always
				}
				p.Spec.InitContainers = append(p.Spec.InitContainers, spec)
			}
			for range c.main {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{})
			}
			p.Status.InitContainerStatuses, p.Status.ContainerStatuses = c.inits, c.main
			if got := viewPod(p); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
