package conformance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A space is a network namespace: it goes with its last handle and process.
type space struct{ file *os.File }

func newSpace() (*space, error) {
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, err}
			return
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		result <- made{f, err}
	}()
	m := <-result
	if m.err != nil {
		return nil, m.err
	}
	s := &space{m.file}
	return s, s.do(func() error { return up("lo") })
}

// do runs f on a thread within the namespace; what it opens or starts stays
// there.
func (s *space) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// start starts a process within the namespace.
func (s *space) start(cmd *exec.Cmd) error { return s.do(cmd.Start) }

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
	return s.do(func() error {
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
	err := s.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		attrs.MasterIndex = master.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "up0", PeerNamespace: netlink.NsFd(int(machine.file.Fd()))}
		return errors.Join(netlink.LinkAdd(veth), up(name))
	})
	if err != nil {
		return err
	}
	return machine.do(func() error {
		if err := up("up0", address); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(router)})
	})
}
