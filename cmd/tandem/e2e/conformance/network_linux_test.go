package conformance

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// onNode places a pod.
func onNode(p *corev1.Pod, node string) {
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
}

// servers makes a serving pod on each node, all of one app.
func (k *kit) servers(app string) []*corev1.Pod {
	k.Helper()
	var texts []string
	for i, m := range k.c.machines {
		texts = append(texts, k.pod(fmt.Sprintf("%s-%d", app, i+1), func(p *corev1.Pod, c *corev1.Container) {
			p.Labels["app"] = app
			onNode(p, m.name)
			serves(c)
			c.ReadinessProbe = httpProbe("/health")
			c.ReadinessProbe.TimeoutSeconds = 5
		}))
	}
	k.apply(texts...)
	return k.list(app, "ready on every node", func(pods []*corev1.Pod) bool {
		return len(pods) == len(texts) && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !ready(p) })
	})
}

// clients makes a pod on each node to ask from.
func (k *kit) clients() []string {
	k.Helper()
	var texts, names []string
	for i, m := range k.c.machines {
		name := fmt.Sprintf("client-%d", i+1)
		names = append(names, name)
		texts = append(texts, k.pod(name, func(p *corev1.Pod, _ *corev1.Container) { onNode(p, m.name) }))
	}
	k.apply(texts...)
	for _, name := range names {
		k.ready(name)
	}
	return names
}

// answers asks an address over HTTP from a pod until everyone has answered, and
// nobody else does.
func (k *kit) answers(from, at string, names ...string) {
	k.Helper()
	slices.Sort(names)
	k.eventually(from, fmt.Sprintf("for i in $(seq 40); do tool get http://%s/ || echo none; done | sort -u", at), func(out string) bool {
		return slices.Equal(strings.Fields(out), names)
	})
}

func networkChecks() []check {
	return []check{
		{"[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http and udp", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				other := *c.DeepCopy()
				other.Name = "server"
				serves(&other)
				p.Spec.Containers = append(p.Spec.Containers, other)
			}))
			k.ready("web")
			k.eventually("web", "wget -q -O- http://127.0.0.1:8080/; tool udp 127.0.0.1:8081 1", is("web\n"+"web"))
		}},
		{"[sig-network] Networking Granular Checks: Pods should function for inter-pod communication: http", func(k *kit) {
			pods, clients := k.servers("web"), k.clients()
			for _, from := range clients {
				for _, p := range pods {
					k.eventually(from, fmt.Sprintf("tool get http://%s:8080/", p.Status.PodIP), is(p.Name))
				}
			}
		}},
		{"[sig-network] Networking Granular Checks: Pods should function for inter-pod communication: udp", func(k *kit) {
			pods, clients := k.servers("web"), k.clients()
			for _, from := range clients {
				for _, p := range pods {
					k.eventually(from, fmt.Sprintf("tool udp %s:8081 1", p.Status.PodIP), is(p.Name))
				}
			}
		}},
		{"[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http", func(k *kit) {
			pods := k.servers("web")
			for _, m := range k.c.machines {
				for _, p := range pods {
					if got := k.fetch(m.space, p.Status.PodIP+":8080"); got != p.Name {
						k.Errorf("%s asked %s: %q", m.name, p.Name, got)
					}
				}
			}
		}},
		{"[sig-network] Networking pods should see each other's own addresses", func(k *kit) {
			pods, clients := k.servers("web"), k.clients()
			for i, from := range clients {
				own := k.ready(from).Status.PodIP
				at := pods[(i+1)%len(pods)].Status.PodIP
				k.eventually(from, "tool get http://"+at+":8080/client", is(own))
			}
		}},
		{"[sig-network] Networking should provide connections to the world outside", func(k *kit) {
			k.apply(k.pod("web", nil))
			p := k.ready("web")
			k.eventually("web", "tool get http://"+net.JoinHostPort(hubAddress, outsidePort)+"/", is(p.Status.HostIP))
		}},
		{"[sig-network] Networking a large message goes through between nodes", func(k *kit) {
			k.apply(k.pod("near", func(p *corev1.Pod, c *corev1.Container) {
				onNode(p, k.c.machines[0].name)
				serves(c)
			}), k.pod("far", func(p *corev1.Pod, _ *corev1.Container) { onNode(p, k.c.machines[2].name) }))
			ip := k.ready("near").Status.PodIP
			k.ready("far")
			k.eventually("far", "tool post http://"+ip+":8080/count 4194304", is("4194304 <nil>"))
		}},
	}
}

// fetch asks an address over HTTP from a namespace of the test's.
func (k *kit) fetch(s *space, at string) string {
	k.Helper()
	got := ""
	err := s.Do(func() error {
		c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(k.Context(), "tcp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		b := make([]byte, 4096)
		n := 0
		for err == nil && n < len(b) {
			var m int
			m, err = c.Read(b[n:])
			n += m
		}
		_, got, _ = strings.Cut(string(b[:n]), "\r\n\r\n")
		return nil
	})
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(got)
}

func serviceChecks() []check {
	return []check{
		{"[sig-network] Networking Granular Checks: Services should function for pod-Service: http", func(k *kit) {
			k.apply(service("web", "web", "port: 80, targetPort: http"))
			k.servers("web")
			for _, from := range k.clients() {
				k.answers(from, "web", "web-1", "web-2", "web-3")
			}
		}},
		{"[sig-network] Networking Granular Checks: Services should function for pod-Service: udp", func(k *kit) {
			k.apply(service("web", "web", "port: 90, targetPort: names, protocol: UDP"))
			k.servers("web")
			k.apply(k.pod("client", nil))
			k.ready("client")
			k.eventually("client", "for i in $(seq 30); do tool udp web:90 1; done | sort -u", is("web-1\nweb-2\nweb-3"))
		}},
		{"[sig-network] Networking Granular Checks: Services should function for node-Service: http", func(k *kit) {
			k.apply(service("web", "web", "port: 80, targetPort: 8080"))
			pods := k.servers("web")
			ip := k.serviceIP("web")
			for _, m := range k.c.machines {
				seen := map[string]bool{}
				for range 60 {
					seen[k.fetch(m.space, ip+":80")] = true
				}
				if len(seen) != len(pods) {
					k.Errorf("%s: answered %v", m.name, seen)
				}
			}
		}},
		{"[sig-network] Networking Granular Checks: Services should function for endpoint-Service: http", func(k *kit) {
			// A pod that reaches itself, too.
			k.apply(service("web", "web", "port: 80, targetPort: http"))
			k.servers("web")
			k.answers("web-1", "web", "web-1", "web-2", "web-3")
		}},
		{"[sig-network] Services should serve multiport endpoints from pods", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports:\n  - {name: http, port: 80, targetPort: http}\n  - {name: more, port: 81, targetPort: 8080}\n  - {name: names, port: 80, targetPort: names, protocol: UDP}\n")
			k.servers("web")
			k.apply(k.pod("client", nil))
			k.ready("client")
			k.answers("client", "web:80", "web-1", "web-2", "web-3")
			k.answers("client", "web:81", "web-1", "web-2", "web-3")
			k.eventually("client", "for i in $(seq 30); do tool udp web:80 1; done | sort -u", is("web-1\nweb-2\nweb-3"))
		}},
		{"[sig-network] Services should only target ready pods, and follow their readiness", func(k *kit) {
			k.apply(service("web", "web", "port: 80, targetPort: http"))
			pods := k.servers("web")
			k.apply(k.pod("client", nil))
			k.ready("client")
			k.answers("client", "web", "web-1", "web-2", "web-3")
			k.exec("client", "wget -q -O- http://"+pods[1].Status.PodIP+":8080/set?health=500")
			k.until("web-2", "unready", func(p *corev1.Pod) bool { return !ready(p) })
			k.answers("client", "web", "web-1", "web-3")
			k.exec("client", "wget -q -O- http://"+pods[1].Status.PodIP+":8080/set?health=200")
			k.answers("client", "web", "web-1", "web-2", "web-3")
		}},
		{"[sig-network] Services should be able to preserve UDP traffic when server pod cycles for a ClusterIP service", func(k *kit) {
			k.apply(service("web", "web", "port: 90, targetPort: names, protocol: UDP"), k.pod("client", func(_ *corev1.Pod, c *corev1.Container) {
				// One socket, so one entry of the kernel's table of connections.
				sh(c, "until tool udp web:90 1 | grep -q first; do sleep 0.2; done; tool udp web:90 100000 >/tmp/heard; "+idle)
			}))
			one := func(name string) string {
				return k.pod(name, func(p *corev1.Pod, c *corev1.Container) {
					p.Labels["app"] = "web"
					serves(c)
				})
			}
			k.write("first.yaml", one("first"))
			k.ready("first")
			k.ready("client")
			k.eventually("client", "tail -n 1 /tmp/heard", is("first"))
			k.write("second.yaml", one("second"))
			k.ready("second")
			k.write("first.yaml", "")
			k.gone("first")
			k.eventually("client", "tail -n 1 /tmp/heard", is("second"))
		}},
		{"[sig-network] Services should have session affinity work for service with type clusterIP", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  sessionAffinity: ClientIP\n  ports: [{port: 80, targetPort: http}]\n")
			k.servers("web")
			seen := map[string]bool{}
			for _, from := range k.clients() {
				out := k.eventually(from, "for i in $(seq 30); do tool get http://web/ || echo none; done | sort -u", func(out string) bool {
					return len(strings.Fields(out)) == 1 && out != "none"
				})
				seen[out] = true
			}
		}},
		{"[sig-network] Services should be able to create a functioning NodePort service", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  selector: {app: web}\n  ports: [{port: 80, targetPort: http, nodePort: 31234}]\n")
			k.servers("web")
			for _, m := range k.c.machines {
				k.everyone(k.c.hub, m.address+":31234", "web-1", "web-2", "web-3")
			}
		}},
		{"[sig-network] Services should implement externalTrafficPolicy: Local, and keep the client's address", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  externalTrafficPolicy: Local\n  selector: {app: web}\n  ports: [{port: 80, targetPort: http, nodePort: 31235}]\n")
			pods := k.servers("web")
			for i, m := range k.c.machines {
				k.everyone(k.c.hub, m.address+":31235", pods[i].Name)
			}
		}},
		{"[sig-network] Services should implement internalTrafficPolicy: Local", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  internalTrafficPolicy: Local\n  selector: {app: web}\n  ports: [{port: 80, targetPort: http}]\n")
			pods := k.servers("web")
			for i, from := range k.clients() {
				k.answers(from, "web", pods[i].Name)
			}
		}},
		{"[sig-network] Services should create endpoints for unready pods when publishNotReadyAddresses is set", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  publishNotReadyAddresses: true\n  selector: {app: web}\n  ports: [{port: 80, targetPort: http}]\n",
				k.pod("web", func(_ *corev1.Pod, c *corev1.Container) {
					serves(c)
					c.ReadinessProbe = execProbe("false")
				}), k.pod("client", nil))
			k.ready("client")
			k.answers("client", "web", "web")
		}},
		{"[sig-network] Services should be rejected when no endpoints exist", func(k *kit) {
			k.apply(service("web", "nobody", "port: 80"), k.pod("client", nil))
			k.ready("client")
			k.eventually("client", "tool get http://web/ 2>&1; true", func(out string) bool { return strings.Contains(out, "refused") || strings.Contains(out, "unreachable") })
		}},
		{"[sig-network] Services should be able to change the selector, and go", func(k *kit) {
			k.write("svc.yaml", service("web", "one", "port: 80, targetPort: 8080"))
			for _, app := range []string{"one", "two"} {
				k.apply(k.pod(app, func(_ *corev1.Pod, c *corev1.Container) { serves(c) }))
			}
			k.apply(k.pod("client", nil))
			k.ready("client")
			k.ready("one")
			k.ready("two")
			k.answers("client", "web", "one")
			k.write("svc.yaml", service("web", "two", "port: 80, targetPort: 8080"))
			k.answers("client", "web", "two")
			k.write("svc.yaml", "")
			k.eventually("client", "nslookup web 2>&1; true", func(out string) bool { return strings.Contains(out, "NXDOMAIN") })
		}},
		{"[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service", func(k *kit) {
			k.apply(service("web", "web", "port: 80, targetPort: http"))
			pods := k.servers("web")
			var list struct {
				Items []struct {
					Endpoints []struct{ Addresses []string }
				}
			}
			end := time.After(patience)
			for {
				err := k.c.api.get(k.Context(), "/apis/discovery.k8s.io/v1/namespaces/"+k.ns+"/endpointslices", &list)
				var have []string
				for _, s := range list.Items {
					for _, e := range s.Endpoints {
						have = append(have, e.Addresses...)
					}
				}
				var want []string
				for _, p := range pods {
					want = append(want, p.Status.PodIP)
				}
				slices.Sort(have)
				slices.Sort(want)
				if err == nil && slices.Equal(have, want) {
					return
				}
				select {
				case <-time.After(100 * time.Millisecond): // between two questions
				case <-end:
					k.Fatalf("endpoints %v, want %v: %v", have, want, err)
				}
			}
		}},
	}
}

// serviceIP is the address that a Service was given.
func (k *kit) serviceIP(name string) string {
	k.Helper()
	end := time.After(patience)
	for {
		var s corev1.Service
		err := k.c.api.get(k.Context(), "/api/v1/namespaces/"+k.ns+"/services/"+name, &s)
		if err == nil && net.ParseIP(s.Spec.ClusterIP) != nil {
			return s.Spec.ClusterIP
		}
		select {
		case <-time.After(100 * time.Millisecond): // between two questions
		case <-end:
			k.Fatalf("Service %s has no address: %v", name, err)
		}
	}
}

// everyone asks from a namespace of the test's until each of the names has
// answered, and none but them does.
func (k *kit) everyone(s *space, at string, names ...string) {
	k.Helper()
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		seen := map[string]bool{}
		for range 30 {
			seen[k.fetch(s, at)] = true
		}
		good := len(seen) == len(names)
		for _, n := range names {
			good = good && seen[n]
		}
		if good {
			return
		}
	}
	k.Errorf("at %s not all of %v answered, or others", at, names)
}

func nameChecks() []check {
	asked := func(out string) []string {
		// busybox's nslookup: the server first, then a line for each address.
		_, out, _ = strings.Cut(out, "\n\n")
		var found []string
		for line := range strings.Lines(out) {
			if _, a, ok := strings.Cut(line, "Address: "); ok {
				found = append(found, strings.TrimSpace(a))
			}
		}
		slices.Sort(found)
		return found
	}
	client := func(k *kit) {
		k.apply(k.pod("client", nil))
		k.ready("client")
	}
	return []check{
		{"[sig-network] DNS should provide DNS for services", func(k *kit) {
			k.apply(service("web", "web", "port: 80, name: http"))
			client(k)
			ip := k.serviceIP("web")
			for _, name := range []string{"web", "web." + k.ns, "web." + k.ns + ".svc", "web." + k.ns + ".svc.cluster.local"} {
				// nslookup doesn't search; the resolver of wget does.
				k.eventually("client", "ping -c 1 -W 1 "+name+" 2>&1; true", func(out string) bool { return strings.Contains(out, ip) })
			}
			k.eventually("client", "nslookup -type=SRV _http._tcp.web."+k.ns+".svc.cluster.local", func(out string) bool {
				return strings.Contains(out, "service = 0 100 80 web."+k.ns+".svc.cluster.local")
			})
		}},
		{"[sig-network] DNS should provide DNS for the cluster", func(k *kit) {
			client(k)
			k.contains("resolv.conf", k.exec("client", "cat /etc/resolv.conf"), "search "+k.ns+".svc.cluster.local svc.cluster.local cluster.local corp.example", "options ndots:5")
		}},
		{"[sig-network] DNS should provide /etc/hosts entries for the cluster", func(k *kit) {
			client(k)
			p := k.ready("client")
			k.contains("hosts", k.exec("client", "cat /etc/hosts"), "127.0.0.1\tlocalhost", p.Status.PodIP+"\tclient")
		}},
		{"[sig-network] DNS should provide DNS for headless services and pods for Hostname and Subdomain", func(k *kit) {
			k.apply(headless("web"), k.pod("one", func(p *corev1.Pod, c *corev1.Container) {
				p.Labels["app"], p.Spec.Hostname, p.Spec.Subdomain = "web", "first", "web"
			}), k.pod("two", func(p *corev1.Pod, c *corev1.Container) { p.Labels["app"] = "web" }))
			client(k)
			one, two := k.ready("one").Status.PodIP, k.ready("two").Status.PodIP
			domain := "web." + k.ns + ".svc.cluster.local"
			want := []string{one, two}
			slices.Sort(want)
			k.eventually("client", "nslookup "+domain, func(out string) bool { return slices.Equal(asked(out), want) })
			k.eventually("client", "nslookup first."+domain, func(out string) bool { return slices.Equal(asked(out), []string{one}) })
			k.equal("hostname", k.exec("one", "hostname"), "first")
			k.eventually("one", "hostname -f", is("first."+domain))
		}},
		{"[sig-network] DNS should provide DNS for the pods of a StatefulSet", func(k *kit) {
			k.apply(headless("db"), "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  serviceName: db\n  replicas: 2\n  selector: {matchLabels: {app: db}}\n"+
				"  template:\n    metadata: {labels: {app: db}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{name: main, image: \""+server+"\"}]\n")
			client(k)
			for i := range 2 {
				name := fmt.Sprintf("db-%d", i)
				ip := k.ready(name).Status.PodIP
				k.eventually("client", "nslookup "+name+".db."+k.ns+".svc.cluster.local", func(out string) bool { return slices.Equal(asked(out), []string{ip}) })
				k.eventually("client", "tool get http://"+name+".db:8080/", is(name))
			}
		}},
		{"[sig-network] DNS should provide SRV records for the pods of a headless service", func(k *kit) {
			k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: None\n  selector: {app: web}\n  ports: [{name: http, port: 80, targetPort: http}]\n",
				k.pod("one", func(p *corev1.Pod, c *corev1.Container) {
					p.Labels["app"], p.Spec.Hostname, p.Spec.Subdomain = "web", "first", "web"
					serves(c)
				}))
			client(k)
			k.ready("one")
			k.eventually("client", "nslookup -type=SRV _http._tcp.web."+k.ns+".svc.cluster.local", func(out string) bool {
				return strings.Contains(out, "8080 first.web."+k.ns+".svc.cluster.local")
			})
		}},
		{"[sig-network] DNS should resolve DNS of names outside, through the machine's own servers and search paths", func(k *kit) {
			client(k)
			k.eventually("client", "nslookup www.example.com", func(out string) bool { return slices.Equal(asked(out), []string{hubAddress}) })
			k.eventually("client", "ping -c 1 -W 1 intranet 2>&1; true", func(out string) bool { return strings.Contains(out, hubAddress) })
			k.eventually("client", "nslookup nowhere.example.com 2>&1; true", func(out string) bool { return strings.Contains(out, "NXDOMAIN") })
		}},
		{"[sig-network] DNS should answer what address a name stands for, the other way round", func(k *kit) {
			k.apply(service("web", "web", "port: 80"))
			client(k)
			ip := k.serviceIP("web")
			k.eventually("client", "nslookup "+ip, func(out string) bool { return strings.Contains(out, "name = web."+k.ns+".svc.cluster.local") })
		}},
		{"[sig-network] DNS should use the machine's own servers where dnsPolicy is Default", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.DNSPolicy = corev1.DNSDefault }))
			k.ready("web")
			k.equal("resolv.conf", k.exec("web", "cat /etc/resolv.conf"), "nameserver "+hubAddress+"\nsearch corp.example")
		}},
	}
}

func headless(name string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec:\n  clusterIP: None\n  selector: {app: " + name + "}\n"
}
