package conformance

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// hookChecks want a hook to reach another pod: what it did outlives its own.
func hookChecks() []check {
	hook := func(name string, post bool, handler func(ip string) corev1.LifecycleHandler) check {
		return check{name, func(k *kit) {
			k.apply(k.pod("handler", func(_ *corev1.Pod, c *corev1.Container) {
				serves(c)
				c.ReadinessProbe = httpProbe("/")
			}))
			h := handler(k.ready("handler").Status.PodIP)
			grace := int64(30)
			k.write("hooked.yaml", k.pod("hooked", func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.TerminationGracePeriodSeconds = &grace
				c.Lifecycle = &corev1.Lifecycle{PostStart: &h}
				if !post {
					c.Lifecycle = &corev1.Lifecycle{PreStop: &h}
				}
			}))
			k.ready("hooked")
			if !post {
				k.equal("heard before the end", k.logs("handler", nil), "")
				k.write("hooked.yaml", "")
				k.gone("hooked")
			}
			k.says("handler", "heard\n", nil)
		}}
	}
	viaExec := func(ip string) corev1.LifecycleHandler {
		return corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "tool get http://" + ip + ":8080/echo"}}}
	}
	viaHTTP := func(ip string) corev1.LifecycleHandler {
		return corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: ip, Path: "/echo", Port: intstr.FromInt32(8080)}}
	}
	return []check{
		hook("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly", true, viaExec),
		hook("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly", false, viaExec),
		hook("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly", true, viaHTTP),
		hook("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly", false, viaHTTP),
		{"[sig-node] Lifecycle Sleep Hook when create a pod with lifecycle hook using sleep action valid prestop hook using sleep action", func(k *kit) {
			grace := int64(30)
			k.apply(k.pod("kept", nil))
			k.write("web.yaml", k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.TerminationGracePeriodSeconds = &grace
				c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3}}}
			}))
			k.ready("web")
			k.write("web.yaml", "")
			begin := time.Now()
			k.gone("web")
			if d := time.Since(begin); d < 3*time.Second {
				k.Errorf("gone after %s, want three seconds of sleep", d)
			}
		}},
		{"[sig-node] Container Lifecycle Hook a container whose poststart hook fails is ended and told so", func(k *kit) {
			k.apply(k.pod("web", func(_ *corev1.Pod, c *corev1.Container) {
				c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo no luck >&2; exit 9"}}}}
			}))
			k.until("web", "restarted because of its hook", func(p *corev1.Pod) bool {
				t := status(p, "main").LastTerminationState.Terminated
				return status(p, "main").RestartCount >= 1 && !ready(p) && t != nil && t.Reason == "Unhealthy"
			})
		}},
	}
}
