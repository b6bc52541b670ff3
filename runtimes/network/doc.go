// Package network makes one Service over all nodes, on each node.
//
//	reconciler ──Network──► runtimes/agent ──► [ network ] ──► nftables, routes, DNS
//
// In: what the machine says of nodes and Services, whole, the newest counting.
// Out: rules in a table of this node's own, routes to other nodes' pods, an
// address for this node among its pods, and a DNS server there. Changes are
// programmed as differences; what somebody else changed in the table is written
// anew as soon as the kernel says so. It refuses to know how pods get their links (the
// runtime's affair) and who is ready (the machine's).
//
// On Windows, load balancers of the network service take the place of the table,
// looked at again every 15 s; there is no DNS server, no tunnel and no route.
//
// Nodes on one segment reach each other's pods by routes, others through VXLAN
// (4096 on UDP port 4789), which routers between them must let through. The
// cluster's routing can ask for one of the two alone.
//
// What is not there: IPv6, NetworkPolicy, load balancers and CNI plugins.
package network

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Options say who this node is.
type Options struct {
	Node state.NodeName
	// ID tells nodes of one machine apart: letters and digits. It is part of the
	// table's name.
	ID string
	// Dir keeps the newest network, for a start without the controller.
	Dir string
	// Address is the machine's own, where tunnels end; zero: that of the device
	// which leads to the others.
	Address netip.Addr
	// NetNS is the path of the network namespace that the node lives in; empty:
	// the process's.
	NetNS string
	// Resolv is the file that says which servers know other names; empty:
	// /etc/resolv.conf.
	Resolv string
	// Pods is the name of the pods' network, on Windows; the runtime's Ranged makes
	// it.
	Pods string
	// Ranged is told this node's range before the first pod asks for an address.
	// On Windows also whenever the network is looked at again: what is lost is
	// made anew.
	Ranged func(netip.Prefix) error
	// Look is how often to look whether the rules are still there; zero: 30 s.
	Look   time.Duration
	Logger *slog.Logger
}

// Zone is the domain of Services.
const Zone = "cluster.local."
