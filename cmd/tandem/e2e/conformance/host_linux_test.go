package conformance

import (
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostChecks are of pods that share something: with the machine, or among their
// containers.
func hostChecks() []check {
	yes := true
	two := func(change func(p *corev1.Pod, c *corev1.Container)) func(p *corev1.Pod, c *corev1.Container) {
		return func(p *corev1.Pod, c *corev1.Container) {
			other := *c.DeepCopy()
			other.Name = "other"
			sh(&other, "sleep 54321 & "+idle)
			p.Spec.Containers = append(p.Spec.Containers, other)
			change(p, &p.Spec.Containers[0])
		}
	}
	return []check{
		{"[sig-node] Security Context should use hostNetwork: the machine's address, ports and name", func(k *kit) {
			m := k.c.machines[1]
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.HostNetwork = true
				onNode(p, m.name)
				c.Image, c.Command, c.Args = server, nil, []string{"serve", ":18080", ":18081"}
				c.Ports = []corev1.ContainerPort{{ContainerPort: 18080}}
				c.ReadinessProbe = httpProbe("/health")
				c.ReadinessProbe.HTTPGet.Port.IntVal = 18080
			}), k.pod("client", nil), service("web", "web", "port: 80, targetPort: 18080"))
			p := k.ready("web")
			k.equal("podIP", p.Status.PodIP, m.address)
			k.ready("client")
			if got := k.fetch(k.c.hub, m.address+":18080"); got == "" || strings.Contains(got, "refused") {
				k.Errorf("from outside: %q", got)
			}
			k.eventually("client", "tool get http://web/ >/dev/null && echo reached", is("reached"))
		}},
		{"[sig-node] Security Context should not use hostNetwork where nobody asked for it", func(k *kit) {
			k.apply(k.pod("web", nil))
			p := k.ready("web")
			if p.Status.PodIP == p.Status.HostIP {
				k.Error(show(p))
			}
			k.contains("its own links", k.exec("web", "cat /proc/net/dev"), "eth0")
		}},
		{"[sig-network] DNS a pod on the machine's network follows dnsPolicy ClusterFirstWithHostNet", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
			}), k.pod("plain", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.HostNetwork = true }))
			k.ready("web")
			k.ready("plain")
			k.contains("resolv.conf", k.exec("web", "cat /etc/resolv.conf"), "search "+k.ns+".svc.cluster.local")
			k.contains("resolv.conf", k.exec("plain", "cat /etc/resolv.conf"), "nameserver "+hubAddress)
		}},
		{"[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol", func(k *kit) {
			m := k.c.machines[2]
			one := func(name, ip string, protocol corev1.Protocol, port int32) string {
				return k.pod(name, func(p *corev1.Pod, c *corev1.Container) {
					onNode(p, m.name)
					serves(c)
					c.Ports = []corev1.ContainerPort{{ContainerPort: port, HostPort: 54323, HostIP: ip, Protocol: protocol}}
				})
			}
			k.apply(one("tcp", m.address, corev1.ProtocolTCP, 8080), one("udp", "", corev1.ProtocolUDP, 8081), k.pod("client", func(p *corev1.Pod, _ *corev1.Container) {
				onNode(p, k.c.machines[0].name)
			}))
			for _, name := range []string{"tcp", "udp", "client"} {
				k.ready(name)
			}
			k.everyone(k.c.hub, m.address+":54323", "tcp")
			k.eventually("client", "tool get http://"+m.address+":54323/", is("tcp"))
			k.eventually("client", "tool udp "+net.JoinHostPort(m.address, "54323")+" 1", is("udp"))
		}},
		{"[sig-network] HostPort is free again when its pod has gone", func(k *kit) {
			m := k.c.machines[0]
			one := func(name string) string {
				return k.pod(name, func(p *corev1.Pod, c *corev1.Container) {
					onNode(p, m.name)
					serves(c)
					c.Ports[0].HostPort = 54324
				})
			}
			k.apply(k.pod("kept", nil))
			k.write("first.yaml", one("first"))
			k.ready("first")
			k.everyone(k.c.hub, m.address+":54324", "first")
			k.write("first.yaml", one("second"))
			k.gone("first")
			k.ready("second")
			k.everyone(k.c.hub, m.address+":54324", "second")
		}},
		{"[sig-node] PodProcessNamespace share process namespace in a pod", func(k *kit) {
			k.apply(k.pod("web", two(func(p *corev1.Pod, _ *corev1.Container) { p.Spec.ShareProcessNamespace = &yes })))
			k.ready("web")
			k.eventually("web", "ps | grep -c '[s]leep 54321'", func(out string) bool { return out != "0" })
			// Orphans are taken in, not left as zombies.
			k.exec("web", "(sleep 0.1 &) ; true")
			k.eventually("web", "ps | grep -c '[Z] '; true", is("0"))
		}},
		{"[sig-node] PodProcessNamespace a container of a shared process namespace restarts alone", func(k *kit) {
			k.apply(k.pod("web", two(func(p *corev1.Pod, _ *corev1.Container) { p.Spec.ShareProcessNamespace = &yes })))
			k.ready("web")
			k.eventually("web", "kill -9 $(ps | awk '/[s]leep 54321/ {print $1}') $(ps | awk '/[s]h -c [s]leep 54321/ {print $1}'); echo killed", is("killed"))
			k.until("web", "its other container restarted", func(p *corev1.Pod) bool {
				return status(p, "other").RestartCount >= 1 && status(p, "other").State.Running != nil && status(p, "main").RestartCount == 0
			})
		}},
		{"[sig-node] PodProcessNamespace containers have process trees of their own otherwise", func(k *kit) {
			k.apply(k.pod("web", two(func(*corev1.Pod, *corev1.Container) {})))
			k.ready("web")
			k.equal("others' processes", k.exec("web", "ps | grep -c '[s]leep 54321'; true"), "0")
		}},
		{"[sig-node] KubeletManagedEtcHosts should write entries to /etc/hosts for hostAliases", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.HostAliases = []corev1.HostAlias{{IP: "123.45.67.89", Hostnames: []string{"foo", "bar"}}}
			}))
			k.ready("web")
			k.contains("hosts", k.exec("web", "cat /etc/hosts"), "123.45.67.89\tfoo\tbar")
			k.contains("ping", k.exec("web", "ping -c 1 -W 1 bar 2>&1; true"), "123.45.67.89")
		}},
		{"[sig-network] DNS should support configurable pod DNS nameservers, searches and options", func(k *kit) {
			five := "5"
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.DNSPolicy = corev1.DNSNone
				p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{hubAddress}, Searches: []string{"corp.example"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &five}, {Name: "edns0"}}}
			}), k.pod("more", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.DNSConfig = &corev1.PodDNSConfig{Searches: []string{"more.example"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &five}}}
			}))
			k.ready("web")
			k.equal("resolv.conf", k.exec("web", "cat /etc/resolv.conf"), "nameserver "+hubAddress+"\nsearch corp.example\noptions ndots:5 edns0")
			k.eventually("web", "ping -c 1 -W 1 intranet 2>&1; true", func(out string) bool { return strings.Contains(out, hubAddress) })
			k.ready("more")
			k.contains("resolv.conf", k.exec("more", "cat /etc/resolv.conf"), "search "+k.ns+".svc.cluster.local svc.cluster.local cluster.local corp.example more.example\n", "options ndots:5")
		}},
		{"[sig-node] Sysctls should support sysctls", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.shm_rmid_forced", Value: "1"}, {Name: "net.ipv4.ip_local_port_range", Value: "20000 20100"}}}
			}))
			k.ready("web")
			k.equal("sysctls", k.exec("web", "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range"), "1\n20000\t20100")
		}},
		{"[sig-node] Variable Expansion should allow substituting values in a volume subpath", func(k *kit) {
			k.apply(k.once("web", "echo -n here >/mnt/f; cat /all/$POD_NAME/f", with(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, func(_ *corev1.Pod, c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
				c.VolumeMounts[0].SubPathExpr = "$(POD_NAME)"
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "mnt", MountPath: "/all"})
			})))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "here")
		}},
		{"[sig-node] Pods should support activeDeadlineSeconds", func(k *kit) {
			two := int64(2)
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.ActiveDeadlineSeconds = &two }))
			p := k.until("web", "failed", phase(corev1.PodFailed))
			k.equal("reason", p.Status.Reason, "DeadlineExceeded")
		}},
	}
}
