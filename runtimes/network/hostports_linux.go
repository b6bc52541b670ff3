package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A published pod has ports of the machine.
type published struct {
	ip    netip.Addr
	ports []runtimes.Port
}

// Publish makes ports of this machine lead to a pod, until Withdraw. It doesn't
// block. Addresses of the loopback device don't lead there.
func (n *Node) Publish(uid state.UID, ip netip.Addr, ports []runtimes.Port) {
	n.mu.Lock()
	n.published[uid] = published{ip, ports}
	n.publication++
	n.mu.Unlock()
	n.wake()
}

// Withdraw takes the ports of a pod back.
func (n *Node) Withdraw(uid state.UID) {
	n.mu.Lock()
	if _, ok := n.published[uid]; ok {
		delete(n.published, uid)
		n.publication++
	}
	n.mu.Unlock()
	n.wake()
}

func (n *Node) wake() {
	select {
	case n.hint <- struct{}{}:
	default:
	}
}

// hostPorts are the elements of the maps of ports: key to value, by map.
type hostPorts map[string]map[string]string

// The maps of ports of all addresses of the machine, and of one.
const (
	anyAddress = "host-ports"
	oneAddress = "host-ports-at"
)

// wanted are the elements that the published pods need.
func wantedPorts(all map[state.UID]published) hostPorts {
	out := hostPorts{anyAddress: {}, oneAddress: {}}
	for _, uid := range slices.SortedFunc(maps.Keys(all), state.UID.Compare) {
		p := all[uid]
		for _, port := range p.ports {
			key := joined([]byte{number(strings.ToLower(port.Protocol))}, portBytes(port.HostPort))
			value := joined(p.ip.AsSlice(), portBytes(port.Container))
			if at, err := netip.ParseAddr(port.HostIP); err == nil && !at.IsUnspecified() {
				out[oneAddress][joined(at.AsSlice())+key] = value
				continue
			}
			out[anyAddress][key] = value
		}
	}
	return out
}

// gonePorts are what no longer leads anywhere.
func gonePorts(old, now hostPorts) map[string]bool {
	gone := map[string]bool{}
	for name := range old {
		for _, e := range lacking(now[name], old[name]) {
			gone[e.value] = true
		}
	}
	return gone
}

// cutPorts makes the kernel forget datagrams' flows to pods that have lost their
// ports.
func cutPorts(gone map[string]bool) error {
	if len(gone) == 0 {
		return nil
	}
	return forget(func(c *netlink.ConntrackFlow) bool {
		return c.Forward.Protocol == unix.IPPROTO_UDP && gone[joined(addr(c.Reverse.SrcIP).AsSlice(), portBytes(c.Reverse.SrcPort))]
	})
}
