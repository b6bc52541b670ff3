//go:build !linux && !windows

package network

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// Node exists on Linux and Windows only.
type Node struct{}

// Missing says that no node runs here.
func Missing() string { return "this is " + runtime.GOOS + ", nodes are Linux and Windows machines" }

// MachineAddress is not known here.
func MachineAddress() string { return "" }

// Open refuses.
func Open(Options) (*Node, error) {
	return nil, fmt.Errorf("serve Services on %s: %w: use a Linux or Windows machine", runtime.GOOS, runtimes.ErrUnsupported)
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
