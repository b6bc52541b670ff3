package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// podNetwork validates how a pod sees the network and is seen there.
func (c *validator) podNetwork(p Path, s *corev1.PodSpec) {
	switch s.DNSPolicy {
	case corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault:
	case corev1.DNSNone:
		if s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0 {
			c.missing(p.Key("dnsConfig", "nameservers"), "dnsPolicy None has no servers of its own: name one, or use ClusterFirst")
		}
	default:
		c.fail(p.Key("dnsPolicy"), fmt.Sprintf("there is no policy %q", clip(string(s.DNSPolicy))), "use ClusterFirst, ClusterFirstWithHostNet, Default or None")
	}
	if s.DNSConfig != nil {
		c.dnsConfig(p.Key("dnsConfig"), s.DNSConfig)
	}
	for i, h := range s.HostAliases {
		hp := p.Key("hostAliases").At(i, "")
		c.ipv4(hp.Key("ip"), h.IP)
		for j, name := range h.Hostnames {
			if len(validation.IsDNS1123Subdomain(name)) > 0 {
				c.fail(hp.Key("hostnames").At(j, ""), fmt.Sprintf("%q is no name of a host", clip(name)), "use lower-case letters, digits, '-' and '.'")
			}
		}
	}
	if l := s.ActiveDeadlineSeconds; l != nil && *l < 1 {
		c.fail(p.Key("activeDeadlineSeconds"), "must be 1 or more", "remove it")
	}
	for i, r := range s.ImagePullSecrets {
		if r.Name == "" {
			c.missing(p.Key("imagePullSecrets").At(i, "").Key("name"), "name the Secret")
		}
	}
	for i, ctl := range s.SecurityContext.Sysctls {
		c.sysctl(p.Key("securityContext", "sysctls").At(i, "").Key("name"), ctl.Name, s.HostNetwork)
	}
}

func (c *validator) dnsConfig(p Path, d *corev1.PodDNSConfig) {
	if len(d.Nameservers) > 3 {
		c.fail(p.Key("nameservers"), fmt.Sprintf("has %d servers, resolvers ask three", len(d.Nameservers)), "keep three")
	}
	for i, at := range d.Nameservers {
		c.ipv4(p.Key("nameservers").At(i, ""), at)
	}
	if len(d.Searches) > 32 {
		c.fail(p.Key("searches"), fmt.Sprintf("has %d paths, resolvers take 32", len(d.Searches)), "keep 32")
	}
	for i, o := range d.Options {
		if o.Name == "" {
			c.missing(p.Key("options").At(i, "").Key("name"), "name the option, such as ndots")
		}
	}
}

func (c *validator) ipv4(p Path, text string) {
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		c.fail(p, fmt.Sprintf("%q is no address", clip(text)), "write an IPv4 address, such as 192.0.2.7")
	case !ip.Is4():
		c.fail(p, "not supported yet: IPv6", "write an IPv4 address")
	}
}

// safeSysctls are those that a pod's own namespaces hold: Kubernetes's list of
// safe ones.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
		"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
	}
}

func (c *validator) sysctl(p Path, name string, hostNetwork bool) {
	switch {
	case !slices.Contains(safeSysctls(), name):
		c.fail(p, fmt.Sprintf("%q is none that a pod may set", clip(name)), "use one of "+strings.Join(safeSysctls(), ", "))
	case hostNetwork && strings.HasPrefix(name, "net."):
		c.fail(p, "would be the machine's own: the pod is on its network", "remove it, or hostNetwork")
	}
}

// hostPort validates a port of the machine. On the machine's network every port
// is one.
func (c *validator) hostPort(p Path, port *corev1.ContainerPort) {
	if port.HostPort != 0 {
		c.port(p.Key("hostPort"), int64(port.HostPort))
	}
	if port.HostIP != "" {
		c.ipv4(p.Key("hostIP"), port.HostIP)
	}
	if port.HostPort != 0 && port.Protocol == corev1.ProtocolSCTP {
		c.fail(p.Key("hostPort"), "not supported yet with SCTP", "use TCP or UDP")
	}
}

// hostNetworkPorts wants the ports of a pod on the machine's network to be the
// machine's.
func (c *validator) hostNetworkPorts(p Path, ports []corev1.ContainerPort) {
	for i := range ports {
		if h := ports[i].HostPort; h != 0 && h != ports[i].ContainerPort {
			c.fail(p.At(i, ports[i].Name).Key("hostPort"), fmt.Sprintf("is %d, the container's is %d: with hostNetwork they are the same", h, ports[i].ContainerPort), "remove it")
		}
	}
}

func (c *validator) propagation(p Path, mode corev1.MountPropagationMode, ct *corev1.Container) {
	switch mode {
	case corev1.MountPropagationNone, corev1.MountPropagationHostToContainer:
	case corev1.MountPropagationBidirectional:
		if sc := ct.SecurityContext; sc == nil || sc.Privileged == nil || !*sc.Privileged {
			c.fail(p, "Bidirectional is for privileged containers alone", "use HostToContainer, or securityContext.privileged: true")
		}
	default:
		c.fail(p, fmt.Sprintf("there is no mode %q", clip(string(mode))), "use None, HostToContainer or Bidirectional")
	}
}
