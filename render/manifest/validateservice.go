package manifest

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func (c *validator) service(p Path, s *corev1.ServiceSpec) {
	switch s.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
	case corev1.ServiceTypeLoadBalancer:
		c.fail(p.Key("type"), "not supported yet: LoadBalancer", "use type: NodePort")
	case corev1.ServiceTypeExternalName:
		c.fail(p.Key("type"), "not supported yet: ExternalName", "give the name to the containers, in env")
	default:
		c.fail(p.Key("type"), fmt.Sprintf("want ClusterIP or NodePort, got %q", clip(string(s.Type))), "type: ClusterIP")
	}
	c.affinity(p, s)
	c.traffic(p, s)
	c.families(p, s)
	if len(s.Ports) == 0 && s.ClusterIP != corev1.ClusterIPNone && s.Type != corev1.ServiceTypeExternalName {
		c.missing(p.Key("ports"), "add  ports: [{port: 80}], or clusterIP: None")
	}
	if len(s.Selector) == 0 && s.Type != corev1.ServiceTypeExternalName {
		c.note(p, "has no selector: nothing answers at the Service, since there are no objects of kind Endpoints", "add  selector: {app: NAME}, the labels of the pods that answer")
	}
	for _, k := range sortedKeys(s.Selector) {
		c.labelKey(p.Key("selector", k), k)
	}
	names, numbers, onNodes := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range s.Ports {
		port := &s.Ports[i]
		pp := p.Key("ports").At(i, port.Name)
		c.port(pp.Key("port"), int64(port.Port))
		c.protocol(pp.Key("protocol"), port.Protocol)
		if port.TargetPort.Type == intstr.Int {
			c.port(pp.Key("targetPort"), int64(port.TargetPort.IntVal))
		} else {
			c.portName(pp.Key("targetPort"), port.TargetPort.StrVal)
		}
		if port.Protocol == corev1.ProtocolSCTP && s.ClusterIP != corev1.ClusterIPNone {
			c.fail(pp.Key("protocol"), "not supported yet: SCTP at a Service's own address", "use clusterIP: None, so that clients ask for the pods' addresses")
		}
		if port.NodePort != 0 {
			c.nodePort(pp.Key("nodePort"), port, onNodes)
			if s.Type == corev1.ServiceTypeClusterIP {
				c.fail(pp.Key("nodePort"), "has no meaning with type ClusterIP", "set type: NodePort or remove it")
			}
		}
		if port.Name == "" && len(s.Ports) > 1 {
			c.missing(pp.Key("name"), "name each port where there are several")
		} else if port.Name != "" {
			c.name(pp.Key("name"), port.Name, nameLabel)
		}
		number := fmt.Sprintf("%d/%s", port.Port, port.Protocol)
		if (port.Name != "" && names[port.Name]) || numbers[number] {
			c.fail(pp, "is there twice", "give it another name and port")
		}
		names[port.Name], numbers[number] = true, true
	}
}

// Node ports are of Kubernetes's range: others are the machine's own, and a Service
// that takes them keeps everybody from what listens there.
const (
	nodePortFirst = 30000
	nodePortLast  = 32767
)

func (c *validator) nodePort(p Path, port *corev1.ServicePort, taken map[string]bool) {
	if port.NodePort < nodePortFirst || port.NodePort > nodePortLast {
		c.fail(p, fmt.Sprintf("must be between %d and %d, is %d", nodePortFirst, nodePortLast, port.NodePort), "give a port in that range, or remove it: one is chosen")
	}
	number := fmt.Sprintf("%d/%s", port.NodePort, port.Protocol)
	if taken[number] {
		c.fail(p, "is there twice", "give each port another one, or remove it: one is chosen")
	}
	taken[number] = true
}

// longestAffinity is Kubernetes's limit, a day.
const longestAffinity = 86400

func (c *validator) affinity(p Path, s *corev1.ServiceSpec) {
	if s.SessionAffinity != corev1.ServiceAffinityNone && s.SessionAffinity != corev1.ServiceAffinityClientIP {
		c.fail(p.Key("sessionAffinity"), fmt.Sprintf("want None or ClientIP, got %q", clip(string(s.SessionAffinity))), "sessionAffinity: None")
	}
	if s.SessionAffinityConfig == nil {
		return
	}
	cp := p.Key("sessionAffinityConfig")
	if s.SessionAffinity != corev1.ServiceAffinityClientIP {
		c.fail(cp, "has no meaning without sessionAffinity: ClientIP", "add sessionAffinity: ClientIP, or remove it")
	}
	if ip := s.SessionAffinityConfig.ClientIP; ip != nil && ip.TimeoutSeconds != nil && (*ip.TimeoutSeconds < 1 || *ip.TimeoutSeconds > longestAffinity) {
		c.fail(cp.Key("clientIP", "timeoutSeconds"), fmt.Sprintf("must be between 1 and %d, is %d", longestAffinity, *ip.TimeoutSeconds), "give a time in that range")
	}
}

// traffic validates which pods a connection may go to.
func (c *validator) traffic(p Path, s *corev1.ServiceSpec) {
	ep, ip := p.Key("externalTrafficPolicy"), p.Key("internalTrafficPolicy")
	switch s.ExternalTrafficPolicy {
	case "":
	case corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal:
		if s.Type == corev1.ServiceTypeClusterIP {
			c.fail(ep, "has no meaning with type ClusterIP", "set type: NodePort or remove it")
		}
	default:
		c.fail(ep, fmt.Sprintf("want Cluster or Local, got %q", clip(string(s.ExternalTrafficPolicy))), "externalTrafficPolicy: Cluster")
	}
	switch *s.InternalTrafficPolicy {
	case corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal:
	default:
		c.fail(ip, fmt.Sprintf("want Cluster or Local, got %q", clip(string(*s.InternalTrafficPolicy))), "internalTrafficPolicy: Cluster")
	}
	if s.ClusterIP == corev1.ClusterIPNone && s.Type == corev1.ServiceTypeNodePort {
		c.fail(p.Key("clusterIP"), "None goes with type ClusterIP alone: there is nothing for a node's port to lead to", "remove clusterIP, or type: NodePort")
	}
}

// families refuses what needs IPv6.
func (c *validator) families(p Path, s *corev1.ServiceSpec) {
	for i, f := range s.IPFamilies {
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			c.fail(p.Key("ipFamilies").At(i, ""), fmt.Sprintf("want IPv4, got %q", clip(string(f))), "leave it out, or say [IPv4]")
		}
	}
	if f := s.IPFamilyPolicy; f != nil && *f != corev1.IPFamilyPolicySingleStack && *f != corev1.IPFamilyPolicyPreferDualStack && *f != corev1.IPFamilyPolicyRequireDualStack {
		c.fail(p.Key("ipFamilyPolicy"), fmt.Sprintf("want SingleStack, got %q", clip(string(*f))), "ipFamilyPolicy: SingleStack")
	}
	if len(s.ClusterIPs) > 1 || len(s.ClusterIPs) == 1 && s.ClusterIPs[0] != s.ClusterIP {
		c.fail(p.Key("clusterIPs"), "want what clusterIP says, and nothing else", "remove clusterIPs")
	}
	if slices.Contains(s.IPFamilies, corev1.IPv6Protocol) {
		c.fail(p.Key("ipFamilies"), "not supported yet: IPv6", "leave it out, or say [IPv4]")
	}
	if s.IPFamilyPolicy != nil && *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		c.fail(p.Key("ipFamilyPolicy"), "not supported yet: IPv6", "ipFamilyPolicy: SingleStack")
	}
	if ip, err := netip.ParseAddr(s.ClusterIP); s.ClusterIP != "" && s.ClusterIP != corev1.ClusterIPNone && (err != nil || !ip.Is4()) {
		c.fail(p.Key("clusterIP"), fmt.Sprintf("want None or an IPv4 address, got %q", clip(s.ClusterIP)), "leave it out: one is given")
	}
}
