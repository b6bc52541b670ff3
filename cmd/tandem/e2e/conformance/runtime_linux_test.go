package conformance

import (
	"net/url"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// once makes a pod that runs a script to its end.
func (k *kit) once(name, script string, change func(p *corev1.Pod, c *corev1.Container)) string {
	k.Helper()
	return k.pod(name, func(p *corev1.Pod, c *corev1.Container) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		sh(c, script)
		if change != nil {
			change(p, c)
		}
	})
}

// message is what a container's last words are said to be.
func message(p *corev1.Pod) string {
	if t := status(p, "main").State.Terminated; t != nil {
		return t.Message
	}
	return "it has not ended"
}

func runtimeChecks() []check {
	words := func(name, script, want string, end corev1.PodPhase, policy corev1.TerminationMessagePolicy, path string) check {
		return check{name, func(k *kit) {
			k.apply(k.once("web", script, func(_ *corev1.Pod, c *corev1.Container) {
				c.TerminationMessagePolicy, c.TerminationMessagePath = policy, path
			}))
			k.equal("message", message(k.until("web", string(end), phase(end))), want)
		}}
	}
	return []check{
		{"[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status", func(k *kit) {
			policies := map[string]corev1.RestartPolicy{"always": corev1.RestartPolicyAlways, "onfailure": corev1.RestartPolicyOnFailure, "never": corev1.RestartPolicyNever}
			for name, policy := range policies {
				k.apply(k.pod(name, func(p *corev1.Pod, c *corev1.Container) {
					p.Spec.RestartPolicy = policy
					sh(c, "echo . >>/state/lives; if [ $(wc -l </state/lives) -lt 3 ]; then exit 1; fi; exit 0")
					p.Spec.Volumes = []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
					c.VolumeMounts = []corev1.VolumeMount{{Name: "state", MountPath: "/state"}}
				}))
			}
			p := k.until("never", "failed", phase(corev1.PodFailed))
			if s := status(p, "main"); s.RestartCount != 0 || s.State.Terminated.ExitCode != 1 || s.State.Terminated.Reason != "Error" || s.Ready {
				k.Error(show(p))
			}
			p = k.until("onfailure", "succeeded", phase(corev1.PodSucceeded))
			if s := status(p, "main"); s.RestartCount != 2 || s.State.Terminated.ExitCode != 0 || s.State.Terminated.Reason != "Completed" {
				k.Error(show(p))
			}
			k.until("always", "restarted more than twice", func(p *corev1.Pod) bool {
				return status(p, "main").RestartCount >= 2 && p.Status.Phase == corev1.PodRunning
			})
		}},
		words("[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set",
			"echo -n DONE >/dev/termination-custom-log", "DONE", corev1.PodSucceeded, corev1.TerminationMessageReadFile, "/dev/termination-custom-log"),
		words("[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set",
			"echo -n DONE; exit 1", "DONE", corev1.PodFailed, corev1.TerminationMessageFallbackToLogsOnError, ""),
		words("[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
			"echo -n DONE", "", corev1.PodSucceeded, corev1.TerminationMessageFallbackToLogsOnError, ""),
		words("[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
			"echo -n OK >/dev/termination-log; echo -n DONE", "OK", corev1.PodSucceeded, corev1.TerminationMessageFallbackToLogsOnError, ""),
		{"[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path", func(k *kit) {
			uid := int64(10000)
			k.apply(k.once("web", "echo -n DONE >/dev/custom/words", func(_ *corev1.Pod, c *corev1.Container) {
				c.TerminationMessagePath = "/dev/custom/words"
				c.SecurityContext = &corev1.SecurityContext{RunAsUser: &uid}
			}))
			k.equal("message", message(k.until("web", "succeeded", phase(corev1.PodSucceeded))), "DONE")
		}},
		{"[sig-node] Container Runtime blackbox test an OOM killed container should be told as OOMKilled with exit code 137", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Command = []string{"/bin/tool", "eat", "256"}
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
			}))
			p := k.until("web", "failed", phase(corev1.PodFailed))
			if t := status(p, "main").State.Terminated; t == nil || t.Reason != "OOMKilled" || t.ExitCode != 137 {
				k.Error(show(p))
			}
		}},
		{"[sig-node] Container Runtime blackbox test when running a container with a new image should not be able to pull image from invalid registry", func(k *kit) {
			k.apply(k.pod("web", func(_ *corev1.Pod, c *corev1.Container) { c.Image = "127.0.0.1:1/nothing/here:1" }))
			k.application()
			k.eventuallyHeld("127.0.0.1:1/nothing/here:1")
		}},
		{"[sig-node] Containers should use the image defaults if command and args are blank", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) { c.Command = nil }))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "by default\n")
		}},
		{"[sig-node] Containers should be able to override the image's default arguments (container cmd)", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Image, c.Command, c.Args = user, nil, []string{"echo other arguments"}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "other arguments\n")
		}},
		{"[sig-node] Containers should be able to override the image's default command (container entrypoint)", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Image, c.Command = user, []string{"/bin/id", "-u"}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "1234\n")
		}},
		{"[sig-node] Containers should be able to override the image's default command and arguments", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Image, c.Command, c.Args = user, []string{"/bin/echo"}, []string{"one", "two"}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "one two\n")
		}},
		{"[sig-node] Variable Expansion should allow composing env vars into new env vars", func(k *kit) {
			k.apply(k.once("web", "echo $BAR", func(_ *corev1.Pod, c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "FOO", Value: "foo-value"}, {Name: "BAR", Value: "$(FOO);;$$(FOO);;$(NOT)"}}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "foo-value;;$(FOO);;$(NOT)\n")
		}},
		{"[sig-node] Variable Expansion should allow substituting values in a container's command", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Command = []string{"/bin/sh", "-c", "echo $(WORD)"}
				c.Env = []corev1.EnvVar{{Name: "WORD", Value: "said"}}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "said\n")
		}},
		{"[sig-node] Variable Expansion should allow substituting values in a container's args", func(k *kit) {
			k.apply(k.once("web", "", func(_ *corev1.Pod, c *corev1.Container) {
				c.Command, c.Args = []string{"/bin/sh", "-c"}, []string{"echo $(WORD)"}
				c.Env = []corev1.EnvVar{{Name: "WORD", Value: "said"}}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "said\n")
		}},
		{"[sig-node] InitContainer should invoke init containers on a RestartNever pod", func(k *kit) {
			k.apply(k.once("web", "cat /state/order", inits("echo first >>/state/order", "echo second >>/state/order")))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "first\nsecond\n")
			p := k.until("web", "succeeded", phase(corev1.PodSucceeded))
			for _, s := range p.Status.InitContainerStatuses {
				if s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
					k.Error(show(p))
				}
			}
		}},
		{"[sig-node] InitContainer should invoke init containers on a RestartAlways pod", func(k *kit) {
			k.apply(k.pod("web", inits("echo first >>/state/order", "echo second >>/state/order")))
			k.ready("web")
			k.equal("order", k.exec("web", "cat /state/order"), "first\nsecond")
		}},
		{"[sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod", func(k *kit) {
			k.apply(k.pod("web", inits("exit 1", "true")))
			p := k.until("web", "at its first init container's second life", func(p *corev1.Pod) bool { return status(p, "init-0").RestartCount >= 1 })
			if p.Status.Phase != corev1.PodPending || status(p, "main").State.Waiting == nil || status(p, "init-1").State.Waiting == nil || condition(p, corev1.PodInitialized) {
				k.Error(show(p))
			}
		}},
		{"[sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod", func(k *kit) {
			k.apply(k.once("web", "true", inits("true", "exit 3")))
			p := k.until("web", "failed", phase(corev1.PodFailed))
			if s := status(p, "main").State; s.Running != nil || s.Terminated != nil || status(p, "init-1").State.Terminated.ExitCode != 3 {
				k.Error(show(p))
			}
		}},
		{"[sig-node] Sidecar containers should start before and end after the main container", func(k *kit) {
			always := corev1.ContainerRestartPolicyAlways
			k.apply(k.once("web", "until [ -f /state/up ]; do sleep 0.1; done; echo main >>/state/order; cat /state/order", func(p *corev1.Pod, c *corev1.Container) {
				inits("touch /state/up; echo sidecar >>/state/order; "+idle)(p, c)
				p.Spec.InitContainers[0].RestartPolicy = &always
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "sidecar\nmain\n")
		}},
		{"[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason", func(k *kit) {
			k.apply(k.once("web", "exit 42", nil))
			p := k.until("web", "failed", phase(corev1.PodFailed))
			if t := status(p, "main").State.Terminated; t.Reason != "Error" || t.ExitCode != 42 || t.StartedAt.IsZero() || t.FinishedAt.IsZero() {
				k.Error(show(p))
			}
		}},
		{"[sig-node] Kubelet should print the output of the container's former life to logs", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				inits("true")(p, c)
				sh(c, "echo . >>/state/lives; echo life $(wc -l </state/lives); if [ $(wc -l </state/lives) = 1 ]; then exit 1; fi; "+idle)
			}))
			k.until("web", "restarted", restarted)
			k.says("web", "life 2\n", nil)
			k.says("web", "life 1\n", url.Values{"previous": {"true"}})
		}},
	}
}

// inits gives a pod init containers, and a directory /state for all its containers.
func inits(scripts ...string) func(p *corev1.Pod, c *corev1.Container) {
	return func(p *corev1.Pod, c *corev1.Container) {
		mount := []corev1.VolumeMount{{Name: "state", MountPath: "/state"}}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		c.VolumeMounts = append(c.VolumeMounts, mount...)
		for i, script := range scripts {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{
				Name: "init-" + string(rune('0'+i)), Image: box, Command: []string{"/bin/sh", "-c", script}, VolumeMounts: mount,
			})
		}
	}
}
