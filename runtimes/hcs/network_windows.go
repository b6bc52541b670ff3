package hcs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/Microsoft/hcsshim/hcn"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

var schema2 = hcn.SchemaVersion{Major: 2, Minor: 0} //nolint:gochecknoglobals // a constant, were structs allowed to be

func networkType(name string) (hcn.NetworkType, error) {
	switch name {
	case "", "nat":
		return hcn.NAT, nil
	case "l2bridge":
		return hcn.L2Bridge, nil
	}
	return "", fmt.Errorf("%w: network %q; use nat or l2bridge", runtimes.ErrUnsupported, name)
}

func (r *Runtime) endpointName(uid state.UID) string { return "tandem-" + r.id + "-" + uid.String() }

// gateway is the first address of a range.
func gateway(p netip.Prefix) string { return p.Masked().Addr().Next().String() }

// NetworkFailure gives an error of the network service its class, its reason and
// its remedy.
func NetworkFailure(op string, err error) error { return hcnFailure(op, err) }

// hcnFailure gives an error of the network service its class.
func hcnFailure(op string, err error) error {
	if code := codeOf(err); code != 0 {
		return &Error{Op: op, Code: code}
	}
	if hcn.IsNotFoundError(err) {
		return fmt.Errorf("%s: %w: %w", op, runtimes.ErrNotFound, err)
	}
	if strings.Contains(err.Error(), "computenetwork.dll") {
		return fmt.Errorf("%s: %w: %w; install the feature Containers", op, runtimes.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w: %w", op, runtimes.ErrUnavailable, err)
}

// NetworkName is what the pods' network is called.
func (r *Runtime) NetworkName() string { return "tandem-" + r.id }

// SetRange gives the node the addresses of its pods, and makes their network
// where it isn't there: also after the network service has lost it. A network of
// another range, of a former node of this machine say, is made anew once its pods
// have gone.
func (r *Runtime) SetRange(block netip.Prefix) error {
	if err := checkRange(block); err != nil {
		return err
	}
	if err := r.moveRange(block.Masked()); err != nil {
		return err
	}
	_, err := r.ensureNetwork()
	return err
}

func (r *Runtime) moveRange(block netip.Prefix) error {
	r.network.Lock()
	defer r.network.Unlock()
	r.o.Range = block
	found, err := hcn.GetNetworkByName(r.NetworkName())
	switch {
	case hcn.IsNotFoundError(err):
		return nil
	case err != nil:
		return hcnFailure("find the network", err)
	case len(found.Ipams) == 1 && len(found.Ipams[0].Subnets) == 1 && found.Ipams[0].Subnets[0].IpAddressPrefix == block.String():
		return nil
	}
	r.mu.Lock()
	still := len(r.pods)
	r.mu.Unlock()
	if still > 0 {
		return fmt.Errorf("%w: %d pods have addresses of another range than %s; they end first", runtimes.ErrUnavailable, still, block)
	}
	if err := found.Delete(); err != nil && !hcn.IsNotFoundError(err) {
		return hcnFailure("remove the network of another range", err)
	}
	return nil
}

func checkRange(p netip.Prefix) error {
	if !p.Addr().Is4() || p.Bits() > 29 {
		return fmt.Errorf("%w: pod range %s: want an IPv4 range of at least eight addresses", runtimes.ErrRejected, p)
	}
	return nil
}

// gatewayNow is that of the range as it is now.
func (r *Runtime) gatewayNow() string {
	r.network.Lock()
	defer r.network.Unlock()
	return gateway(r.o.Range)
}

// ensureNetwork finds the node's network or makes it: also after somebody, or an
// update of Windows, has emptied the network service.
func (r *Runtime) ensureNetwork() (*hcn.HostComputeNetwork, error) {
	r.network.Lock()
	defer r.network.Unlock()
	found, err := hcn.GetNetworkByName(r.NetworkName())
	if err == nil {
		return found, nil
	}
	if !hcn.IsNotFoundError(err) {
		return nil, hcnFailure("find the network", err)
	}
	kind, err := networkType(r.o.Network)
	if err != nil {
		return nil, err
	}
	n := &hcn.HostComputeNetwork{
		Name: r.NetworkName(), Type: kind, SchemaVersion: schema2,
		Ipams: []hcn.Ipam{{Type: "Static", Subnets: []hcn.Subnet{{
			IpAddressPrefix: r.o.Range.Masked().String(),
			Routes:          []hcn.Route{{NextHop: gateway(r.o.Range), DestinationPrefix: "0.0.0.0/0"}},
		}}}},
	}
	made, err := n.Create()
	if err != nil {
		return nil, hcnFailure("make the network", err)
	}
	return made, nil
}

// dropNetwork removes the node's network.
func (r *Runtime) dropNetwork() error {
	r.network.Lock()
	defer r.network.Unlock()
	found, err := hcn.GetNetworkByName(r.NetworkName())
	if err == nil {
		err = found.Delete()
	}
	if err != nil && !hcn.IsNotFoundError(err) {
		return hcnFailure("remove the network", err)
	}
	return nil
}

// dns reads the lines of a resolv.conf.
func dns(lines []string) hcn.Dns {
	var d hcn.Dns
	for _, line := range lines {
		switch f := strings.Fields(line); {
		case len(f) < 2:
		case f[0] == "nameserver":
			d.ServerList = append(d.ServerList, f[1])
		case f[0] == "search":
			d.Search = slices.Clone(f[1:])
			d.Domain = f[1] // Windows' resolver looks at one suffix alone
		case f[0] == "options":
			d.Options = slices.Clone(f[1:])
		}
	}
	return d
}

// protocols by name, as the network service counts them.
func protocol(name string) (uint32, error) {
	switch strings.ToUpper(name) {
	case "", "TCP":
		return 6, nil
	case "UDP":
		return 17, nil
	}
	return 0, fmt.Errorf("%w: host port of protocol %s; use TCP or UDP", runtimes.ErrUnsupported, name)
}

func portPolicies(ports []runtimes.Port) ([]hcn.EndpointPolicy, error) {
	var policies []hcn.EndpointPolicy
	for _, p := range ports {
		number, err := protocol(p.Protocol)
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(hcn.PortMappingPolicySetting{Protocol: number, InternalPort: p.Container, ExternalPort: p.HostPort, VIP: p.HostIP})
		if err != nil {
			return nil, err
		}
		policies = append(policies, hcn.EndpointPolicy{Type: hcn.PortMapping, Settings: raw})
	}
	return policies, nil
}

// attach gives a pod its namespace and its address. What was made is in the
// record before the next is.
func (r *Runtime) attach(p *pod, s *runtimes.Sandbox) error {
	policies, err := portPolicies(s.Ports)
	if err != nil {
		return err
	}
	network, err := r.ensureNetwork()
	if err != nil {
		return err
	}
	if p.record.Isolation != state.HyperV { // a guest has the endpoint itself
		namespace, err := hcn.NewNamespace(hcn.NamespaceTypeGuest).Create()
		if err != nil {
			return hcnFailure("make the network namespace", err)
		}
		p.record.Network = namespace.Id
		if err := p.save(); err != nil {
			return err
		}
	}
	endpoint, err := network.CreateEndpoint(&hcn.HostComputeEndpoint{
		Name: r.endpointName(s.UID), Policies: policies, Dns: dns(s.DNS), SchemaVersion: schema2,
		Routes: []hcn.Route{{NextHop: r.gatewayNow(), DestinationPrefix: "0.0.0.0/0"}},
	})
	if err != nil {
		return hcnFailure("make the endpoint", err)
	}
	p.record.Endpoint = endpoint.Id
	if len(endpoint.IpConfigurations) == 0 {
		return fmt.Errorf("make the endpoint: %w: the network service gave it no address", runtimes.ErrUnavailable)
	}
	p.record.IP = endpoint.IpConfigurations[0].IpAddress
	if err := p.save(); err != nil {
		return err
	}
	if p.record.Network == "" {
		return nil
	}
	if err := hcn.AddNamespaceEndpoint(p.record.Network, endpoint.Id); err != nil {
		return hcnFailure("attach the endpoint", err)
	}
	return nil
}

// detach removes what attach made. What isn't there is fine.
func (r *Runtime) detach(p *pod) error {
	var errs []error
	endpoint, err := hcn.GetEndpointByName(r.endpointName(p.record.UID))
	if err == nil {
		if p.record.Network != "" {
			// It goes with the endpoint where the service has forgotten the namespace.
			_ = hcn.RemoveNamespaceEndpoint(p.record.Network, endpoint.Id)
		}
		err = endpoint.Delete()
	}
	if err != nil && !hcn.IsNotFoundError(err) {
		errs = append(errs, hcnFailure("remove the endpoint", err))
	}
	if p.record.Network != "" {
		namespace, err := hcn.GetNamespaceByID(p.record.Network)
		if err == nil {
			err = namespace.Delete()
		}
		if err != nil && !hcn.IsNotFoundError(err) {
			errs = append(errs, hcnFailure("remove the network namespace", err))
		}
	}
	return errors.Join(errs...)
}
