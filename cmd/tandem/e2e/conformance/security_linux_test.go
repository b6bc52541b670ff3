package conformance

import (
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// confined makes a container run under a security context.
func confined(s corev1.SecurityContext) func(p *corev1.Pod, c *corev1.Container) {
	return func(_ *corev1.Pod, c *corev1.Container) { c.SecurityContext = &s }
}

// own is a line of what the kernel says of the test itself.
func own(field string) string {
	raw, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, field+":") {
			return line
		}
	}
	return ""
}

func securityChecks() []check {
	yes, no := true, false
	num := func(n int64) *int64 { return &n }
	says := func(name, script, want string, change func(p *corev1.Pod, c *corev1.Container)) check {
		return check{name, func(k *kit) {
			k.apply(k.once("web", script, change))
			k.equal("log", k.ends("web", corev1.PodSucceeded), want)
		}}
	}
	caps := func(add, drop []corev1.Capability) corev1.SecurityContext {
		return corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: add, Drop: drop}}
	}
	return []check{
		says("[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534", "id -u", "65534\n", confined(corev1.SecurityContext{RunAsUser: num(65534)})),
		says("[sig-node] Security Context When creating a container with runAsUser should run the container with uid 0", "id -u", "0\n", func(_ *corev1.Pod, c *corev1.Container) {
			c.Image, c.SecurityContext = user, &corev1.SecurityContext{RunAsUser: num(0)}
		}),
		says("[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup", "id -u; id -g", "1001\n2002\n", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: num(1001), RunAsGroup: num(2002)}
		}),
		says("[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup", "id -u; id -g", "1002\n2003\n", func(p *corev1.Pod, c *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: num(1001), RunAsGroup: num(2002)}
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: num(1002), RunAsGroup: num(2003)}
		}),
		says("[sig-node] Security Context should support pod.Spec.SecurityContext.SupplementalGroups", "id -G", "2345 1234 3456 5678\n", func(p *corev1.Pod, c *corev1.Container) {
			c.Image = user
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: []int64{1234, 5678}}
		}),
		says("[sig-node] Security Context should run as the image's own user", "id -u; id -g; pwd", "1234\n2345\n/data\n", func(_ *corev1.Pod, c *corev1.Container) { c.Image = user }),
		says("[sig-node] Security Context When creating a container with runAsNonRoot should run with an image specified user ID", "id -u", "1234\n", func(_ *corev1.Pod, c *corev1.Container) {
			c.Image, c.SecurityContext = user, &corev1.SecurityContext{RunAsNonRoot: &yes}
		}),
		{"[sig-node] Security Context When creating a container with runAsNonRoot should not run with an explicit root user ID", func(k *kit) {
			k.apply(k.pod("web", confined(corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: num(0)})))
			k.until("web", "refused", func(p *corev1.Pod) bool {
				return p.Status.Phase == corev1.PodPending && strings.Contains(p.Status.Message, "runAsNonRoot")
			})
		}},
		{"[sig-node] Security Context When creating a container with runAsNonRoot should not run without a specified user ID", func(k *kit) {
			k.apply(k.pod("web", confined(corev1.SecurityContext{RunAsNonRoot: &yes})))
			k.until("web", "refused", func(p *corev1.Pod) bool {
				return p.Status.Phase == corev1.PodPending && strings.Contains(p.Status.Message, "runAsNonRoot")
			})
		}},
		says("[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with readonly rootfs when readOnlyRootFilesystem=true",
			"touch /checkfile 2>/dev/null || echo read-only", "read-only\n", confined(corev1.SecurityContext{ReadOnlyRootFilesystem: &yes})),
		says("[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false",
			"touch /checkfile && echo writable", "writable\n", confined(corev1.SecurityContext{ReadOnlyRootFilesystem: &no})),
		says("[sig-node] Security Context When creating a pod with privileged should run the container as privileged when true",
			"mount -t tmpfs none /tmp && echo mounted; grep CapEff /proc/self/status", "mounted\n"+own("CapEff"), confined(corev1.SecurityContext{Privileged: &yes})),
		says("[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false",
			"mount -t tmpfs none /tmp 2>/dev/null || echo refused", "refused\n", confined(corev1.SecurityContext{Privileged: &no})),
		says("[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false",
			"grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", confined(corev1.SecurityContext{AllowPrivilegeEscalation: &no})),
		says("[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should allow privilege escalation when true",
			"grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n", confined(corev1.SecurityContext{AllowPrivilegeEscalation: &yes})),
		says("[sig-node] Security Context should support seccomp default which is RuntimeDefault on a container",
			"grep -m1 Seccomp: /proc/self/status", "Seccomp:\t2\n", confined(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}})),
		says("[sig-node] Security Context should support seccomp unconfined on the pod",
			"grep -m1 Seccomp: /proc/self/status", "Seccomp:\t0\n", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
			}),
		says("[sig-node] Security Context should drop and add capabilities",
			"touch /tmp/f; chown 1 /tmp/f 2>/dev/null || echo no chown; grep CapEff /proc/self/status", "no chown\nCapEff:\t0000000000001000\n",
			confined(caps([]corev1.Capability{"NET_ADMIN"}, []corev1.Capability{"ALL"}))),
		says("[sig-node] Security Context should have Kubernetes's default capabilities", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb\n", nil),
		says("[sig-node] Security Context should hide what is the host's", "ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sysrq-trigger || echo refused", "0\nrefused\n", nil),
	}
}
