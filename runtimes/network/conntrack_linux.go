package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A flow picks entries of the connection table.
type flow func(f *netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flow) MatchConntrackFlow(c *netlink.ConntrackFlow) bool { return f(c) }

// A target is where a UDP datagram to a Service went: the kernel keeps sending
// there as long as datagrams come.
type target struct {
	to   netip.AddrPort // the Service's; without address: a node port
	from netip.Addr     // who answered
}

// lost are the targets that old has and now hasn't.
func lost(old, now *state.Service) map[target]bool {
	out := targets(old)
	for t := range targets(now) {
		delete(out, t)
	}
	return out
}

func targets(s *state.Service) map[target]bool {
	out := map[target]bool{}
	if s == nil || s.IP == "" {
		return out
	}
	ip, _ := netip.ParseAddr(s.IP)
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Protocol != "UDP" {
			continue
		}
		for j := range s.Endpoints {
			e := &s.Endpoints[j]
			from, err := netip.ParseAddr(e.IP)
			if err != nil || i >= len(e.Ports) || e.Ports[i] == 0 {
				continue
			}
			out[target{netip.AddrPortFrom(ip, uint16(p.Port)), from}] = true
			if p.NodePort != 0 {
				out[target{netip.AddrPortFrom(netip.Addr{}, uint16(p.NodePort)), from}] = true
			}
		}
	}
	return out
}

// cut makes the kernel forget flows to targets that are lost.
func cut(gone map[target]bool) error {
	if len(gone) == 0 {
		return nil
	}
	return forget(func(c *netlink.ConntrackFlow) bool {
		if c.Forward.Protocol != unix.IPPROTO_UDP {
			return false
		}
		from := addr(c.Reverse.SrcIP)
		return gone[target{netip.AddrPortFrom(addr(c.Forward.DstIP), c.Forward.DstPort), from}] ||
			gone[target{netip.AddrPortFrom(netip.Addr{}, c.Forward.DstPort), from}]
	})
}

// came are the machine's UDP ports among the elements of maps that now has and old
// hasn't.
func came(old, now map[string]string) map[uint16]bool {
	out := map[uint16]bool{}
	for _, e := range lacking(old, now) {
		if k := len(e.key); e.key[k-8] == unix.IPPROTO_UDP { // the protocol and the port come last
			out[binary.BigEndian.Uint16([]byte(e.key[k-4:]))] = true
		}
	}
	return out
}

// divert makes the kernel forget flows to UDP ports of this machine that went to
// the machine itself: where a flow goes is settled by its first datagram, which
// came before the port led to a pod.
func divert(ports map[uint16]bool) error {
	if len(ports) == 0 {
		return nil
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the machine's addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addresses {
		if at := addr(a.IP); !at.IsLoopback() {
			own[at] = true
		}
	}
	return forget(func(c *netlink.ConntrackFlow) bool {
		to := addr(c.Forward.DstIP)
		return c.Forward.Protocol == unix.IPPROTO_UDP && ports[c.Forward.DstPort] && own[to] &&
			addr(c.Reverse.SrcIP) == to && c.Reverse.SrcPort == c.Forward.DstPort
	})
}

func forget(which flow) error {
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, which); err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	return nil
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}
