package network

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ttl is how long an answer may be kept, in seconds: endpoints change.
const ttl = 5

// A zone answers for cluster.local, after Kubernetes's DNS specification.
type zone struct {
	serial     uint32
	pods       netip.Prefix // the cluster's
	services   map[state.Ref]*state.Service
	namespaces map[string]bool
}

func newZone(n *state.Network) *zone {
	z := &zone{serial: uint32(n.Seq), services: make(map[state.Ref]*state.Service, len(n.Services)), namespaces: map[string]bool{}}
	z.pods, _ = netip.ParsePrefix(n.Pods) // where it is wrong no pod has a name
	for _, s := range n.Services {
		z.services[s.Ref] = s
		z.namespaces[s.Ref.Namespace] = true
	}
	return z
}

// An answer is what a zone knows of a name.
type answer struct {
	exists bool
	ips    []netip.Addr
	srv    []service
	text   string // TXT
}

// A service is what an SRV record says.
type service struct {
	target string
	port   uint16
	ips    []netip.Addr
}

// look finds a name, lower-case and with its last dot.
func (z *zone) look(name string) answer {
	switch name {
	case Zone, "svc." + Zone:
		return answer{exists: true}
	case "dns-version." + Zone:
		return answer{exists: true, text: "1.1.0"}
	}
	if pod, ok := strings.CutSuffix(name, "pod."+Zone); ok {
		return z.pod(pod)
	}
	rest, ok := strings.CutSuffix(name, ".svc."+Zone)
	if !ok {
		return answer{}
	}
	labels := strings.Split(rest, ".")
	n := len(labels)
	if n == 1 {
		return answer{exists: z.namespaces[labels[0]]}
	}
	s := z.services[state.Ref{Kind: "Service", Namespace: labels[n-1], Name: labels[n-2]}]
	if s == nil {
		return answer{}
	}
	full := s.Ref.Name + "." + s.Ref.Namespace + ".svc." + Zone
	switch n {
	case 2:
		return answer{exists: true, ips: addresses(s, ""), srv: everyPort(s, full)}
	case 3:
		if strings.HasPrefix(labels[0], "_") {
			return answer{exists: labels[0] == "_tcp" || labels[0] == "_udp"}
		}
		ips := addresses(s, labels[0])
		return answer{exists: len(ips) > 0, ips: ips}
	case 4:
		srv := ports(s, full, labels[0], labels[1])
		return answer{exists: len(srv) > 0, srv: srv}
	default:
		return answer{}
	}
}

// pod answers for 10-88-0-5.NAMESPACE.pod.cluster.local, as Kubernetes's DNS does
// by default: for each address that a pod may have, whoever has it.
func (z *zone) pod(rest string) answer {
	labels := strings.Split(strings.TrimSuffix(rest, "."), ".")
	if rest != "" && !strings.HasSuffix(rest, ".") {
		return answer{}
	}
	if len(labels) < 2 {
		return answer{exists: true}
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
	if err != nil || len(labels) > 2 || !z.pods.Contains(ip) {
		return answer{}
	}
	return answer{exists: true, ips: []netip.Addr{ip}}
}

// below is an endpoint's name below its Service's.
func below(e *state.Endpoint) string {
	if e.Hostname != "" {
		return e.Hostname
	}
	return strings.ReplaceAll(e.IP, ".", "-")
}

// addresses are those of a Service, or with a label those of the endpoints that
// bear it.
func addresses(s *state.Service, label string) []netip.Addr {
	if s.IP != "" && label == "" {
		ip, err := netip.ParseAddr(s.IP)
		if err != nil {
			return nil
		}
		return []netip.Addr{ip}
	}
	var ips []netip.Addr
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if label != "" && strings.ToLower(below(e)) != label {
			continue
		}
		if ip, err := netip.ParseAddr(e.IP); err == nil {
			ips = append(ips, ip)
		}
	}
	rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	return ips
}

// everyPort answers SRV for the Service's own name.
func everyPort(s *state.Service, full string) []service {
	var out []service
	for i := range s.Ports {
		out = append(out, portAt(s, full, i)...)
	}
	return out
}

func ports(s *state.Service, full, port, protocol string) []service {
	for i := range s.Ports {
		if p := &s.Ports[i]; "_"+p.Name == port && "_"+strings.ToLower(p.Protocol) == protocol {
			return portAt(s, full, i)
		}
	}
	return nil
}

func portAt(s *state.Service, full string, i int) []service {
	if s.IP != "" {
		return []service{{target: full, port: uint16(s.Ports[i].Port), ips: addresses(s, "")}}
	}
	var out []service
	for j := range s.Endpoints {
		e := &s.Endpoints[j]
		ip, err := netip.ParseAddr(e.IP)
		if err != nil || i >= len(e.Ports) || e.Ports[i] == 0 {
			continue
		}
		out = append(out, service{target: below(e) + "." + full, port: uint16(e.Ports[i]), ips: []netip.Addr{ip}})
	}
	return out
}

// reverse finds the names of an address: of a Service, or of the pods of
// headless ones.
func (z *zone) reverse(ip string) []string {
	var names []string
	for _, s := range z.services {
		full := s.Ref.Name + "." + s.Ref.Namespace + ".svc." + Zone
		if s.IP == ip {
			names = append(names, full)
		}
		for i := range s.Endpoints {
			if s.IP == "" && s.Endpoints[i].IP == ip {
				names = append(names, below(&s.Endpoints[i])+"."+full)
			}
		}
	}
	return names
}

// reply answers a question about the zone.
func (z *zone) reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	asked := q.Question[0]
	found := z.look(strings.ToLower(asked.Name))
	head := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	switch asked.Qtype {
	case dns.TypeA, dns.TypeANY:
		for _, ip := range found.ips {
			m.Answer = append(m.Answer, &dns.A{Hdr: head(asked.Name, dns.TypeA), A: ip.AsSlice()})
		}
	case dns.TypeSRV:
		for _, s := range found.srv {
			m.Answer = append(m.Answer, &dns.SRV{Hdr: head(asked.Name, dns.TypeSRV), Weight: uint16(100 / len(found.srv)), Port: s.port, Target: s.target})
			for _, ip := range s.ips {
				m.Extra = append(m.Extra, &dns.A{Hdr: head(s.target, dns.TypeA), A: ip.AsSlice()})
			}
		}
	case dns.TypeTXT:
		if found.text != "" {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head(asked.Name, dns.TypeTXT), Txt: []string{found.text}})
		}
	}
	if len(m.Answer) == 0 {
		if !found.exists {
			m.Rcode = dns.RcodeNameError
		}
		m.Ns = []dns.RR{&dns.SOA{
			Hdr: head(Zone, dns.TypeSOA), Ns: "ns.dns." + Zone, Mbox: "hostmaster." + Zone, Serial: z.serial,
			Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		}}
	}
	return m
}
