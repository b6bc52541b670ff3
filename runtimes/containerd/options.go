package containerd

import (
	"log/slog"
	"net/netip"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// Options say where a node keeps its things and what it may use.
type Options struct {
	Node state.NodeName
	// Dir holds images and snapshots; they survive a reboot.
	Dir string
	// RunDir holds sockets, namespaces and records of pods; it must not survive
	// a reboot. Empty: a directory of Dir's own below /run/tandem.
	RunDir string
	// Socket is of a containerd that somebody else keeps running; empty: a
	// private one is started and supervised.
	Socket string
	// Range has the addresses of this node's pods; zero: 10.88.0.0/24.
	Range netip.Prefix
	// Address is the machine's own; pods on the host's network have it.
	Address string
	// Reserve is kept from pods for the machine itself.
	Reserve state.Resources
	// Labels and Taints are passed on by Describe.
	Labels map[string]string
	Taints []state.Taint
	// Ports makes ports of the machine lead to pods; nil: pods that want some are
	// refused.
	Ports Publisher
	// Images is where content comes from.
	Images *images.Store
	// Binary and Runc are programs; empty: containerd and runc in PATH.
	Binary, Runc string
	Logger       *slog.Logger
}

// A Publisher makes ports of the machine lead to pods. It doesn't block.
type Publisher interface {
	Publish(uid state.UID, ip netip.Addr, ports []runtimes.Port)
	Withdraw(uid state.UID)
}

// A Finding is one thing that this machine must have to be a Linux node.
type Finding struct {
	Name   string // "containerd"
	OK     bool
	Fatal  bool   // when not OK: nothing runs without it
	Detail string // what was found
	Remedy string // when not OK: what to do
}

// Usable says whether no finding is fatal.
func Usable(findings []Finding) bool {
	for _, f := range findings {
		if f.Fatal && !f.OK {
			return false
		}
	}
	return true
}
