package network

import (
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
