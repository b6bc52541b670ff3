package network_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// thousand are 1,000 Services of 10 endpoints each.
func thousand() []*state.Service {
	var services []*state.Service
	for i := range 1000 {
		s := service(fmt.Sprintf("s%03d", i), fmt.Sprintf("10.96.%d.%d", 1+i/250, 1+i%250), tcp(80, 0))
		for j := range 10 {
			s.Endpoints = append(s.Endpoints, state.Endpoint{Pod: fmt.Sprint(j), IP: fmt.Sprintf("10.88.%d.%d", i%4, 2+j), Node: "a", Ports: []int32{8080}})
		}
		services = append(services, s)
	}
	return services
}

// A flow is a client's datagrams from one port.
type flow struct{ net.Conn }

func (p *pod) flow(t *testing.T, at string) flow {
	t.Helper()
	var f flow
	p.do(t, func() (err error) {
		f.Conn, err = (&net.Dialer{}).DialContext(t.Context(), "udp4", at)
		return err
	})
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// who answers; a datagram may be lost, as while a device comes up.
func (f flow) who(t *testing.T) string {
	t.Helper()
	b := make([]byte, 100)
	for range 30 {
		if err := f.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("who")); err != nil {
			t.Fatal(err)
		}
		if k, err := f.Read(b); err == nil {
			return string(b[:k])
		}
	}
	t.Fatalf("nobody answers at %s", f.RemoteAddr())
	return ""
}

// One endpoint of one Service among a thousand is exchanged: its clients, by TCP
// and UDP, are sent to the others and the new one, flows to those that stay go on
// where they were, and no rule of another Service is written.
func TestOneEndpointAmongMany(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := newNode(t, "a", "")
	services := thousand()
	a.tell(t, world(1, services...))
	var pods []*pod
	var names []string
	for i := range 11 {
		p := a.pod(t, fmt.Sprintf("p%02d", i), fmt.Sprintf("10.88.0.%d", 20+i))
		pods, names = append(pods, p), append(names, p.name)
	}
	client := a.pod(t, "client", "10.88.0.2")
	one := *services[500]
	one.Ports = append(tcp(80, 0), state.ServicePort{Name: "names", Protocol: "UDP", Port: 53})
	one.Endpoints = nil
	for _, p := range pods[:10] {
		one.Endpoints = append(one.Endpoints, p.endpoint(8080, 8081))
	}
	before := one
	services[500] = &before
	a.tell(t, world(2, services...))
	client.everyone(t, one.IP+":80", names[:10]...)
	flows, at := map[flow]string{}, map[string]int{}
	for range 60 {
		f := client.flow(t, one.IP+":53")
		flows[f] = f.who(t)
		at[flows[f]]++
	}
	leaves := names[3]
	for name := range at { // one that has flows
		leaves = max(leaves, name)
	}
	rules := a.rules(t)

	i := slices.Index(names, leaves)
	stay := slices.Delete(slices.Clone(names), i, i+1)
	after := one
	after.Endpoints = slices.Clone(one.Endpoints)
	after.Endpoints[i] = pods[10].endpoint(8080, 8081)
	services = slices.Clone(services)
	services[500] = &after
	a.tell(t, world(3, services...))

	for range 5 {
		client.everyone(t, one.IP+":80", stay...)
	}
	for f, was := range flows {
		now := f.who(t)
		if was == leaves && now == leaves {
			t.Errorf("a flow is still answered by %s, which has left", leaves)
		}
		if was != leaves && now != was {
			t.Errorf("a flow to %s, which stays, is now answered by %s", was, now)
		}
	}
	a.do(t, func() error {
		kept, err := hosttest.Connections(unix.IPPROTO_UDP)
		for _, c := range kept {
			if strings.Contains(c, "answered by "+pods[i].ip+":") {
				t.Errorf("kept: %s", c)
			}
		}
		return err
	})
	now := a.rules(t)
	written := 0
	for rule := range now {
		if !rules[rule] {
			written++
		}
	}
	if written == 0 || written > 20 || len(now) < 3000 {
		t.Errorf("of %d rules %d were written for one endpoint", len(now), written)
	}
}

// rules are the lines of the node's tables, each with its handle: one that was
// written again has another.
func (n *testNode) rules(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for line := range strings.Lines(n.run(t, "nft", "--handle", "list", "ruleset")) {
		out[strings.TrimSpace(line)] = true
	}
	return out
}

// One endpoint among 1,000 Services of 10 is programmed as a difference.
func BenchmarkOneEndpoint(b *testing.B) {
	needRoot(b)
	services := thousand()
	a := newNode(b, "a", "")
	defer a.stop()
	a.tell(b, world(1, services...))
	seq, full := state.Seq(1), services[500].Endpoints
	for b.Loop() {
		changed := *services[500]
		changed.Endpoints = full[:5+int(seq%5)]
		services = append([]*state.Service(nil), services...)
		services[500] = &changed
		seq++
		a.tell(b, world(seq, services...))
	}
}
