package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// protocol is the number by which routes say who made them.
const protocol = 0x54

// ranges are the cluster's: of its pods and of its Services.
type ranges struct{ pods, services netip.Prefix }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func host(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)} }

// route gives this node its address among its pods, and routes: to Services (so
// that a client on the host has that address as its own), to other nodes' pods,
// and to nowhere for addresses that no pod has.
func (n *Node) route(ctx context.Context, at *place) error {
	own, cluster := at.own, &at.cluster

	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
	}
	if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: host(own.Addr())}); err != nil {
		return fmt.Errorf("give this node the address %s: %w", own.Addr(), err)
	}
	wanted := []*netlink.Route{
		{Dst: ipNet(cluster.services), LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: own.Addr().AsSlice(), Protocol: protocol},
		{Dst: ipNet(own), Type: unix.RTN_UNREACHABLE, Protocol: protocol},
	}
	devices := defaultDevices()
	far := map[netip.Prefix]netip.Addr{} // to be reached through the tunnel
	for block, gw := range at.peers {
		found, err := netlink.RouteGet(gw.AsSlice())
		switch {
		case err != nil || len(found) == 0:
			n.warn(ctx, block, "there is no way to it", gw, err)
			continue
		case found[0].Type == unix.RTN_LOCAL:
			continue // on this machine: its pods have routes of their own
		case at.routing == state.RoutingVXLAN, found[0].Gw != nil && at.routing != state.RoutingRoutes:
			delete(n.warned, block)
			far[block] = gw
			continue
		case found[0].Gw != nil:
			n.warn(ctx, block, "it is behind a router, and the cluster's routing is routes: put the nodes on one segment, or choose auto or vxlan", gw, nil)
			continue
		}
		delete(n.warned, block)
		devices[found[0].LinkIndex] = true
		wanted = append(wanted, &netlink.Route{Dst: ipNet(block), Gw: gw.AsSlice(), LinkIndex: found[0].LinkIndex, Protocol: protocol})
	}
	routes, tunnel, err := n.tunnel(own, far)
	if err != nil {
		return err
	}
	if tunnel != 0 {
		devices[tunnel] = true
	}
	wanted = append(wanted, routes...)
	for _, r := range wanted {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %s: %w", r.Dst, err)
		}
	}
	return errors.Join(n.unroute(cluster, wanted), n.forward(devices))
}

// warn says once why a node's pods can't be reached.
func (n *Node) warn(ctx context.Context, block netip.Prefix, what string, gw netip.Addr, err error) {
	if n.warned[block] != what {
		n.warned[block] = what
		n.log.LogAttrs(ctx, slog.LevelWarn, "left the pods of another node out of reach", slog.String("why", what), slog.String("range", block.String()), slog.String("address", gw.String()), slog.Any("err", err))
	}
}

// unroute removes routes of ours within the cluster's ranges that aren't wanted.
func (n *Node) unroute(cluster *ranges, wanted []*netlink.Route) error {
	have, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	for i := range have {
		r := &have[i]
		if r.Dst == nil {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		ours := cluster.pods.Contains(addr) || cluster.services.Contains(addr)
		if !ours || slices.ContainsFunc(wanted, func(w *netlink.Route) bool { return w.Dst.String() == r.Dst.String() }) {
			continue
		}
		if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the route to %s: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// defaultDevices are those that lead out of this machine.
func defaultDevices() map[int]bool {
	out := map[int]bool{}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return out
	}
	for _, r := range routes {
		if ones := 0; r.Dst != nil {
			if ones, _ = r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if r.LinkIndex != 0 {
			out[r.LinkIndex] = true
		}
	}
	return out
}

// forward lets answers to pods in through the devices that lead to others. Of
// what it switches on it keeps a note, to switch it off at the end.
func (n *Node) forward(devices map[int]bool) error {
	var errs []error
	for index := range devices {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			continue // it went
		}
		name := link.Attrs().Name
		path := "/proc/sys/net/ipv4/conf/" + name + "/forwarding"
		raw, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(raw)) == "1" {
			continue
		}
		n.saved.Forwarding = append(n.saved.Forwarding, name)
		errs = append(errs, n.save(), os.WriteFile(path, []byte("1"), 0))
	}
	return errors.Join(errs...)
}

// clear removes what route made.
func (n *Node) clear(own netip.Prefix, cluster *ranges) error {
	var errs []error
	if lo, err := netlink.LinkByName("lo"); err == nil && own.IsValid() {
		err := netlink.AddrDel(lo, &netlink.Addr{IPNet: host(own.Addr())})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove the address %s: %w", own.Addr(), err))
		}
	}
	errs = append(errs, n.unroute(cluster, nil), n.closeTunnel())
	for _, name := range n.saved.Forwarding {
		err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/forwarding", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// MachineAddress is the address by which other machines know this one: of the
// device that leads out. It is empty where none does.
func MachineAddress() string {
	for index := range defaultDevices() {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			continue
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a.Scope == int(netlink.SCOPE_UNIVERSE) {
				return a.IP.String()
			}
		}
	}
	return ""
}
