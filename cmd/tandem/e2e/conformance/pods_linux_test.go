package conformance

import (
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func podChecks() []check {
	return []check{
		{"[sig-node] Pods should get a host IP", func(k *kit) {
			k.apply(k.pod("web", nil))
			p := k.ready("web")
			for _, m := range k.c.machines {
				if m.name == p.Spec.NodeName {
					k.equal("hostIP", p.Status.HostIP, m.address)
				}
			}
			if ip := net.ParseIP(p.Status.PodIP); ip == nil || p.Status.StartTime == nil {
				k.Errorf("podIP %q, startTime %v", p.Status.PodIP, p.Status.StartTime)
			}
		}},
		{"[sig-node] Pods should contain environment variables for services", func(k *kit) {
			k.apply(k.pod("server", nil), service("fooservice", "server", "port: 8765, targetPort: 8080"))
			k.ready("server")
			k.apply(k.pod("client", func(_ *corev1.Pod, c *corev1.Container) { sh(c, "env; "+idle) }))
			k.ready("client")
			k.contains("its variables", k.exec("client", "env"), "FOOSERVICE_SERVICE_HOST=", "FOOSERVICE_SERVICE_PORT=8765", "FOOSERVICE_PORT_8765_TCP_PORT=8765",
				"FOOSERVICE_PORT_8765_TCP_PROTO=tcp", "FOOSERVICE_PORT=tcp://")
		}},
		{"[sig-node] Pods should be submitted and removed", func(k *kit) {
			k.apply(k.pod("kept", nil))
			k.write("going.yaml", k.pod("going", nil))
			k.ready("going")
			k.ready("kept")
			k.write("going.yaml", "")
			k.gone("going")
			k.ready("kept")
		}},
		{"[sig-node] Pods should support remote command execution over websockets", func(k *kit) {
			k.apply(k.pod("web", nil))
			k.ready("web")
			out, code, err := k.c.api.exec(k.Context(), k.ns, "web", "main", strings.NewReader("over there\n"), "/bin/sh", "-c", "cat; echo done >&2; exit 7")
			if err != nil || code != 7 || out != "over there\ndone\n" {
				k.Errorf("got %q, exit code %d, %v", out, code, err)
			}
		}},
		{"[sig-node] Pods should support retrieving logs from the container over websockets", func(k *kit) {
			k.apply(k.pod("web", func(_ *corev1.Pod, c *corev1.Container) { sh(c, "echo container is alive; "+idle) }))
			k.ready("web")
			k.says("web", "container is alive\n", nil)
		}},
	}
}

// service writes a Service of one port over the pods of an app.
func service(name, app, port string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec:\n  selector: {app: " + app + "}\n  ports: [{" + port + "}]\n"
}
