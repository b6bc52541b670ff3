package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What Windows's overlay networks speak: their first virtual subnet, on the port
// that IANA gave VXLAN (RFC 7348).
const (
	vxlanID   = 4096
	vxlanPort = 4789
	vxlanHead = 50 // bytes that a packet grows by
)

// vxlanName is the tunnel's device of this node.
func (n *Node) vxlanName() string { return "td" + n.o.ID + "x" }

// vxlanMAC is a node's address at the far end of the tunnel: made of its address,
// so that nobody needs to be told it.
func vxlanMAC(node netip.Addr) net.HardwareAddr {
	b := node.As4()
	return net.HardwareAddr{0x0e, 0x54, b[0], b[1], b[2], b[3]}
}

// tunnel sees to the device through which the pods of far nodes are reached, and
// tells it where they are. It returns the routes there. Without far nodes there
// is no device.
func (n *Node) tunnel(own netip.Prefix, far map[netip.Prefix]netip.Addr) ([]*netlink.Route, int, error) {
	if len(far) == 0 {
		return nil, 0, n.closeTunnel()
	}
	var peer netip.Addr
	for _, a := range far {
		peer = a
	}
	found, err := netlink.RouteGet(peer.AsSlice())
	if err != nil || len(found) == 0 {
		return nil, 0, fmt.Errorf("find the way to node %s: %w", peer, err)
	}
	local, _ := netip.AddrFromSlice(found[0].Src.To4())
	if n.o.Address.Is4() {
		local = n.o.Address
	}
	under, err := netlink.LinkByIndex(found[0].LinkIndex)
	if err != nil {
		return nil, 0, err
	}
	link, err := n.openTunnel(local, under.Attrs().MTU-vxlanHead)
	if err != nil {
		return nil, 0, fmt.Errorf("make the tunnel %s: %w", n.vxlanName(), err)
	}
	index := link.Attrs().Index
	var routes []*netlink.Route
	kept := map[string]bool{}
	for block, node := range far {
		mac, gate := vxlanMAC(node), block.Masked().Addr()
		err := errors.Join(
			netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, IP: node.AsSlice(), HardwareAddr: mac}),
			netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: gate.AsSlice(), HardwareAddr: mac}),
		)
		if err != nil {
			return nil, 0, fmt.Errorf("tell the tunnel of node %s: %w", node, err)
		}
		kept[mac.String()] = true
		routes = append(routes, &netlink.Route{
			Dst: ipNet(block), Gw: gate.AsSlice(), LinkIndex: index, Flags: int(netlink.FLAG_ONLINK), Src: own.Addr().AsSlice(), Protocol: protocol,
		})
	}
	return routes, index, forgetNeighbours(index, kept)
}

// openTunnel makes the device, or finds it as it should be.
func (n *Node) openTunnel(local netip.Addr, mtu int) (netlink.Link, error) {
	have, err := netlink.LinkByName(n.vxlanName())
	if err == nil {
		v, ok := have.(*netlink.Vxlan)
		if ok && v.VxlanId == vxlanID && v.Port == vxlanPort && v.SrcAddr.Equal(local.AsSlice()) && v.MTU == mtu {
			return have, netlink.LinkSetUp(have)
		}
		if err := netlink.LinkDel(have); err != nil {
			return nil, err
		}
	} else if _, ok := errors.AsType[netlink.LinkNotFoundError](err); !ok {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = n.vxlanName(), mtu, vxlanMAC(local)
	err = netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: vxlanID, Port: vxlanPort, SrcAddr: local.AsSlice(), Learning: false})
	if errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("another device of this machine has VXLAN %d on port %d; remove it (ip -d link show type vxlan), or put the nodes on one segment: %w", vxlanID, vxlanPort, err)
	}
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(n.vxlanName())
	if err != nil {
		return nil, err
	}
	return link, netlink.LinkSetUp(link)
}

// forgetNeighbours removes what the tunnel knows of nodes that are none any more.
func forgetNeighbours(index int, kept map[string]bool) error {
	var errs []error
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET} {
		have, err := netlink.NeighList(index, family)
		if err != nil {
			return fmt.Errorf("list what the tunnel knows: %w", err)
		}
		for i := range have {
			if h := &have[i]; len(h.HardwareAddr) == 6 && h.HardwareAddr[0] == 0x0e && h.HardwareAddr[1] == 0x54 && !kept[h.HardwareAddr.String()] {
				h.Family = family
				if family == unix.AF_BRIDGE {
					h.Flags = netlink.NTF_SELF
				}
				if err := netlink.NeighDel(h); err != nil && !errors.Is(err, unix.ENOENT) {
					errs = append(errs, fmt.Errorf("make the tunnel forget %s: %w", h.IP, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// closeTunnel removes the device; none is fine.
func (n *Node) closeTunnel() error {
	link, err := netlink.LinkByName(n.vxlanName())
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the tunnel: %w", err)
	}
	return nil
}
