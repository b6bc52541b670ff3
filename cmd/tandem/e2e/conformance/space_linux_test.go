package conformance

import (
	"errors"
	"net"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// A space is a network namespace: it goes with its last handle and process.
type space struct{ *hosttest.Space }

func newSpace() (*space, error) {
	made, err := hosttest.NewSpace()
	return &space{made}, err
}

// start starts a process within the namespace.
func (s *space) start(cmd *exec.Cmd) error { return s.Do(cmd.Start) }

func up(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// bridge makes a segment of the namespace, with an address there.
func (s *space) bridge(name, address string) error {
	return s.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		return errors.Join(up(name, address), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	})
}

// plug joins another namespace to a segment as a machine with an address, that
// reaches everything else through the segment's own.
func (s *space) plug(bridge string, machine *space, name, address, router string) error {
	err := s.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		attrs.MasterIndex = master.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "up0", PeerNamespace: netlink.NsFd(machine.Fd())}
		return errors.Join(netlink.LinkAdd(veth), up(name))
	})
	if err != nil {
		return err
	}
	return machine.Do(func() error {
		if err := up("up0", address); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(router)})
	})
}
