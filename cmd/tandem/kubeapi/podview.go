package kubeapi

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A podView is what kubectl shows of a pod in its columns: Kubernetes's printPod
// (pkg/printers/internalversion).
type podView struct {
	word       string // STATUS
	ready, all int    // READY: sidecars count
	restarts   int
}

func viewPod(p *corev1.Pod) podView {
	v := podView{word: string(p.Status.Phase), all: len(p.Spec.Containers)}
	if p.Status.Reason != "" {
		v.word = p.Status.Reason
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; state.Sidecar(c) {
			sidecars[c.Name] = true
			v.all++
		}
	}
	if waits := v.begin(p, sidecars); !waits || isTrueOf(p, corev1.PodInitialized) {
		v.run(p, sidecars)
	}
	if p.DeletionTimestamp != nil {
		v.word = "Terminating"
	}
	return v
}

// begin looks at the init containers, and says whether one of them is waited for.
func (v *podView) begin(p *corev1.Pod, sidecars map[string]bool) bool {
	over := isTrueOf(p, corev1.PodInitialized) // an agent may know no more of those that ended
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		v.restarts += int(c.RestartCount)
		switch t, w := c.State.Terminated, c.State.Waiting; {
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				v.ready++
			}
			continue
		case !sidecars[c.Name] && (over || t != nil && t.ExitCode == 0):
			continue
		case t != nil && t.Reason != "":
			v.word = "Init:" + t.Reason
		case t != nil:
			v.word = fmt.Sprintf("Init:ExitCode:%d", t.ExitCode)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating":
			v.word = "Init:" + w.Reason
		default:
			v.word = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

// run looks at the containers that an initialized pod runs: the first one that
// doesn't gives the word, and restarts of init containers of once don't count.
func (v *podView) run(p *corev1.Pod, sidecars map[string]bool) {
	v.restarts = 0
	for i := range p.Status.InitContainerStatuses {
		if c := &p.Status.InitContainerStatuses[i]; sidecars[c.Name] {
			v.restarts += int(c.RestartCount)
		}
	}
	runs := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		v.restarts += int(c.RestartCount)
		switch t, w := c.State.Terminated, c.State.Waiting; {
		case w != nil && w.Reason != "":
			v.word = w.Reason
		case t != nil && t.Reason != "":
			v.word = t.Reason
		case t != nil:
			v.word = fmt.Sprintf("ExitCode:%d", t.ExitCode)
		case c.Ready && c.State.Running != nil:
			runs = true
			v.ready++
		}
	}
	if v.word == "Completed" && runs { // of several, one has ended
		if v.word = "NotReady"; isTrueOf(p, corev1.PodReady) {
			v.word = "Running"
		}
	}
}

func isTrueOf(p *corev1.Pod, t corev1.PodConditionType) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
