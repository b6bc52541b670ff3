package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

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
			key := fmt.Sprintf("%s . %d", strings.ToLower(port.Protocol), port.HostPort)
			value := fmt.Sprintf("%s . %d", p.ip, port.Container)
			if at, err := netip.ParseAddr(port.HostIP); err == nil && !at.IsUnspecified() {
				out[oneAddress][at.String()+" . "+key] = value
				continue
			}
			out[anyAddress][key] = value
		}
	}
	return out
}

// framePorts adds the maps and the rules that look into them.
func framePorts(tx *knftables.Transaction) {
	tx.Add(&knftables.Map{Name: anyAddress, Type: "inet_proto . inet_service : ipv4_addr . inet_service"})
	tx.Add(&knftables.Map{Name: oneAddress, Type: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"})
	const local = "meta l4proto { tcp, udp } fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to "
	tx.Add(&knftables.Rule{Chain: "find", Rule: local + "meta l4proto . th dport map @" + anyAddress})
	tx.Add(&knftables.Rule{Chain: "find", Rule: local + "ip daddr . meta l4proto . th dport map @" + oneAddress})
}

// changePorts programs the difference and returns what no longer leads anywhere.
func changePorts(tx *knftables.Transaction, old, now hostPorts) map[string]bool {
	gone := map[string]bool{}
	for _, name := range []string{anyAddress, oneAddress} {
		for _, key := range slices.Sorted(maps.Keys(old[name])) {
			if now[name][key] != old[name][key] {
				tx.Delete(&knftables.Element{Map: name, Key: strings.Split(key, " . "), Value: strings.Split(old[name][key], " . ")})
				gone[old[name][key]] = true
			}
		}
		for _, key := range slices.Sorted(maps.Keys(now[name])) {
			if now[name][key] != old[name][key] {
				tx.Add(&knftables.Element{Map: name, Key: strings.Split(key, " . "), Value: strings.Split(now[name][key], " . ")})
			}
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
		return c.Forward.Protocol == unix.IPPROTO_UDP && gone[fmt.Sprintf("%s . %d", addr(c.Reverse.SrcIP), c.Reverse.SrcPort)]
	})
}
