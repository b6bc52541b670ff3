package network

import (
	"fmt"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A wire takes one answer, as it goes out.
type wire struct {
	dns.ResponseWriter

	network string
	size    int
	got     *dns.Msg
}

func (w *wire) LocalAddr() net.Addr {
	if w.network == "udp" {
		return &net.UDPAddr{}
	}
	return &net.TCPAddr{}
}

func (w *wire) WriteMsg(m *dns.Msg) error {
	raw, err := m.Pack()
	if err != nil {
		return err
	}
	w.size, w.got = len(raw), new(dns.Msg)
	return w.got.Unpack(raw)
}

// ask asks a server of one zone; size is EDNS's, 0: without.
func ask(t *testing.T, n *state.Network, network, name string, kind, size uint16) *wire {
	t.Helper()
	node := &Node{}
	node.zone.Store(newZone(n))
	q := new(dns.Msg).SetQuestion(name, kind)
	if size > 0 {
		q.SetEdns0(size, false)
	}
	w := &wire{network: network}
	(&server{node: node, slots: make(chan struct{}, 1)}).ServeDNS(w, q)
	if w.got == nil {
		t.Fatalf("%s has no answer", name)
	}
	return w
}

// TestAnswers holds answers to RFCs 1035, 2308 and 6891, and to Kubernetes's names.
func TestAnswers(t *testing.T) {
	many := &state.Service{Ref: state.Ref{Kind: "Service", Namespace: "shop", Name: "many"}}
	for i := range 200 {
		many.Endpoints = append(many.Endpoints, state.Endpoint{Pod: fmt.Sprintf("web-%d", i), IP: fmt.Sprintf("10.88.1.%d", i+1)})
	}
	web := &state.Service{Ref: state.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, IP: "10.96.0.9"}
	n := &state.Network{Seq: 7, Pods: "10.88.0.0/14", Addresses: "10.96.0.0/16", Services: []*state.Service{many, web}}
	for _, c := range []struct {
		name    string
		kind    uint16
		code    int
		answers int
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"WEB.Shop.svc.cluster.LOCAL.", dns.TypeA, dns.RcodeSuccess, 1},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"none.shop.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
		{"shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, 0},
		{"9.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, 1},
		{"10-88-0-5.shop.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, 1},
		{"10-88-0-5.shop.pod.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"192-0-2-1.shop.pod.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
		{"a.10-88-0-5.shop.pod.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
		{"shop.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, 0},
		{"pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, 0},
		{"xpod.cluster.local.", dns.TypeA, dns.RcodeNameError, 0},
	} {
		for _, size := range []uint16{0, 1232} {
			m := ask(t, n, "udp", c.name, c.kind, size).got
			what := fmt.Sprintf("%s %s, EDNS %d", c.name, dns.TypeToString[c.kind], size)
			if m.Rcode != c.code || len(m.Answer) != c.answers || !m.RecursionAvailable {
				t.Errorf("%s: %s, %d answers, recursion %t", what, dns.RcodeToString[m.Rcode], len(m.Answer), m.RecursionAvailable)
			}
			if (m.IsEdns0() != nil) != (size > 0) {
				t.Errorf("%s: EDNS in the answer: %t", what, m.IsEdns0() != nil)
			}
			for _, a := range m.Answer {
				if a.Header().Name != c.name {
					t.Errorf("%s: the answer is about %s", what, a.Header().Name)
				}
			}
			if soa := len(m.Ns) == 1 && m.Ns[0].Header().Rrtype == dns.TypeSOA; soa != (c.answers == 0) {
				t.Errorf("%s: SOA %t", what, soa)
			}
		}
	}
	for _, c := range []struct {
		network   string
		size      uint16
		most      int
		truncated bool
	}{{"udp", 0, 512, true}, {"udp", 1232, 1232, true}, {"tcp", 0, 1 << 16, false}} {
		w := ask(t, n, c.network, "many.shop.svc.cluster.local.", dns.TypeA, c.size)
		if w.size > c.most || w.got.Truncated != c.truncated || len(w.got.Answer) == 0 || !c.truncated && len(w.got.Answer) != 200 {
			t.Errorf("%s, EDNS %d: %d bytes, %d answers, truncated %t", c.network, c.size, w.size, len(w.got.Answer), w.got.Truncated)
		}
	}
}
