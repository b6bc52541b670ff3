package conformance

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func execProbe(script string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", script}}},
		PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10,
	}
}

func httpProbe(path string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}},
		PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10,
	}
}

// later gives a program on a busy machine the time to begin.
func later(p *corev1.Probe) *corev1.Probe {
	p.InitialDelaySeconds, p.FailureThreshold, p.TimeoutSeconds = 3, 5, 20
	return p
}

// serves makes a container the server.
func serves(c *corev1.Container) {
	c.Image, c.Command = server, nil
	c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, Name: "http"}, {ContainerPort: 8081, Name: "names", Protocol: corev1.ProtocolUDP}}
}

func restarted(p *corev1.Pod) bool { return status(p, "main").RestartCount >= 1 && running(p) }

func running(p *corev1.Pod) bool { return status(p, "main").State.Running != nil }

// steady waits until a probe has been asked some more times, as the container
// counts them, and wants no restart meanwhile.
func (k *kit) steady(name string) {
	k.Helper()
	k.eventually(name, "wc -c </tmp/asked", func(out string) bool { return len(out) > 1 || out > "3" })
	if p := k.ready(name); status(p, "main").RestartCount != 0 {
		k.Errorf("was restarted:\n%s", show(p))
	}
}

func probeChecks() []check {
	main := func(k *kit, change func(c *corev1.Container)) {
		k.apply(k.pod("web", func(_ *corev1.Pod, c *corev1.Container) { change(c) }))
	}
	return []check{
		{"[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.ReadinessProbe = execProbe("true")
				c.ReadinessProbe.InitialDelaySeconds = 2
			})
			p := k.ready("web")
			var since int64
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady {
					since = c.LastTransitionTime.Unix()
				}
			}
			// The API tells whole seconds, so one of two may be lost.
			if d := since - status(p, "main").State.Running.StartedAt.Unix(); d < 1 || status(p, "main").RestartCount != 0 {
				k.Errorf("ready %d s after its start, want 2\n%s", d, show(p))
			}
		}},
		{"[sig-node] Probing container with readiness probe that fails should never be ready and never restart", func(k *kit) {
			main(k, func(c *corev1.Container) { c.ReadinessProbe = execProbe("echo -n . >>/tmp/asked; exit 1") })
			k.until("web", "running", running)
			k.eventually("web", "wc -c </tmp/asked", func(out string) bool { return out >= "3" })
			if p := k.until("web", "running", running); ready(p) || status(p, "main").RestartCount != 0 {
				k.Error(show(p))
			}
		}},
		{`[sig-node] Probing container should be restarted with a exec "cat /tmp/health" liveness probe`, func(k *kit) {
			main(k, func(c *corev1.Container) {
				sh(c, "touch /tmp/health; sleep 1; rm /tmp/health; "+idle)
				c.LivenessProbe = execProbe("cat /tmp/health")
			})
			p := k.until("web", "restarted", restarted)
			k.equal("why", status(p, "main").LastTerminationState.Terminated.Reason, "Unhealthy")
		}},
		{`[sig-node] Probing container should *not* be restarted with a exec "cat /tmp/health" liveness probe`, func(k *kit) {
			main(k, func(c *corev1.Container) {
				sh(c, "touch /tmp/health; "+idle)
				c.LivenessProbe = later(execProbe("echo -n . >>/tmp/asked; cat /tmp/health"))
			})
			k.ready("web")
			k.steady("web")
		}},
		{"[sig-node] Probing container should be restarted with a /healthz http liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				serves(c)
				c.LivenessProbe = later(httpProbe("/health"))
			})
			k.ready("web")
			k.eventually("web", "tool get http://127.0.0.1:8080/set?health=500 && echo set", is("set"))
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				serves(c)
				c.LivenessProbe = later(httpProbe("/health"))
				c.ReadinessProbe = execProbe("echo -n . >>/tmp/asked")
			})
			k.ready("web")
			k.steady("web")
		}},
		{"[sig-node] Probing container should be restarted with a local redirect http liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				serves(c)
				c.LivenessProbe = later(httpProbe("/away?to=%2Fhealth"))
			})
			k.ready("web")
			k.eventually("web", "tool get http://127.0.0.1:8080/set?health=500 && echo set", is("set"))
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should *not* be restarted with a non-local redirect http liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				serves(c)
				c.LivenessProbe = later(httpProbe("/away?to=http:%2F%2F192.0.2.254%2F"))
				c.ReadinessProbe = execProbe("echo -n . >>/tmp/asked")
			})
			k.ready("web")
			k.steady("web")
		}},
		{"[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				serves(c)
				c.LivenessProbe = later(&corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}, PeriodSeconds: 1})
				c.ReadinessProbe = execProbe("echo -n . >>/tmp/asked")
			})
			k.ready("web")
			k.steady("web")
		}},
		{"[sig-node] Probing container should *not* be restarted with a GRPC liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.Command = []string{"/bin/tool", "grpc", ":8080", "0"}
				c.LivenessProbe = later(&corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}, PeriodSeconds: 1})
				c.ReadinessProbe = execProbe("echo -n . >>/tmp/asked")
			})
			k.ready("web")
			k.steady("web")
		}},
		{"[sig-node] Probing container should be restarted with a GRPC liveness probe", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.Command = []string{"/bin/tool", "grpc", ":8080", "3600"}
				c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}, PeriodSeconds: 1, FailureThreshold: 1}
			})
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should be restarted with an exec liveness probe with timeout", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.LivenessProbe = execProbe("sleep 30")
				c.LivenessProbe.TimeoutSeconds = 1
			})
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should be ready immediately after startupProbe succeeds", func(k *kit) {
			main(k, func(c *corev1.Container) {
				sh(c, "sleep 1; touch /tmp/started; "+idle)
				c.StartupProbe = execProbe("cat /tmp/started")
				c.StartupProbe.FailureThreshold = 60
				c.ReadinessProbe = execProbe("true")
				c.ReadinessProbe.PeriodSeconds = 3600
			})
			p := k.ready("web")
			if s := status(p, "main").Started; s == nil || !*s {
				k.Errorf("started: %v", s)
			}
		}},
		{"[sig-node] Probing container should *not* be restarted by liveness probe because startup probe delays it", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.LivenessProbe = execProbe("false")
				c.StartupProbe = execProbe("echo -n . >>/tmp/asked; exit 1")
				c.StartupProbe.FailureThreshold = 3600
			})
			k.until("web", "running", running)
			k.eventually("web", "wc -c </tmp/asked", func(out string) bool { return out >= "3" })
			if p := k.until("web", "running", running); status(p, "main").RestartCount != 0 {
				k.Error(show(p))
			}
		}},
		{"[sig-node] Probing container should be restarted by liveness probe after startup probe enables it", func(k *kit) {
			main(k, func(c *corev1.Container) {
				c.LivenessProbe = execProbe("false")
				c.StartupProbe = execProbe("true")
			})
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should override timeoutGracePeriodSeconds when LivenessProbe field is set", func(k *kit) {
			long, short := int64(3600), int64(1)
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.TerminationGracePeriodSeconds = &long
				sh(c, "trap '' TERM; while :; do sleep 1; done")
				c.LivenessProbe = execProbe("false")
				c.LivenessProbe.TerminationGracePeriodSeconds = &short
			}))
			k.until("web", "restarted", restarted)
		}},
		{"[sig-node] Probing container should mark readiness on pods to false while pod is in progress of terminating", func(k *kit) {
			grace := int64(30)
			k.apply(k.pod("kept", nil))
			k.write("web.yaml", k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.TerminationGracePeriodSeconds = &grace
				sh(c, "trap 'until [ -f /tmp/go ]; do sleep 0.1; done; exit' TERM; while :; do sleep 1; done")
			}))
			k.ready("web")
			k.write("web.yaml", "")
			k.until("web", "unready while it ends", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && !condition(p, corev1.PodReady) })
			k.exec("web", "touch /tmp/go")
			k.gone("web")
		}},
		{"[sig-node] Probing container http probe should send its headers to its host", func(k *kit) {
			main(k, func(c *corev1.Container) {
				// Answers only who says the right words.
				sh(c, `while :; do nc -l -p 8080 -e /bin/sh -c 'ok=; host=; while read -r l; do l=${l%?}; case $l in "X-Check: yes") ok=1;; "Host: web.example") host=1;; "") break;; esac; done; `+
					`if [ $ok$host = 11 ]; then printf "HTTP/1.0 200 OK\r\n\r\n"; else printf "HTTP/1.0 400 Bad\r\n\r\n"; fi'; done`)
				c.ReadinessProbe = httpProbe("/")
				c.ReadinessProbe.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "web.example"}, {Name: "X-Check", Value: "yes"}}
			})
			k.ready("web")
		}},
	}
}
