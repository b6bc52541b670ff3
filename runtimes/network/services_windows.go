package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/Microsoft/hcsshim/hcn"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// backendsMost is how many endpoints Windows takes behind one address and port.
const backendsMost = 1024

// A front is where clients of a Service come in.
type front struct {
	protocol uint32
	vip      string // empty: every address of this machine, for node ports
	port     uint16
}

func (f front) String() string {
	vip := f.vip
	if vip == "" {
		vip = "node port"
	}
	return fmt.Sprintf("%s %d/%d", vip, f.port, f.protocol)
}

// A policy is a load balancer of Windows' network service as it should be.
type policy struct {
	front    front
	port     uint16   // of the pods
	backends []string // addresses of pods, sorted
	affinity bool
}

// wantedPolicies are those of a network's Services, by their front. What can't be
// served as written is told once each.
func (n *Node) wantedPolicies(ctx context.Context, w *state.Network) map[front]*policy {
	wanted, told := map[front]*policy{}, map[string]string{}
	for _, s := range w.Services {
		for i := range s.Ports {
			for _, p := range n.policiesOf(s, i, told) {
				wanted[p.front] = p
			}
		}
	}
	for what, why := range told {
		if n.told[what] != why {
			n.log.LogAttrs(ctx, slog.LevelWarn, "a Service is not served as written", slog.String("object", what), slog.String("why", why))
		}
	}
	n.told = told
	return wanted
}

func (n *Node) policiesOf(s *state.Service, i int, told map[string]string) (found []*policy) {
	port := &s.Ports[i]
	protocol := map[string]uint32{"TCP": 6, "UDP": 17}[port.Protocol]
	what := s.Ref.String() + " " + port.Name
	if protocol == 0 {
		told[what] = "Windows serves TCP and UDP, not " + port.Protocol
		return nil
	}
	add := func(vip string, at int32, local bool) {
		backends, target, left := n.backends(s, i, local)
		switch {
		case len(backends) == 0:
			return
		case left > 0:
			told[what] = fmt.Sprintf("Windows leads one address and port to one port of at most %d pods: %d pods are left out; give the port one number in all pods", backendsMost, left)
		}
		found = append(found, &policy{
			front: front{protocol, vip, uint16(at)}, port: target, backends: backends, affinity: s.Affinity > 0, //nolint:gosec // ports are 16 bits
		})
	}
	if s.IP != "" {
		add(s.IP, port.Port, s.LocalInternal)
	}
	if port.NodePort > 0 {
		add("", port.NodePort, s.LocalExternal)
	}
	return found
}

// backends are the addresses of the pods behind a port, and the one port that
// they have: that of the most, the lowest of those. left counts the others.
func (n *Node) backends(s *state.Service, i int, local bool) (backends []string, target uint16, left int) {
	byPort := map[int32][]string{}
	for j := range s.Endpoints {
		e := &s.Endpoints[j]
		if i >= len(e.Ports) || e.Ports[i] == 0 || e.IP == "" || local && e.Node != n.o.Node {
			continue
		}
		byPort[e.Ports[i]] = append(byPort[e.Ports[i]], e.IP)
	}
	all, best := 0, int32(0)
	for _, p := range slices.Sorted(maps.Keys(byPort)) {
		if all += len(byPort[p]); len(byPort[p]) > len(byPort[best]) {
			best = p
		}
	}
	backends = byPort[best]
	slices.Sort(backends)
	backends = slices.Compact(backends)
	backends = backends[:min(len(backends), backendsMost)]
	return backends, uint16(best), all - len(backends) //nolint:gosec // ports are 16 bits
}

// program makes the load balancers of this node those of w. It looks at what is
// there each time: the network service loses policies, and keeps some that
// nobody wants any more (kubernetes#110674, #113524, #137530).
func (n *Node) program(ctx context.Context, w *state.Network) error {
	network, err := hcn.GetNetworkByName(n.o.Pods)
	if err != nil {
		return hcs.NetworkFailure("find the pods' network", err)
	}
	return n.programIn(ctx, network, w)
}

func (n *Node) programIn(ctx context.Context, network *hcn.HostComputeNetwork, w *state.Network) error {
	endpoints, err := endpoints(network)
	if err != nil {
		return err
	}
	have, err := hcn.ListLoadBalancers()
	if err != nil {
		return hcs.NetworkFailure("list load balancers", err)
	}
	wanted := n.wantedPolicies(ctx, w)
	// A Service whose endpoint can't be made is served by its others, and the other
	// Services by all of theirs.
	errs := []error{n.lead(network, endpoints, wanted)}
	there := map[front]bool{}
	for i := range have {
		lb := &have[i]
		at, ours := n.owns(lb, endpoints, w)
		if !ours {
			continue
		}
		if p := wanted[at]; p != nil && !there[at] && p.is(lb, endpoints) {
			there[at] = true
			continue
		}
		if err := lb.Delete(); err != nil && !hcn.IsNotFoundError(err) {
			errs = append(errs, hcs.NetworkFailure(fmt.Sprintf("remove the load balancer at %s", at), err))
		}
	}
	made := 0
	for at, p := range wanted {
		if there[at] || len(p.ids(endpoints)) == 0 { // none: pods whose endpoints are being made
			continue
		}
		if _, err := p.document(endpoints).Create(); err != nil {
			errs = append(errs, hcs.NetworkFailure(fmt.Sprintf("make the load balancer at %s", at), err))
			continue
		}
		made++
	}
	errs = append(errs, n.unlead(endpoints, wanted))
	if made > 0 {
		n.log.LogAttrs(ctx, slog.LevelInfo, "programmed Services", slog.Int("made", made), slog.Int("all", len(wanted)))
	}
	return errors.Join(errs...)
}

// known are the endpoints of the pods' network by address, and all others of
// this machine by ID.
type known struct {
	ours   map[string]*hcn.HostComputeEndpoint
	others map[string]bool
}

func endpoints(network *hcn.HostComputeNetwork) (known, error) {
	found := known{map[string]*hcn.HostComputeEndpoint{}, map[string]bool{}}
	list, err := hcn.ListEndpoints()
	if err != nil {
		return found, hcs.NetworkFailure("list endpoints", err)
	}
	for i := range list {
		e := &list[i]
		if !strings.EqualFold(e.HostComputeNetwork, network.Id) {
			found.others[strings.ToLower(e.Id)] = true
			continue
		}
		for _, c := range e.IpConfigurations {
			found.ours[c.IpAddress] = e
		}
	}
	return found, nil
}

func (n *Node) remoteName(ip string) string { return "tandem-" + n.o.ID + "-remote-" + ip }

// lead makes an endpoint for each pod of another node that a policy leads to.
func (n *Node) lead(network *hcn.HostComputeNetwork, have known, wanted map[front]*policy) error {
	var errs []error
	for _, p := range wanted {
		for _, ip := range p.backends {
			if have.ours[ip] != nil || n.own.Contains(parse(ip)) {
				continue // there, or a pod of ours whose endpoint is being made
			}
			made, err := network.CreateRemoteEndpoint(&hcn.HostComputeEndpoint{
				Name: n.remoteName(ip), IpConfigurations: []hcn.IpConfig{{IpAddress: ip, PrefixLength: 32}}, SchemaVersion: hcn.SchemaVersion{Major: 2},
			})
			if err != nil {
				errs = append(errs, hcs.NetworkFailure(fmt.Sprintf("make the endpoint of %s", ip), err))
				continue
			}
			have.ours[ip] = made
		}
	}
	return errors.Join(errs...)
}

// unlead removes those that no policy needs any more.
func (n *Node) unlead(have known, wanted map[front]*policy) error {
	needed := map[string]bool{}
	for _, p := range wanted {
		for _, ip := range p.backends {
			needed[ip] = true
		}
	}
	var errs []error
	for ip, e := range have.ours {
		if needed[ip] || e.Name != n.remoteName(ip) {
			continue
		}
		if err := e.Delete(); err != nil && !hcn.IsNotFoundError(err) {
			errs = append(errs, hcs.NetworkFailure(fmt.Sprintf("remove the endpoint of %s", ip), err))
		}
	}
	return errors.Join(errs...)
}

func parse(ip string) netip.Addr {
	a, _ := netip.ParseAddr(ip)
	return a
}

// owns says whether a load balancer is this node's: it leads to an endpoint of
// our network, or its address is a Service's and it leads to nobody else's.
func (n *Node) owns(lb *hcn.HostComputeLoadBalancer, endpoints known, w *state.Network) (front, bool) {
	var at front
	if len(lb.PortMappings) > 0 {
		at.protocol, at.port = lb.PortMappings[0].Protocol, lb.PortMappings[0].ExternalPort
	}
	if len(lb.FrontendVIPs) > 0 {
		at.vip = lb.FrontendVIPs[0]
	}
	for _, id := range lb.HostComputeEndpoints {
		if endpoints.others[strings.ToLower(id)] {
			return at, false
		}
	}
	services, _ := netip.ParsePrefix(w.Addresses)
	if services.Contains(parse(at.vip)) {
		return at, true
	}
	for _, e := range endpoints.ours {
		if slices.ContainsFunc(lb.HostComputeEndpoints, func(id string) bool { return strings.EqualFold(id, e.Id) }) {
			return at, true
		}
	}
	return at, false
}

// ids are the endpoints that the policy leads to, as far as they are there.
func (p *policy) ids(endpoints known) []string {
	ids := []string{}
	for _, ip := range p.backends {
		if e := endpoints.ours[ip]; e != nil {
			ids = append(ids, strings.ToLower(e.Id))
		}
	}
	slices.Sort(ids)
	return ids
}

func (p *policy) document(endpoints known) *hcn.HostComputeLoadBalancer {
	mapping := hcn.LoadBalancerPortMapping{Protocol: p.front.protocol, InternalPort: p.port, ExternalPort: p.front.port}
	lb := &hcn.HostComputeLoadBalancer{HostComputeEndpoints: p.ids(endpoints), SchemaVersion: hcn.SchemaVersion{Major: 2}}
	if p.affinity {
		mapping.DistributionType = hcn.LoadBalancerDistributionSourceIP
	}
	if p.front.vip == "" {
		mapping.Flags = hcn.LoadBalancerPortMappingFlagsLocalRoutedVIP
	} else {
		lb.FrontendVIPs = []string{p.front.vip}
		// Without it each one reserves 64 ports of this machine, and a hundred
		// Services are too many.
		lb.Flags = hcn.LoadBalancerFlagsDSR
	}
	lb.PortMappings = []hcn.LoadBalancerPortMapping{mapping}
	return lb
}

// is says whether a load balancer is as the policy would have it.
func (p *policy) is(lb *hcn.HostComputeLoadBalancer, endpoints known) bool {
	want := p.document(endpoints)
	have := make([]string, 0, len(lb.HostComputeEndpoints))
	for _, id := range lb.HostComputeEndpoints {
		have = append(have, strings.ToLower(id))
	}
	slices.Sort(have)
	return slices.Equal(have, want.HostComputeEndpoints) && slices.Equal(lb.PortMappings, want.PortMappings) &&
		slices.Equal(lb.FrontendVIPs, want.FrontendVIPs) && lb.Flags == want.Flags
}

// unprogram removes all load balancers and remote endpoints of this node.
func (n *Node) unprogram(ctx context.Context, w *state.Network) error {
	network, err := hcn.GetNetworkByName(n.o.Pods)
	switch {
	case hcn.IsNotFoundError(err):
		network = &hcn.HostComputeNetwork{} // its endpoints went with it
	case err != nil:
		return hcs.NetworkFailure("find the pods' network", err)
	}
	empty := *w
	empty.Services = nil
	return n.programIn(ctx, network, &empty)
}
