//go:build !linux

package containerd

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/tandem-gitops/tandem/runtimes"
)

// Runtime exists on Linux only.
type Runtime struct{ runtimes.Runtime }

// Open refuses: containerd runs Linux containers on Linux.
func Open(context.Context, Options) (*Runtime, error) {
	return nil, fmt.Errorf("the containerd runtime on %s: %w: use a Linux machine", runtime.GOOS, runtimes.ErrUnsupported)
}

// SetRange does nothing.
func (*Runtime) SetRange(netip.Prefix) error { return nil }

// RunDir is nowhere.
func (*Runtime) RunDir() string { return "" }

// Group is nowhere.
func (*Runtime) Group() string { return "" }

// ImageBytes is nothing.
func (*Runtime) ImageBytes(context.Context) (int64, error) { return 0, nil }

// Close does nothing.
func (*Runtime) Close() error { return nil }

// Shutdown does nothing.
func (*Runtime) Shutdown(context.Context) error { return nil }

// Check says that this isn't Linux.
func Check() []Finding {
	return []Finding{{Name: "linux", Fatal: true, Detail: "this is " + runtime.GOOS, Remedy: "use a Linux machine"}}
}
