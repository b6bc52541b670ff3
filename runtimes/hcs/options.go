package hcs

import (
	"log/slog"
	"net/netip"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// Options say where a node keeps its things and what it may use.
type Options struct {
	Node state.NodeName
	// Dir holds layers, records of pods and scratch space; on NTFS.
	Dir string
	// Range has the addresses of this node's pods; zero: 10.89.0.0/24.
	Range netip.Prefix
	// Network is the kind of the pods' network: nat (also where empty), l2bridge.
	Network string
	// Address is the machine's own.
	Address string
	// Reserve is kept from pods for the machine itself.
	Reserve state.Resources
	// Labels and Taints are passed on by Describe.
	Labels map[string]string
	Taints []state.Taint
	// Images is where content comes from.
	Images *images.Store
	// Keeper is a command line that calls Keep with what is appended to it,
	// such as {`C:\tandem\tandem.exe`, "agent", "keep"}.
	Keeper []string
	Logger *slog.Logger
}

// A Finding is one thing that this machine must have to be a Windows node.
type Finding struct {
	Name   string // "computecore"
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
