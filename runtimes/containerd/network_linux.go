package containerd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The gateway that every pod has: a link-local address that nobody owns,
// because each veth answers for it.
func gateway() net.IP { return net.IPv4(169, 254, 1, 1).To4() }

// linkName is the host's end of a pod's veth. It names the node's directory and
// the address, so the sweep knows ours and which pod it was. No range is wider
// than what two bytes tell apart.
func (r *Runtime) linkName(addr netip.Addr) string {
	b := addr.As4()
	return fmt.Sprintf("%s%x", r.linkPrefix(), uint16(b[2])<<8|uint16(b[3]))
}

func (r *Runtime) linkPrefix() string { return "td" + r.id + "." }

// connect joins the pod's network namespace to the host by a routed veth: a /32
// in the pod, a route to it on the host, and neighbours set by hand so that no
// ARP is needed. Packets that come from the pod are forwarded; no setting of
// the host itself is changed.
func (r *Runtime) connect(pin string, addr netip.Addr) error {
	file, err := os.Open(pin)
	if err != nil {
		return err
	}
	defer file.Close()
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(int(file.Fd())))
	if err != nil {
		return err
	}
	defer inside.Close()

	name := r.linkName(addr)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(file.Fd()))}
	if err := host.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth %s: %w", name, err)
	}
	outer, err := host.LinkByName(name)
	if err != nil {
		return err
	}
	inner, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := inPod(inside, inner, outer.Attrs().HardwareAddr, addr); err != nil {
		return err
	}
	return onHost(host, outer, inner.Attrs().HardwareAddr, addr)
}

func inPod(h *netlink.Handle, link netlink.Link, peer net.HardwareAddr, addr netip.Addr) error {
	ip := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	index := link.Attrs().Index
	return errors.Join(
		h.AddrAdd(link, &netlink.Addr{IPNet: ip}),
		h.LinkSetUp(link),
		h.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: gateway(), HardwareAddr: peer}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gateway(), Mask: net.CIDRMask(32, 32)}}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway()}),
	)
}

func onHost(h *netlink.Handle, link netlink.Link, peer net.HardwareAddr, addr netip.Addr) error {
	index := link.Attrs().Index
	err := errors.Join(
		h.LinkSetUp(link),
		h.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: peer}),
		h.RouteReplace(&netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}),
	)
	if err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/conf/"+link.Attrs().Name+"/forwarding", []byte("1"), 0)
}

// disconnect removes a veth; the pod's end goes with it.
func disconnect(name string) error {
	link, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find veth %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove veth %s: %w", name, err)
	}
	return nil
}

// sweepLinks removes veths of ours that belong to no pod.
func (r *Runtime) sweepLinks(known map[string]bool) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, r.linkPrefix()) && !known[name] {
			errs = append(errs, disconnect(name))
		}
	}
	return errors.Join(errs...)
}
