package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Ranges are where addresses come from; of one that is zero none are given. What
// was given out before stays as it was recorded, whatever they are now.
type Ranges struct {
	Pods     netip.Prefix // a /24 of it for each node
	Services netip.Prefix
}

// DefaultRanges have room for 1,024 nodes and 65,000 Services.
func DefaultRanges() Ranges {
	return Ranges{Pods: netip.MustParsePrefix("10.88.0.0/14"), Services: netip.MustParsePrefix("10.96.0.0/16")}
}

// Node ports are given out from here, as under Kubernetes.
const (
	nodePortFirst = 30000
	nodePortLast  = 32767
	nodeBits      = 24 // a node's range is a /24: 254 pods
)

// network is what the machine knows of addresses besides the records.
type network struct {
	ranges   Ranges
	routing  state.Routing      // to be recorded at the start; zero: as it was
	nodes    bool               // a node came, went or changed
	address  map[state.Ref]bool // Services whose address isn't certain
	stale    map[state.Ref]bool // Services to look at anew
	served   bool               // some node serves Services: without one nobody asks
	services map[state.Ref]*state.Service
	told     []*state.NodeNetwork
	index    map[string][]selector // Services by namespace
	inUse    inUse
	had      map[state.Ref]*state.ServiceAddress // what of each Service is in inUse
	moved    map[state.Ref]bool                  // Services of which something else is to be
	fresh    map[state.Ref]bool                  // Services that aren't in the index as they are now
	changed  bool
}

type selector struct {
	service state.Ref
	labels  map[string]string
}

func newNetwork() network {
	return network{ranges: DefaultRanges(), address: map[state.Ref]bool{}, stale: map[state.Ref]bool{}, fresh: map[state.Ref]bool{}, inUse: newInUse(), had: map[state.Ref]*state.ServiceAddress{}, moved: map[state.Ref]bool{}, index: map[string][]selector{}, services: map[state.Ref]*state.Service{}}
}

// Address says where addresses are given out from, before Start.
func (m *Machine) Address(r Ranges) { m.net.ranges = r }

// Route says how nodes reach each other's pods from here on, before Start. Zero:
// as was recorded before.
func (m *Machine) Route(r state.Routing) { m.net.routing = r }

// chooseRouting records how nodes reach each other's pods, where that changes.
func (m *Machine) chooseRouting() {
	now := m.fold.Routing
	if now == 0 {
		now = state.RoutingAuto
	}
	if want := m.net.routing; want != 0 && want != now {
		m.emit("", &state.RoutingChosen{Routing: want})
	}
}

// start looks at everything: nothing was told in this process yet.
func (n *network) start(fold *state.State) {
	n.nodes = true
	for ref := range fold.Objects {
		if ref.Kind == "Service" {
			n.address[ref], n.stale[ref], n.fresh[ref], n.moved[ref] = true, true, true, true
		}
	}
}

// touchNetwork marks what a record may change for those who reach pods. It sees
// the state before the record.
func (m *Machine) touchNetwork(f state.Fact) {
	switch f := f.(type) {
	case *state.NodeJoined, *state.NodeChanged, *state.NodeRemoved, *state.NodeRanged:
		m.net.nodes = true
	case *state.NodeReady:
		m.net.nodes = true
		m.touchPodsOf(f.Node)
	case *state.NodeLost:
		m.touchPodsOf(f.Node)
	case *state.AppRemoved:
		m.touchServices(f.Changes)
	case *state.RevisionApplied:
		m.touchServices(f.Changes)
	case *state.ObjectGone:
		m.touchServices([]state.Change{{Ref: f.Ref}})
	case *state.ServiceAddressed:
		m.net.stale[f.Service], m.net.moved[f.Service] = true, true
	case *state.PodStopping:
		m.touchEndpoint(f.UID)
	case *state.PodGone:
		m.touchEndpoint(f.UID)
	case *state.PodObserved:
		m.touchEndpoint(f.UID)
	case *state.PodFlapping:
		m.touchEndpoint(f.UID)
	case *state.PodSettled:
		m.touchEndpoint(f.UID)
	}
}

func (m *Machine) touchServices(changes []state.Change) {
	for i := range changes {
		if ref := changes[i].Ref; ref.Kind == "Service" {
			m.net.address[ref], m.net.stale[ref], m.net.fresh[ref], m.net.moved[ref] = true, true, true, true
		}
	}
}

func (m *Machine) touchPodsOf(node state.NodeName) {
	if n := m.fold.Nodes[node]; n != nil && m.net.served {
		for _, p := range n.Pods {
			m.touchEndpoint(p.UID)
		}
	}
}

// touchEndpoint marks the Services that select a pod.
func (m *Machine) touchEndpoint(uid state.UID) {
	p := m.fold.Pods[uid]
	if p == nil || !m.net.served {
		return
	}
	m.indexServices()
	for _, s := range m.net.index[p.Key.Namespace] {
		if !m.net.stale[s.service] && p.MatchedBy(s.labels) {
			m.net.stale[s.service] = true
		}
	}
}

// indexServices brings the index up to date.
func (m *Machine) indexServices() {
	for ref := range m.net.fresh {
		list := slices.DeleteFunc(m.net.index[ref.Namespace], func(s selector) bool { return s.service == ref })
		if o := m.fold.Objects[ref]; o != nil {
			if spec, ok := o.Object.ServiceSpec(); ok && len(spec.Selector) > 0 {
				list = append(list, selector{ref, spec.Selector})
			}
		}
		if m.net.index[ref.Namespace] = list; len(list) == 0 {
			delete(m.net.index, ref.Namespace)
		}
	}
	clear(m.net.fresh)
}

// giveAddresses records ranges for nodes that have none, and addresses for
// Services whose specification wants another.
func (m *Machine) giveAddresses() {
	if m.net.nodes && m.net.ranges.Pods.IsValid() {
		m.giveRanges()
	}
	if len(m.net.address) == 0 || !m.net.ranges.Services.IsValid() {
		clear(m.net.address)
		return
	}
	m.releaseGone()
	refs := slices.SortedFunc(maps.Keys(m.net.address), state.Ref.Compare)
	clear(m.net.address)
	taken := m.taken()
	// What people ask for comes before what is given.
	for _, asks := range []bool{true, false} {
		for _, ref := range refs {
			o := m.fold.Objects[ref]
			if o == nil {
				continue
			}
			if spec, ok := o.Object.ServiceSpec(); ok && asks == asksForAddress(spec) {
				m.addressOf(o, spec, taken)
			}
		}
	}
}

func asksForAddress(spec *corev1.ServiceSpec) bool {
	return spec.ClusterIP != "" || slices.ContainsFunc(spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 })
}

// giveRanges gives every real node the lowest range that is free. A simulated
// one has no addresses.
func (m *Machine) giveRanges() {
	var without []state.NodeName
	used := map[string]bool{}
	for _, n := range m.fold.Nodes {
		if used[n.PodRange] = true; n.PodRange == "" && !n.Facts.Simulated {
			without = append(without, n.Name)
		}
	}
	slices.Sort(without)
	block := netip.PrefixFrom(m.net.ranges.Pods.Masked().Addr(), nodeBits)
	for _, name := range without {
		for used[block.String()] {
			block = netip.PrefixFrom(beyond(block), nodeBits)
		}
		if !m.net.ranges.Pods.Contains(block.Addr()) {
			return // the node has no range: its agent says so of each pod
		}
		used[block.String()] = true
		m.emit("", &state.NodeRanged{Node: name, Range: block.String()})
	}
}

// beyond is the first address after a /24.
func beyond(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := 2; i >= 0; i-- {
		if a[i]++; a[i] != 0 {
			break
		}
	}
	return netip.AddrFrom4(a)
}

// inUse is which Service has what.
type inUse struct {
	addresses map[netip.Addr]state.Ref
	ports     map[portKey]state.Ref
}

type portKey struct {
	protocol string
	port     int32
}

func newInUse() inUse {
	return inUse{addresses: map[netip.Addr]state.Ref{}, ports: map[portKey]state.Ref{}}
}

// taken is what Services have, brought up to date: first what each had is dropped,
// since another may have it by now.
func (m *Machine) taken() *inUse {
	n := &m.net
	for ref := range n.moved {
		if a := n.had[ref]; a != nil {
			n.inUse.drop(ref, a)
			delete(n.had, ref)
		}
	}
	for ref := range n.moved {
		if a := m.fold.Services[ref]; a != nil {
			n.inUse.add(ref, a)
			n.had[ref] = a
		}
	}
	clear(n.moved)
	return &n.inUse
}

// checkTaken is Check's part: what is known to be taken is what going through all
// Services gives.
func (m *Machine) checkTaken() error {
	want := newInUse()
	for ref, a := range m.fold.Services {
		want.add(ref, a)
	}
	if got := m.taken(); !maps.Equal(got.addresses, want.addresses) || !maps.Equal(got.ports, want.ports) {
		return fmt.Errorf("%d addresses and %d ports are known to be taken, Services have %d and %d", len(got.addresses), len(got.ports), len(want.addresses), len(want.ports))
	}
	return nil
}

func (t *inUse) add(ref state.Ref, a *state.ServiceAddress) {
	if a.IP.IsValid() {
		t.addresses[a.IP] = ref
	}
	for _, p := range a.Ports {
		t.ports[portKey{p.Protocol, p.Node}] = ref
	}
}

func (t *inUse) drop(ref state.Ref, a *state.ServiceAddress) {
	if t.addresses[a.IP] == ref {
		delete(t.addresses, a.IP)
	}
	for _, p := range a.Ports {
		if k := (portKey{p.Protocol, p.Node}); t.ports[k] == ref {
			delete(t.ports, k)
		}
	}
}

// addressOf gives a Service what its specification wants, keeping what it has,
// or holds it where that can't be given.
func (m *Machine) addressOf(o *state.Owned, spec *corev1.ServiceSpec, taken *inUse) {
	ref := o.Object.Ref
	old := m.fold.Services[ref]
	has := old
	if has == nil {
		has = &state.ServiceAddress{}
	}
	taken.drop(ref, has)
	now, problem := m.choose(ref, spec, has, taken)
	if len(problem) > 0 {
		taken.add(ref, has)
		m.holdService(o, problem)
		return
	}
	m.releaseService(o)
	taken.add(ref, now)
	m.net.had[ref] = now // also where the Service goes before anybody looks again
	if old != nil && old.IP == now.IP && slices.Equal(old.Ports, now.Ports) || old == nil && !now.IP.IsValid() && len(now.Ports) == 0 {
		return
	}
	f := &state.ServiceAddressed{Service: ref, Ports: now.Ports}
	if now.IP.IsValid() {
		f.IP = now.IP.String()
	}
	m.emit(o.App, f)
}

// choose is what a Service is to have; otherwise the parameters of the hold.
func (m *Machine) choose(ref state.Ref, spec *corev1.ServiceSpec, has *state.ServiceAddress, taken *inUse) (*state.ServiceAddress, []string) {
	now := &state.ServiceAddress{}
	block := m.net.ranges.Services.Masked()
	switch spec.ClusterIP {
	case corev1.ClusterIPNone:
		return now, nil
	case "":
		if now.IP = has.IP; !now.IP.IsValid() {
			now.IP = freeAddress(ref, block, taken)
		}
		if !now.IP.IsValid() {
			return nil, []string{block.String(), "every address is taken"}
		}
	default:
		ip, err := netip.ParseAddr(spec.ClusterIP)
		if err != nil || !block.Contains(ip) || ip == block.Addr() {
			return nil, []string{spec.ClusterIP, "it is not an address of " + block.String()}
		}
		if owner, ok := taken.addresses[ip]; ok {
			return nil, []string{spec.ClusterIP, owner.String() + " has it"}
		}
		now.IP = ip
	}
	if spec.Type != corev1.ServiceTypeNodePort {
		return now, nil
	}
	asked := map[portKey]bool{} // by the specification itself: not to be given to its other ports
	for i := range spec.Ports {
		asked[portKey{protocolOf(&spec.Ports[i]), spec.Ports[i].NodePort}] = true
	}
	for i := range spec.Ports {
		p := state.NodePort{Protocol: protocolOf(&spec.Ports[i]), Port: spec.Ports[i].Port}
		if p.Node = spec.Ports[i].NodePort; p.Node == 0 {
			p.Node = freePort(p, now, has, func(port int32) bool {
				k := portKey{p.Protocol, port}
				_, used := taken.ports[k]
				return !used && !asked[k]
			})
		}
		if p.Node == 0 {
			return nil, []string{fmt.Sprintf("%d-%d", nodePortFirst, nodePortLast), "every node port is taken"}
		}
		if owner, ok := taken.ports[portKey{p.Protocol, p.Node}]; ok {
			return nil, []string{fmt.Sprintf("node port %d/%s", p.Node, p.Protocol), owner.String() + " has it"}
		}
		now.Ports = append(now.Ports, p)
	}
	return now, nil
}

// freeAddress begins at a place that the name gives: a Service that comes back
// has its address again, as a rule. The first sixteen are left to people.
func freeAddress(ref state.Ref, block netip.Prefix, taken *inUse) netip.Addr {
	const reserved = 16
	size := uint64(1)<<(32-block.Bits()) - 1 // without the last
	if size <= reserved {
		return netip.Addr{}
	}
	first := block.Addr().As4()
	base := uint64(first[0])<<24 | uint64(first[1])<<16 | uint64(first[2])<<8 | uint64(first[3])
	sum := state.DigestOf([]byte(ref.String()))
	at := uint64(sum[0])<<24 | uint64(sum[1])<<16 | uint64(sum[2])<<8 | uint64(sum[3])
	for i := range size - reserved {
		n := base + reserved + (at+i)%(size-reserved)
		ip := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		if _, used := taken.addresses[ip]; !used {
			return ip
		}
	}
	return netip.Addr{}
}

func protocolOf(p *corev1.ServicePort) string { return string(cmp.Or(p.Protocol, corev1.ProtocolTCP)) }

func freePort(p state.NodePort, now, has *state.ServiceAddress, free func(int32) bool) int32 {
	for _, old := range has.Ports {
		if old.Port == p.Port && old.Protocol == p.Protocol && free(old.Node) {
			return old.Node
		}
	}
	for port := int32(nodePortFirst); port <= nodePortLast; port++ {
		mine := slices.ContainsFunc(now.Ports, func(o state.NodePort) bool { return o.Node == port && o.Protocol == p.Protocol })
		if !mine && free(port) {
			return port
		}
	}
	return 0
}

func (m *Machine) holdService(o *state.Owned, params []string) {
	h := state.Held{Object: o.Object.Ref, Code: state.HoldAddress, Params: params}
	h.ID = plan.HoldID(h)
	if old := m.fold.Holds[h.ID]; old == nil || !sameHold(&old.Held, &h) {
		m.emit(o.App, &h)
	}
}

func (m *Machine) releaseService(o *state.Owned) {
	h := state.Held{Object: o.Object.Ref, Code: state.HoldAddress}
	if h.ID = plan.HoldID(h); m.fold.Holds[h.ID] != nil {
		m.emit(o.App, &state.Released{ID: h.ID, Object: h.Object})
	}
}

// releaseGone ends the holds of Services that left, and lets those that wait
// for an address try again.
func (m *Machine) releaseGone() {
	for _, id := range sorted(m.fold.Holds) {
		h := m.fold.Holds[id]
		if h.Code != state.HoldAddress {
			continue
		}
		if m.fold.Objects[h.Object] == nil {
			m.emit(h.App, &state.Released{ID: id, Object: h.Object})
		} else {
			m.net.address[h.Object] = true
		}
	}
}

// tell makes the network as it is now, where it differs from what was told.
func (m *Machine) tell() {
	n := &m.net
	if n.nodes {
		n.nodes = false
		m.tellNodes()
	}
	if !n.served {
		clear(n.stale)
		clear(n.fresh) // the first that serves looks at all of them
		clear(n.index)
		return
	}
	for ref := range n.stale {
		now := m.service(ref)
		switch old := n.services[ref]; {
		case now == nil && old != nil:
			delete(n.services, ref)
			n.changed = true
		case now != nil && (old == nil || !reflect.DeepEqual(old, now)):
			n.services[ref] = now
			n.changed = true
		}
	}
	clear(n.stale)
	if !n.changed {
		return
	}
	n.changed = false
	out := &state.Network{
		Seq: m.fold.Seq, Pods: n.ranges.Pods.String(), Addresses: n.ranges.Services.String(), Nodes: n.told, Routing: m.fold.Routing,
		Services: slices.SortedFunc(maps.Values(n.services), func(a, b *state.Service) int { return a.Ref.Compare(b.Ref) }),
	}
	m.out.Network = out
}

func (m *Machine) tellNodes() {
	n := &m.net
	old := map[state.NodeName]*state.NodeNetwork{}
	for _, t := range n.told {
		old[t.Name] = t
	}
	var told []*state.NodeNetwork
	served := false
	for _, node := range m.fold.SortedNodes() {
		if node.PodRange == "" {
			continue
		}
		served = served || !node.Facts.Simulated
		t := &state.NodeNetwork{Name: node.Name, OS: node.Facts.OS, Range: node.PodRange, Address: node.Facts.Address}
		if was := old[t.Name]; was != nil && *was == *t {
			t = was
		}
		told = append(told, t)
	}
	if !slices.Equal(told, n.told) {
		n.told, n.changed = told, true
	}
	if served && !n.served {
		n.start(m.fold)
		n.nodes = false
		clear(n.address) // they were just given
	}
	if !served {
		clear(n.services)
	}
	n.served = served
}

// service is a Service as nodes serve it, or nil where it isn't there or has no
// address yet.
func (m *Machine) service(ref state.Ref) *state.Service {
	o := m.fold.Objects[ref]
	if o == nil {
		return nil
	}
	spec, ok := o.Object.ServiceSpec()
	a := m.fold.Services[ref]
	if !ok || a == nil && spec.ClusterIP != corev1.ClusterIPNone {
		return nil
	}
	out := &state.Service{
		Ref:           ref,
		LocalExternal: spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		LocalInternal: spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
	}
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.Affinity = 10800 // Kubernetes's three hours
		if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.Affinity = *c.ClientIP.TimeoutSeconds
		}
	}
	for i := range spec.Ports {
		p := state.ServicePort{Name: spec.Ports[i].Name, Protocol: protocolOf(&spec.Ports[i]), Port: spec.Ports[i].Port}
		if a != nil {
			for _, np := range a.Ports {
				if np.Port == p.Port && np.Protocol == p.Protocol {
					p.NodePort = np.Node
				}
			}
		}
		out.Ports = append(out.Ports, p)
	}
	if a != nil && a.IP.IsValid() {
		out.IP = a.IP.String()
	}
	m.endpoints(out, spec)
	return out
}

// endpoints are the pods that a Service selects and that answer.
func (m *Machine) endpoints(svc *state.Service, spec *corev1.ServiceSpec) {
	for _, w := range m.fold.WorkloadsIn(svc.Ref.Namespace) {
		for _, p := range w.Pods {
			n := m.fold.Nodes[p.Node]
			if n == nil || n.Facts.Simulated {
				continue // nobody answers at its address
			}
			up := p.Ready && !p.Lost && !p.Stopping || spec.PublishNotReadyAddresses
			if !up || p.Ended() || !p.IP.IsValid() || !p.MatchedBy(spec.Selector) {
				continue
			}
			e := state.Endpoint{Pod: p.Key.Name, IP: p.IP.String(), Node: p.Node, Hostname: hostnameBelow(w, p, svc.Ref.Name)}
			for i := range spec.Ports {
				e.Ports = append(e.Ports, portOn(p, &spec.Ports[i]))
			}
			svc.Endpoints = append(svc.Endpoints, e)
		}
	}
	slices.SortFunc(svc.Endpoints, func(a, b state.Endpoint) int { return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.IP, b.IP)) })
}

// hostnameBelow is a pod's name below a Service's: of a StatefulSet's pods below
// the one that it names, of others where they say hostname and subdomain.
func hostnameBelow(w *state.Workload, p *state.Pod, service string) string {
	if set, ok := w.StatefulSet(); ok && set.Spec.ServiceName == service {
		return p.Key.Name
	}
	if spec := &p.Template.Spec.Spec; spec.Subdomain == service {
		return spec.Hostname
	}
	return ""
}

// portOn is the number of a Service's port on a pod; 0 where the pod has no
// port of that name.
func portOn(p *state.Pod, port *corev1.ServicePort) int32 {
	if name := port.TargetPort.StrVal; name != "" {
		spec := &p.Template.Spec.Spec
		for i := range spec.Containers {
			if n := portNamed(&spec.Containers[i], name, port); n != 0 {
				return n
			}
		}
		for i := range spec.InitContainers {
			c := &spec.InitContainers[i]
			if !state.Sidecar(c) {
				continue // it has ended by the time that the pod serves
			}
			if n := portNamed(c, name, port); n != 0 {
				return n
			}
		}
		return 0
	}
	return cmp.Or(port.TargetPort.IntVal, port.Port)
}

// portNamed is the number of a container's port of that name; 0: it has none.
func portNamed(c *corev1.Container, name string, port *corev1.ServicePort) int32 {
	for i := range c.Ports {
		if p := &c.Ports[i]; p.Name == name && cmp.Or(p.Protocol, corev1.ProtocolTCP) == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
			return p.ContainerPort
		}
	}
	return 0
}
