//go:build !linux

package network

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Node exists on Linux only.
type Node struct{}

// Missing says that this isn't Linux.
func Missing() string { return "this is " + runtime.GOOS + ", Services are served on Linux" }

// MachineAddress is not known here.
func MachineAddress() string { return "" }

// Open refuses.
func Open(Options) (*Node, error) {
	return nil, fmt.Errorf("serve Services on %s: %w: use a Linux machine", runtime.GOOS, runtimes.ErrUnsupported)
}

// Update does nothing.
func (*Node) Update(*state.Network) {}

// Resolver refuses.
func (*Node) Resolver(context.Context, string) ([]string, error) { return nil, runtimes.ErrUnsupported }

// Services knows none.
func (*Node) Services(string) []*state.Service { return nil }

// Publish does nothing.
func (*Node) Publish(state.UID, netip.Addr, []runtimes.Port) {}

// Withdraw does nothing.
func (*Node) Withdraw(state.UID) {}

// Run does nothing.
func (*Node) Run(context.Context) error { return nil }

// Shutdown does nothing.
func (*Node) Shutdown(context.Context) error { return nil }
