package network

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// mark is set on packets whose source must become this node's address, so that
// the answer comes back here. It is a bit that nobody else is known to use.
const mark uint32 = 0x00200000

// clientsMost is how many clients an endpoint remembers.
const clientsMost = 65536

// The sets and maps that every node's table has, and where packets to Services
// and to ports of the machine are sorted.
const (
	services  = "services"
	nodePorts = "node-ports"
	itself    = "itself"
	find      = "find"
)

// shared are the types of the sets and maps of the frame.
func shared() map[string]setType {
	byService := setType{flags: unix.NFT_SET_MAP, key: concat(typeIPv4, typeProto, typePort), keyWidth: 12, value: typeVerdict, valueWide: 16}
	byPort := setType{flags: unix.NFT_SET_MAP, key: concat(typeProto, typePort), keyWidth: 8, value: typeVerdict, valueWide: 16}
	anyAt, oneAt := byPort, byService
	anyAt.value, anyAt.valueWide = concat(typeIPv4, typePort), 8
	oneAt.value, oneAt.valueWide = anyAt.value, anyAt.valueWide
	return map[string]setType{
		services: byService, nodePorts: byPort, anyAddress: anyAt, oneAddress: oneAt,
		itself: {key: concat(typeIPv4, typeIPv4), keyWidth: 8},
	}
}

// A part is what one Service needs in the table.
type part struct {
	source *state.Service
	chains map[string][]rule
	sets   map[string]int32             // clients that stay with a pod: seconds, by set
	leads  map[string]map[string]string // by shared map: key to chain
}

// render makes a Service's part. Endpoints of this node count as near.
func render(s *state.Service, node state.NodeName) *part {
	p := &part{source: s, chains: map[string][]rule{}, sets: map[string]int32{}, leads: map[string]map[string]string{services: {}, nodePorts: {}}}
	ip, err := netip.ParseAddr(s.IP)
	if err != nil || !ip.Is4() {
		return p // headless: names alone
	}
	for i := range s.Ports {
		port := &s.Ports[i]
		proto := strings.ToLower(port.Protocol)
		if proto != "tcp" && proto != "udp" {
			continue // SCTP has no rules yet: its Services have names alone
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", s.Ref, proto, port.Port))
		id := fmt.Sprintf("%x", sum[:8])
		all, near := p.spread(s, i, "svc-"+id, "", proto), ""
		if s.LocalInternal || s.LocalExternal {
			near = p.spread(s, i, "near-"+id, node, proto)
		}
		inside, outside := all, all
		if s.LocalInternal {
			inside = near
		}
		if s.LocalExternal {
			outside = near
		}
		if inside != "" {
			p.leads[services][joined(ip.AsSlice(), []byte{number(proto)}, portBytes(port.Port))] = inside
		}
		if port.NodePort == 0 || outside == "" {
			continue
		}
		chain := "ext-" + id
		p.chains[chain] = []rule{p.rule(nil, goTo(outside))}
		if !s.LocalExternal {
			p.chains[chain] = []rule{p.rule(nil, setMark()), p.rule(nil, goTo(outside))}
		}
		p.leads[nodePorts][joined([]byte{number(proto)}, portBytes(port.NodePort))] = chain
	}
	return p
}

// rule says whose it is.
func (p *part) rule(own *ownSet, words ...[]expr.Any) rule {
	return newRule(p.source.Ref.Namespace+"/"+p.source.Ref.Name, own, words...)
}

// spread makes the chain that chooses among a port's endpoints, of one node
// where it names one. It returns no name where there are none.
func (p *part) spread(s *state.Service, port int, chain string, on state.NodeName, proto string) string {
	var endpoints []netip.AddrPort
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		addr, err := netip.ParseAddr(e.IP)
		if err != nil || !addr.Is4() || port >= len(e.Ports) || e.Ports[port] <= 0 || on != "" && e.Node != on {
			continue
		}
		endpoints = append(endpoints, netip.AddrPortFrom(addr, uint16(e.Ports[port]))) //nolint:gosec // a port
	}
	switch {
	case len(endpoints) == 0:
		return ""
	case s.Affinity > 0:
		p.stay(chain, endpoints, s.Affinity, proto)
	default:
		p.chains[chain] = []rule{p.choose(endpoints, proto)}
	}
	return chain
}

// choose sends to any of the endpoints: `meta l4proto tcp dnat ip to numgen
// random mod 2 map { 0 : 10.88.0.2 . 8080, 1 : 10.88.0.3 . 8080 }`.
func (p *part) choose(endpoints []netip.AddrPort, which string) rule {
	own := &ownSet{setType: setType{
		flags: unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT | unix.NFT_SET_MAP, key: typeInteger, keyWidth: 4,
		value: concat(typeIPv4, typePort), valueWide: 8, size: uint32(len(endpoints)), //nolint:gosec // endpoints of a Service
	}}
	for i, e := range endpoints {
		own.elements = append(own.elements, element{string(native32(uint32(i))), joined(e.Addr().AsSlice(), portBytes(e.Port()))}) //nolint:gosec // likewise
	}
	return p.rule(own, proto(which), random(len(endpoints)), translate(own.name()))
}

// stay is choose for Services whose clients stay with a pod: each endpoint
// remembers its clients.
func (p *part) stay(chain string, endpoints []netip.AddrPort, seconds int32, which string) {
	own := &ownSet{setType: setType{
		flags: unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT | unix.NFT_SET_MAP, key: typeInteger, keyWidth: 4,
		value: typeVerdict, valueWide: 16, size: uint32(len(endpoints)), //nolint:gosec // endpoints of a Service
	}}
	var rules []rule
	for i, e := range endpoints {
		name := fmt.Sprintf("%s-%x-%d-%d", chain, e.Addr().AsSlice(), e.Port(), seconds)
		p.sets[name] = seconds
		p.chains[name] = []rule{p.rule(nil, remember(name)), p.rule(nil, proto(which), to(e))}
		rules = append(rules, p.rule(nil, load(ipSource, first), lookup(name), goTo(name)))
		own.elements = append(own.elements, element{string(native32(uint32(i))), name}) //nolint:gosec // endpoints of a Service
	}
	p.chains[chain] = append(rules, p.rule(own, random(len(endpoints)), verdict(own.name())))
}

// A base is a chain that packets come to.
type base struct {
	name, kind string
	hook       uint32
	priority   int32
}

// bases are the chains that packets come to.
func bases() []base {
	return []base{
		{"arriving", "nat", unix.NF_INET_PRE_ROUTING, -100},
		{"from-here", "nat", unix.NF_INET_LOCAL_OUT, -100},
		{"leaving", "nat", unix.NF_INET_POST_ROUTING, 100},
		{"refuse-pods", "filter", unix.NF_INET_FORWARD, 0},
		{"refuse-host", "filter", unix.NF_INET_LOCAL_OUT, 0},
	}
}

// frame are the rules that every node's table has, whatever the Services are. An
// address of the Services' range that no rule knows is refused, so that a
// client needn't wait for a time-out.
func frame(own netip.Prefix, cluster *ranges) map[string][]rule {
	both := &ownSet{setType{
		flags: unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT, key: typeProto, keyWidth: 1, size: 2,
	}, []element{{key: string([]byte{unix.IPPROTO_TCP})}, {key: string([]byte{unix.IPPROTO_UDP})}}}
	known := append(loadProto(first), lookup(both.name())...)
	mine := from(own.Addr())
	refuse := newRule("", nil, in(ipDestination, cluster.services, expr.CmpOpEq),
		[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}) // the port is unreachable
	return map[string][]rule{
		find: {
			newRule("addresses of Services", nil, load(ipDestination, first), loadProto(second), loadPort(third), verdict(services)),
			newRule("ports of Services on this machine", nil, local(), loadProto(first), loadPort(second), verdict(nodePorts)),
			newRule("ports of pods on all addresses", both, known, local(), loadProto(first), loadPort(second), translate(anyAddress)),
			newRule("ports of pods on one address", both, known, local(), load(ipDestination, first), loadProto(second), loadPort(third), translate(oneAddress)),
		},
		"arriving":  {newRule("", nil, jumpTo(find))},
		"from-here": {newRule("", nil, jumpTo(find))},
		"leaving": {
			newRule("the answer comes back here", nil, marked(), mine),
			newRule("a pod that reaches itself through a Service", nil, load(ipSource, first), load(ipDestination, second), lookup(itself), mine),
			newRule("pods to the world", nil, in(ipSource, own, expr.CmpOpEq), in(ipDestination, cluster.pods, expr.CmpOpNeq), []expr.Any{&expr.Masq{}}),
		},
		"refuse-pods": {refuse},
		"refuse-host": {refuse},
	}
}

// selves are a range's addresses, each from itself to itself.
func selves(own netip.Prefix) map[string]string {
	out := map[string]string{}
	for a := own.Addr().Next(); own.Contains(a); a = a.Next() {
		out[joined(a.AsSlice(), a.AsSlice())] = ""
	}
	return out
}

// begin writes the table anew, without Services.
func (c *change) begin(own netip.Prefix, cluster *ranges) {
	c.addTable() // what isn't there can't be deleted
	c.deleteTable()
	c.addTable()
	types := shared()
	for _, name := range slices.Sorted(maps.Keys(types)) {
		c.addSet(name, 0, types[name])
	}
	c.differ(itself, types[itself], nil, selves(own))
	c.addChain(find)
	for _, b := range bases() {
		c.addBase(b.name, b.kind, b.hook, b.priority)
	}
	rules := frame(own, cluster)
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		for _, r := range rules[name] {
			c.addRule(name, r)
		}
	}
}

// parts programs the differences between parts of Services: old and now, nil is
// none. Addresses and ports that go come first: another Service may get them.
func (c *change) parts(pairs [][2]*part) {
	types := shared()
	for _, p := range pairs {
		for _, name := range []string{services, nodePorts} {
			c.deleteElements(name, types[name], lacking(p[1].leading(name), p[0].leading(name)))
		}
	}
	for _, p := range pairs {
		c.part(p[0], p[1])
	}
}

// leading are the elements of a shared map that a part has.
func (p *part) leading(name string) map[string]string {
	if p == nil {
		return nil
	}
	return p.leads[name]
}

// part programs the difference between two parts of a Service but for the
// addresses and ports that go; nil is none.
func (c *change) part(old, now *part) {
	if old == nil {
		old = &part{}
	}
	if now == nil {
		now = &part{}
	}
	// What is new comes before what refers to it, what goes after.
	for _, name := range added(old.sets, now.sets) {
		c.addSet(name, 0, setType{
			flags: unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT, key: typeIPv4, keyWidth: 4,
			timeout: time.Duration(now.sets[name]) * time.Second, size: clientsMost,
		})
	}
	for _, name := range added(old.chains, now.chains) {
		c.addChain(name)
	}
	for _, name := range slices.Sorted(maps.Keys(now.chains)) {
		rules := now.chains[name]
		was, had := old.chains[name]
		if had && slices.EqualFunc(was, rules, same) {
			continue
		}
		if had {
			c.flushChain(name)
		}
		for _, r := range rules {
			c.addRule(name, r)
		}
	}
	types := shared()
	for _, name := range []string{services, nodePorts} {
		c.addElements(name, types[name], lacking(old.leads[name], now.leads[name]))
	}
	gone := added(now.chains, old.chains)
	for _, name := range gone {
		c.flushChain(name)
	}
	for _, name := range gone {
		c.deleteChain(name)
	}
	for _, name := range added(now.sets, old.sets) {
		c.deleteSet(name)
	}
}

func same(a, b rule) bool { return a.comment == b.comment }

// differ programs the difference between the elements of a set or a map.
func (c *change) differ(name string, t setType, old, now map[string]string) {
	c.deleteElements(name, t, lacking(now, old))
	c.addElements(name, t, lacking(old, now))
}

// lacking are the elements of one that the other hasn't, or has otherwise.
func lacking(other, one map[string]string) []element {
	var out []element
	for _, key := range slices.Sorted(maps.Keys(one)) {
		if v, has := other[key]; !has || v != one[key] {
			out = append(out, element{key, one[key]})
		}
	}
	return out
}

// added are the names in now that old doesn't have, sorted.
func added[V any](old, now map[string]V) []string {
	var names []string
	for name := range now {
		if _, had := old[name]; !had {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
