package network_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

// A space is a network namespace of the test's.
type space struct{ *hosttest.Space }

func needRoot(t testing.TB) {
	t.Helper()
	hosttest.Need(t, hosttest.Root)
	if why := network.Missing(); why != "" {
		hosttest.Lacks(t, why)
	}
}

func newSpace(t testing.TB) *space {
	t.Helper()
	made, err := hosttest.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return &space{made}
}

func (s *space) do(t testing.TB, f func() error) {
	t.Helper()
	if err := s.Do(f); err != nil {
		t.Fatal(err)
	}
}

// wire joins two namespaces as machines on one segment.
func wire(t testing.TB, a, b *space, addrA, addrB string) {
	t.Helper()
	a.do(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "up0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up0", PeerNamespace: netlink.NsFd(b.Fd())})
	})
	for s, addr := range map[*space]string{a: addrA, b: addrB} {
		s.do(t, func() error {
			link, err := netlink.LinkByName("up0")
			if err != nil {
				return err
			}
			ip, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			return errors.Join(netlink.AddrAdd(link, ip), netlink.LinkSetUp(link))
		})
	}
}

// A pod is a namespace behind a routed veth, with servers that say its name and
// who asks.
type pod struct {
	*space
	name, ip string
	node     state.NodeName
}

func (n *testNode) pod(t testing.TB, name, ip string) *pod {
	t.Helper()
	p := &pod{newSpace(t), name, ip, n.name}
	gw, host := net.IPv4(169, 254, 1, 1).To4(), net.ParseIP(ip).To4()
	n.do(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "p" + ip[strings.LastIndex(ip, ".")+1:]
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.Fd())}); err != nil {
			return err
		}
		inside, err := netlink.NewHandleAt(netns.NsHandle(p.Fd()))
		if err != nil {
			return err
		}
		defer inside.Close()
		out, err := netlink.LinkByName(attrs.Name)
		if err != nil {
			return err
		}
		in, err := inside.LinkByName("eth0")
		if err != nil {
			return err
		}
		one := func(ip net.IP) *net.IPNet { return &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)} }
		index := in.Attrs().Index
		return errors.Join(
			inside.AddrAdd(in, &netlink.Addr{IPNet: one(host)}), inside.LinkSetUp(in), netlink.LinkSetUp(out),
			inside.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: gw, HardwareAddr: out.Attrs().HardwareAddr}),
			inside.RouteAdd(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: one(gw)}),
			inside.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gw}),
			netlink.NeighSet(&netlink.Neigh{LinkIndex: out.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: host, HardwareAddr: in.Attrs().HardwareAddr}),
			netlink.RouteReplace(&netlink.Route{LinkIndex: out.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: one(host)}),
			os.WriteFile("/proc/sys/net/ipv4/conf/"+attrs.Name+"/forwarding", []byte("1"), 0),
		)
	})
	p.serve(t)
	return p
}

func (p *pod) serve(t testing.TB) {
	t.Helper()
	var streams net.Listener
	var packets net.PacketConn
	p.do(t, func() (err error) {
		if streams, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", ":8080"); err != nil {
			return err
		}
		packets, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", ":8081")
		return err
	})
	t.Cleanup(func() { _ = streams.Close(); _ = packets.Close() })
	go func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = fmt.Fprintf(c, "%s %s\n", p.name, from)
			_ = c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(p.name), from)
		}
	}()
}

func (p *pod) endpoint(ports ...int32) state.Endpoint {
	return state.Endpoint{Pod: p.name, IP: p.ip, Node: p.node, Ports: ports}
}

// ask dials an address from a namespace and returns who answered and whom it saw.
func (s *space) ask(t testing.TB, at string) (name, from string, err error) {
	t.Helper()
	err = s.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err := d.DialContext(t.Context(), "tcp4", at)
		if err != nil {
			return err
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		name, from, _ = strings.Cut(strings.TrimSpace(line), " ")
		return err
	})
	return name, from, err
}

// everyone asks until each of the names has answered.
func (s *space) everyone(t testing.TB, at string, names ...string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for range 200 {
		name, from, err := s.ask(t, at)
		if err != nil {
			t.Fatalf("ask %s: %v", at, err)
		}
		if !slices.Contains(names, name) {
			t.Fatalf("%s answered at %s, want one of %v", name, at, names)
		}
		if seen[name] = from; len(seen) == len(names) {
			return seen
		}
	}
	t.Fatalf("at %s answered %v, want all of %v", at, seen, names)
	return nil
}

// A testNode is a node in a namespace of its own.
type testNode struct {
	*space
	*network.Node
	name state.NodeName
	id   string
	look time.Duration
	stop func()
}

func newNode(t testing.TB, name state.NodeName, resolv string) *testNode {
	t.Helper()
	n := &testNode{space: newSpace(t), name: name, id: string(name), look: time.Hour}
	n.start(t, t.TempDir(), resolv)
	return n
}

func (n *testNode) start(t testing.TB, dir, resolv string) {
	t.Helper()
	var err error
	n.Node, err = network.Open(network.Options{Node: n.name, ID: n.id, Dir: dir, NetNS: n.Path(), Resolv: resolv, Look: n.look})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		n.stop = func() {}
	}
	t.Cleanup(func() { n.stop() })
}

// tell hands over a network and waits until it is programmed: a Service that
// counts how often it was told has that many ports open, as DNS says.
func (n *testNode) tell(t testing.TB, w *state.Network) {
	t.Helper()
	n.Update(w)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines, err := n.Resolver(ctx, "prod")
	if err != nil {
		t.Fatal(err)
	}
	server := strings.TrimPrefix(lines[0], "nameserver ")
	for ctx.Err() == nil {
		if m := n.dig(t, server, "nothing.prod.svc.cluster.local.", dns.TypeA); len(m.Ns) == 1 && uint64(m.Ns[0].(*dns.SOA).Serial) == uint64(w.Seq) {
			return
		}
	}
	t.Fatalf("network %d was not programmed", w.Seq)
}

func (s *space) dig(t testing.TB, server, name string, kind uint16) *dns.Msg {
	t.Helper()
	var conn *dns.Conn
	client := dns.Client{Timeout: time.Second}
	s.do(t, func() (err error) {
		conn, err = client.Dial(net.JoinHostPort(server, "53"))
		return err
	})
	defer conn.Close()
	var last error
	for range 30 { // a datagram may be lost, as while a device comes up: a resolver asks again
		m, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, kind), conn)
		if err == nil {
			return m
		}
		last = err
	}
	t.Fatalf("ask for %s: %v", name, last)
	return nil
}

// routes are the addresses and routes of a namespace. A device that has just been
// set up is told to be down for up to a second.
func (s *space) routes(t testing.TB) string {
	t.Helper()
	all := s.run(t, "ip", "-4", "addr", "show", "lo") + s.run(t, "ip", "-4", "route", "show", "table", "all")
	return strings.ReplaceAll(all, " linkdown", "")
}

func (s *space) run(t testing.TB, args ...string) string {
	t.Helper()
	var out []byte
	s.do(t, func() (err error) {
		out, err = exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out)
}

const (
	webIP = "10.96.0.20"
	udpIP = "10.96.0.21"
)

func service(name, ip string, ports []state.ServicePort, endpoints ...state.Endpoint) *state.Service {
	return &state.Service{Ref: state.Ref{Kind: "Service", Namespace: "prod", Name: name}, IP: ip, Ports: ports, Endpoints: endpoints}
}

func tcp(port, node int32) []state.ServicePort {
	return []state.ServicePort{{Name: "http", Protocol: "TCP", Port: port, NodePort: node}}
}

func world(seq state.Seq, services ...*state.Service) *state.Network {
	return &state.Network{
		Seq: seq, Pods: "10.88.0.0/14", Addresses: "10.96.0.0/16", Services: services,
		Nodes: []*state.NodeNetwork{
			{Name: "a", OS: state.Linux, Range: "10.88.0.0/24", Address: "192.168.7.1"},
			{Name: "b", OS: state.Linux, Range: "10.88.1.0/24", Address: "192.168.7.2"},
		},
	}
}

// One Service over two nodes: from pods, from the hosts, from a pod to itself,
// by node port, with affinity; and at the end nothing is left.
func TestServices(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a, b := newNode(t, "a", ""), newNode(t, "b", "")
	wire(t, a.space, b.space, "192.168.7.1/24", "192.168.7.2/24")
	bare := a.routes(t)
	w := world(1)
	a.tell(t, w)
	b.tell(t, w)
	p1, p2, p3 := a.pod(t, "p1", "10.88.0.2"), a.pod(t, "p2", "10.88.0.3"), b.pod(t, "p3", "10.88.1.2")
	web := service("web", webIP, tcp(80, 30080), p1.endpoint(8080), p2.endpoint(8080), p3.endpoint(8080))
	sticky := service("sticky", "10.96.0.30", tcp(80, 0), p1.endpoint(8080), p2.endpoint(8080), p3.endpoint(8080))
	sticky.Affinity = 100
	local := service("local", "10.96.0.31", tcp(80, 30081), p1.endpoint(8080))
	local.LocalExternal = true
	empty := service("empty", "10.96.0.32", tcp(80, 0))
	w = world(2, empty, local, sticky, web)
	a.tell(t, w)
	b.tell(t, w)

	for _, from := range []*space{p1.space, p3.space, a.space, b.space} {
		from.everyone(t, webIP+":80", "p1", "p2", "p3")
	}
	if saw := p1.everyone(t, webIP+":80", "p1", "p2", "p3"); saw["p2"] != p1.ip || saw["p3"] != p1.ip || saw["p1"] != "10.88.0.0" {
		t.Errorf("pods saw p1 as %v; want its own address, but itself the node's", saw)
	}
	a.everyone(t, "192.168.7.2:30080", "p1", "p2", "p3")
	p3.everyone(t, "192.168.7.1:30080", "p1", "p2", "p3")
	if saw := b.everyone(t, "192.168.7.1:30081", "p1"); saw["p1"] != "192.168.7.2" {
		t.Errorf("with externalTrafficPolicy Local p1 saw %v, not the client", saw)
	}
	if _, _, err := a.ask(t, "192.168.7.2:30081"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("node b answers for a pod that isn't there: %v", err)
	}
	first, _, err := p1.ask(t, "10.96.0.30:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if name, _, err := p1.ask(t, "10.96.0.30:80"); err != nil || name != first {
			t.Fatalf("%s answered after %s: %v", name, first, err)
		}
	}
	for _, at := range []string{"10.96.0.32:80", webIP + ":81", "10.96.9.9:80"} {
		if _, _, err := p1.ask(t, at); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: want refused, got %v", at, err)
		}
	}

	// An endpoint leaves: nobody is sent there any more.
	w = world(3, empty, local, sticky, service("web", webIP, tcp(80, 30080), p3.endpoint(8080)))
	a.tell(t, w)
	for range 20 {
		p1.everyone(t, webIP+":80", "p3")
	}
	// An agent that starts again goes on with what it knew.
	a.stop()
	p1.everyone(t, webIP+":80", "p3")
	a.start(t, t.TempDir(), "")
	a.tell(t, w)
	p1.everyone(t, webIP+":80", "p3")

	a.stop()
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"p2", "p3"} {
		a.run(t, "ip", "link", "del", name)
	}
	if now := a.routes(t); now != bare {
		t.Errorf("addresses and routes are not as before:\n%s\nbefore:\n%s", now, bare)
	}
	if rules := a.run(t, "nft", "list", "tables"); rules != "" {
		t.Errorf("tables are left: %s", rules)
	}
}

// A client's UDP flow leaves an endpoint that has left the Service.
func TestUDPLeavesARemovedEndpoint(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := newNode(t, "a", "")
	a.tell(t, world(1))
	client, p1, p2 := a.pod(t, "client", "10.88.0.2"), a.pod(t, "p1", "10.88.0.3"), a.pod(t, "p2", "10.88.0.4")
	udp := []state.ServicePort{{Protocol: "UDP", Port: 53}}
	a.tell(t, world(2, service("names", udpIP, udp, p1.endpoint(8081))))
	c := client.flow(t, udpIP+":53")
	if got := c.who(t); got != "p1" {
		t.Fatalf("%s answered, want p1", got)
	}
	a.tell(t, world(3, service("names", udpIP, udp, p2.endpoint(8081))))
	if got := c.who(t); got != "p2" {
		t.Errorf("%s answered after p1 had left, want p2", got)
	}
}

// Names, as Kubernetes's DNS specification has them, and others' by the
// machine's servers.
func TestNames(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := newNode(t, "a", upstream(t))
	a.elsewhere(t)
	web := service("web", webIP, tcp(80, 0), state.Endpoint{Pod: "web-1", IP: "10.88.0.9", Node: "a", Ports: []int32{8080}})
	db := service("db", "", tcp(5432, 0),
		state.Endpoint{Pod: "db-0", IP: "10.88.0.5", Node: "a", Hostname: "db-0", Ports: []int32{5432}},
		state.Endpoint{Pod: "other", IP: "10.88.1.6", Node: "b", Ports: []int32{5432}})
	a.tell(t, world(7, db, web))
	client := a.pod(t, "client", "10.88.0.2")
	for _, c := range []struct {
		name string
		kind uint16
		code int
		want string // sorted, of the answer
	}{
		{"web.prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, webIP},
		{"WEB.prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, webIP},
		{"web.prod.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"db.prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.88.0.5 10.88.1.6"},
		{"db-0.db.prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.88.0.5"},
		{"10-88-1-6.db.prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.88.1.6"},
		{"db-1.db.prod.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"web.other.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"prod.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, ""},
		{"_http._tcp.web.prod.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "80 web.prod.svc.cluster.local."},
		{"_http._tcp.db.prod.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "5432 10-88-1-6.db.prod.svc.cluster.local. 5432 db-0.db.prod.svc.cluster.local."},
		{"_http._udp.web.prod.svc.cluster.local.", dns.TypeSRV, dns.RcodeNameError, ""},
		{"20.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "web.prod.svc.cluster.local."},
		{"shop.example.", dns.TypeA, dns.RcodeSuccess, "192.0.2.7"},
		{"nowhere.example.", dns.TypeA, dns.RcodeNameError, ""},
	} {
		m := client.dig(t, "10.88.0.0", c.name, c.kind)
		var got []string
		for _, rr := range m.Answer {
			switch r := rr.(type) {
			case *dns.A:
				got = append(got, r.A.String())
			case *dns.SRV:
				got = append(got, fmt.Sprintf("%d %s", r.Port, r.Target))
			case *dns.PTR:
				got = append(got, r.Ptr)
			}
		}
		slices.Sort(got)
		if m.Rcode != c.code || strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %s %v, want %s %s", dns.TypeToString[c.kind], c.name, dns.RcodeToString[m.Rcode], got, dns.RcodeToString[c.code], c.want)
		}
	}
	lines, err := a.Resolver(t.Context(), "prod")
	if want := "nameserver 10.88.0.0|search prod.svc.cluster.local svc.cluster.local cluster.local shop.example|options ndots:5"; err != nil || strings.Join(lines, "|") != want {
		t.Errorf("resolv.conf %q: %v, want %q", lines, err, want)
	}
}

// upstream writes a resolv.conf that names the server of elsewhere.
func upstream(t testing.TB) string {
	t.Helper()
	path := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(path, []byte("nameserver 127.0.0.1\nsearch shop.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// elsewhere is a server on the node's loopback that knows one other name.
func (s *space) elsewhere(t testing.TB) {
	t.Helper()
	var packets net.PacketConn
	s.do(t, func() (err error) {
		packets, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:53")
		return err
	})
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if m.Rcode = dns.RcodeNameError; q.Question[0].Name == "shop.example." {
			m.Rcode = dns.RcodeSuccess
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "shop.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(192, 0, 2, 7)}}
		}
		_ = w.WriteMsg(m)
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
}

// Pods of far nodes are reached through the tunnel, where the cluster says so;
// with routes alone it goes.
func TestTunnel(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a, b := newNode(t, "tuna", ""), newNode(t, "tunb", "")
	wire(t, a.space, b.space, "192.168.7.1/24", "192.168.7.2/24")
	told := func(seq state.Seq, r state.Routing) {
		w := world(seq)
		w.Nodes[0].Name, w.Nodes[1].Name, w.Routing = "tuna", "tunb", r
		a.tell(t, w)
		b.tell(t, w)
	}
	told(1, state.RoutingVXLAN)
	p1, p2 := a.pod(t, "p1", "10.88.0.2"), b.pod(t, "p2", "10.88.1.2")
	both := func() {
		t.Helper()
		for from, at := range map[*space]string{p1.space: p2.ip, p2.space: p1.ip, a.space: p2.ip, b.space: p1.ip} {
			if _, _, err := from.ask(t, at+":8080"); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
	both()
	if links := a.run(t, "ip", "-d", "link", "show", "type", "vxlan"); !strings.Contains(links, "vxlan id 4096") || !strings.Contains(links, "dstport 4789") {
		t.Errorf("the tunnel is\n%s", links)
	}
	if route := a.run(t, "ip", "route", "get", p2.ip); !strings.Contains(route, "dev tdtunax src 10.88.0.0") {
		t.Errorf("the way to %s is %s", p2.ip, route)
	}
	// More than a packet: the pods' own are larger than what the tunnel takes.
	if n := p1.pour(t, p2, 4<<20); n != 4<<20 {
		t.Errorf("%d bytes of %d came through the tunnel", n, 4<<20)
	}
	told(2, state.RoutingRoutes)
	both()
	told(3, state.RoutingVXLAN)
	both()
	a.stop()
	if err := a.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if links := a.run(t, "ip", "link", "show", "type", "vxlan"); links != "" {
		t.Errorf("left behind: %s", links)
	}
}

// pour sends bytes to another pod and says how many came.
func (s *space) pour(t testing.TB, to *pod, size int) int64 {
	t.Helper()
	var sink net.Listener
	to.do(t, func() (err error) {
		sink, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", ":9000")
		return err
	})
	defer sink.Close()
	came := make(chan int64, 1)
	go func() {
		c, err := sink.Accept()
		if err != nil {
			came <- -1
			return
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, _ := io.Copy(io.Discard, c) // what came counts
		came <- n
	}()
	s.do(t, func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp4", to.ip+":9000")
		if err != nil {
			return err
		}
		_, err = c.Write(make([]byte, size))
		return errors.Join(err, c.Close())
	})
	return <-came
}

// Ports of the machine lead to a pod while it is published.
func TestHostPorts(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a, b := newNode(t, "a", ""), newNode(t, "b", "")
	wire(t, a.space, b.space, "192.168.7.1/24", "192.168.7.2/24")
	a.tell(t, world(1))
	b.tell(t, world(1))
	p1, p2 := a.pod(t, "p1", "10.88.0.2"), a.pod(t, "p2", "10.88.0.3")
	a.Publish(state.UID{1}, netip.MustParseAddr(p1.ip), []runtimes.Port{{Protocol: "TCP", HostPort: 9000, Container: 8080}})
	a.Publish(state.UID{2}, netip.MustParseAddr(p2.ip), []runtimes.Port{{Protocol: "TCP", HostIP: "192.168.7.1", HostPort: 9001, Container: 8080}})
	until := func(from *space, at, want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; {
			name, _, err := from.ask(t, at)
			if name == want && (err == nil) == (want != "") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %q, %v, want %q", at, name, err, want)
			}
		}
	}
	for _, from := range []*space{a.space, b.space, p1.space, p2.space} {
		until(from, "192.168.7.1:9000", "p1")
		until(from, "192.168.7.1:9001", "p2")
	}
	until(a.space, "10.88.0.0:9000", "p1")
	until(a.space, "10.88.0.0:9001", "")
	a.Withdraw(state.UID{1})
	until(b.space, "192.168.7.1:9000", "")
	until(b.space, "192.168.7.1:9001", "p2")
}

// Who sent datagrams to a port before it led anywhere, and goes on with it, reaches
// the pod that has it now.
func TestUDPToAPortThatComesLater(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := newNode(t, "a", "")
	a.tell(t, world(1))
	client, p1 := a.pod(t, "client", "10.88.0.2"), a.pod(t, "p1", "10.88.0.3")
	udp := []state.ServicePort{{Protocol: "UDP", Port: 53, NodePort: 30053}}
	a.tell(t, world(2, service("names", udpIP, udp)))
	for at, lead := range map[string]func(){
		"10.88.0.0:9053": func() {
			a.Publish(state.UID{1}, netip.MustParseAddr(p1.ip), []runtimes.Port{{Protocol: "UDP", HostPort: 9053, Container: 8081}})
		},
		"10.88.0.0:30053": func() { a.tell(t, world(3, service("names", udpIP, udp, p1.endpoint(8081)))) },
	} {
		c, got, b := client.flow(t, at), "", make([]byte, 100)
		say := func() {
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = c.Write([]byte("who")) // it may be told of an answer that nobody listens
			k, _ := c.Read(b)
			got = string(b[:k])
		}
		if say(); got != "" {
			t.Fatalf("%s: %s answered, who isn't there yet", at, got)
		}
		lead()
		for end := time.Now().Add(5 * time.Second); got == "" && time.Now().Before(end); {
			say()
		}
		if got != "p1" {
			t.Errorf("%s: %q answered, want p1", at, got)
		}
	}
}

// An address and a node port go from one Service to another in one change, which
// writes nothing of a third.
func TestAddressGoesToAnotherService(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := newNode(t, "a", "")
	client, p1, p2 := a.pod(t, "client", "10.88.0.2"), a.pod(t, "p1", "10.88.0.3"), a.pod(t, "p2", "10.88.0.4")
	third := service("third", "10.96.0.30", tcp(80, 0), p1.endpoint(8080))
	a.tell(t, world(1, service("old", "10.96.0.31", tcp(80, 30080), p1.endpoint(8080))))
	a.tell(t, world(2, service("old", "10.96.0.31", tcp(80, 30080), p2.endpoint(8080)), third)) // so that handles of a new table are others
	rules := func() (out []string) {
		for rule := range a.rules(t) {
			if strings.Contains(rule, "prod/third") {
				out = append(out, rule)
			}
		}
		return out
	}
	before := rules()
	a.tell(t, world(3, service("new", "10.96.0.31", tcp(80, 30080), p2.endpoint(8080)), third))
	client.everyone(t, "10.96.0.31:80", "p2")
	client.everyone(t, "10.88.0.0:30080", "p2")
	if after := rules(); len(before) != 1 || !slices.Equal(before, after) {
		t.Errorf("the third Service had the rules %q, and has %q", before, after)
	}
}
