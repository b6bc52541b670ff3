package network

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// mark is set on packets whose source must become this node's address, so that
// the answer comes back here. It is a bit that nobody else is known to use.
const mark = "0x00200000"

// clientsMost is how many clients an endpoint remembers.
const clientsMost = 65536

// A part is what one Service needs in the table.
type part struct {
	source    *state.Service
	chains    map[string][]string // rules by chain
	sets      map[string]int32    // clients that stay with a pod: seconds, by set
	services  map[string]string   // key of the map: chain
	nodePorts map[string]string
}

// render makes a Service's part. Endpoints of this node count as near.
func render(s *state.Service, node state.NodeName) *part {
	p := &part{source: s, chains: map[string][]string{}, sets: map[string]int32{}, services: map[string]string{}, nodePorts: map[string]string{}}
	for i := range s.Ports {
		port := &s.Ports[i]
		proto := strings.ToLower(port.Protocol)
		if s.IP == "" || proto != "tcp" && proto != "udp" {
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
			p.services[fmt.Sprintf("%s . %s . %d", s.IP, proto, port.Port)] = inside
		}
		if port.NodePort == 0 || outside == "" {
			continue
		}
		chain := "ext-" + id
		p.chains[chain] = []string{"goto " + outside}
		if !s.LocalExternal {
			p.chains[chain] = []string{"meta mark set meta mark | " + mark, "goto " + outside}
		}
		p.nodePorts[fmt.Sprintf("%s . %d", proto, port.NodePort)] = chain
	}
	return p
}

// spread makes the chain that chooses among a port's endpoints, of one node
// where it names one. It returns no name where there are none.
func (p *part) spread(s *state.Service, port int, chain string, on state.NodeName, proto string) string {
	var targets []string
	var addresses []netip.AddrPort
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		addr, err := netip.ParseAddr(e.IP)
		if err != nil || !addr.Is4() || port >= len(e.Ports) || e.Ports[port] <= 0 || on != "" && e.Node != on {
			continue
		}
		targets = append(targets, fmt.Sprintf("%d : %s . %d", len(targets), e.IP, e.Ports[port]))
		addresses = append(addresses, netip.AddrPortFrom(addr, uint16(e.Ports[port])))
	}
	switch {
	case len(targets) == 0:
		return ""
	case s.Affinity > 0:
		p.stay(chain, addresses, s.Affinity, proto)
	default:
		p.chains[chain] = []string{fmt.Sprintf("meta l4proto %s dnat ip to numgen random mod %d map { %s }", proto, len(targets), strings.Join(targets, ", "))}
	}
	return chain
}

// stay is spread for Services whose clients stay with a pod: each endpoint
// remembers its clients.
func (p *part) stay(chain string, endpoints []netip.AddrPort, seconds int32, proto string) {
	var rules, choice []string
	for i, e := range endpoints {
		name := fmt.Sprintf("%s-%x-%d-%d", chain, e.Addr().AsSlice(), e.Port(), seconds)
		p.sets[name] = seconds
		p.chains[name] = []string{
			fmt.Sprintf("update @%s { ip saddr }", name),
			fmt.Sprintf("meta l4proto %s dnat ip to %s", proto, e),
		}
		rules = append(rules, fmt.Sprintf("ip saddr @%s goto %s", name, name))
		choice = append(choice, fmt.Sprintf("%d : goto %s", i, name))
	}
	p.chains[chain] = append(rules, fmt.Sprintf("numgen random mod %d vmap { %s }", len(endpoints), strings.Join(choice, ", ")))
}

// frame is what every node's table has, whatever the Services are. An
// address of the Services' range that no rule knows is refused, so that a
// client needn't wait for a time-out.
func frame(tx *knftables.Transaction, own netip.Prefix, cluster *ranges) {
	base := func(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, rules ...string) {
		tx.Add(&knftables.Chain{Name: name, Type: &kind, Hook: &hook, Priority: &priority})
		for _, r := range rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: r})
		}
	}
	tx.Add(&knftables.Map{Name: "services", Type: "ipv4_addr . inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Map{Name: "node-ports", Type: "inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Set{Name: "itself", Type: "ipv4_addr . ipv4_addr"})
	for a := own.Addr().Next(); own.Contains(a); a = a.Next() {
		tx.Add(&knftables.Element{Set: "itself", Key: []string{a.String(), a.String()}})
	}
	tx.Add(&knftables.Chain{Name: "find"})
	tx.Add(&knftables.Rule{Chain: "find", Rule: "ip daddr . meta l4proto . th dport vmap @services"})
	tx.Add(&knftables.Rule{Chain: "find", Rule: "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @node-ports"})
	framePorts(tx)
	base("arriving", knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority, "jump find")
	base("from-here", knftables.NATType, knftables.OutputHook, knftables.DNATPriority, "jump find")
	base("leaving", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority,
		fmt.Sprintf("meta mark & %s == %s snat to %s", mark, mark, own.Addr()),
		"ip saddr . ip daddr @itself snat to "+own.Addr().String(), // a pod that reaches itself through a Service
		fmt.Sprintf("ip saddr %s ip daddr != %s masquerade", own, cluster.pods))
	refuse := fmt.Sprintf("ip daddr %s reject", cluster.services)
	base("refuse-pods", knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority, refuse)
	base("refuse-host", knftables.FilterType, knftables.OutputHook, knftables.FilterPriority, refuse)
}

// change programs the difference between two parts of a Service; nil is none.
func change(tx *knftables.Transaction, old, now *part) {
	if old == nil {
		old = &part{}
	}
	if now == nil {
		now = &part{}
	}
	// What is new comes before what refers to it, what goes after.
	for _, name := range added(old.sets, now.sets) {
		timeout, size := time.Duration(now.sets[name])*time.Second, uint64(clientsMost)
		tx.Add(&knftables.Set{
			Name: name, Type: "ipv4_addr", Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}, Timeout: &timeout, Size: &size,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(now.chains)) {
		if _, had := old.chains[name]; !had {
			tx.Add(&knftables.Chain{Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.chains)) {
		if rules := now.chains[name]; !slices.Equal(old.chains[name], rules) {
			tx.Flush(&knftables.Chain{Name: name})
			for _, r := range rules {
				tx.Add(&knftables.Rule{Chain: name, Rule: r})
			}
		}
	}
	elements(tx, "services", old.services, now.services)
	elements(tx, "node-ports", old.nodePorts, now.nodePorts)
	gone := added(now.chains, old.chains)
	for _, name := range gone {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range gone {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range added(now.sets, old.sets) {
		tx.Delete(&knftables.Set{Name: name})
	}
}

func elements(tx *knftables.Transaction, name string, old, now map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(old)) {
		if now[key] != old[key] {
			tx.Delete(&knftables.Element{Map: name, Key: strings.Split(key, " . ")})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if now[key] != old[key] {
			tx.Add(&knftables.Element{Map: name, Key: strings.Split(key, " . "), Value: []string{"goto " + now[key]}})
		}
	}
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
