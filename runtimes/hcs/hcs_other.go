//go:build !windows

package hcs

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/tandem-gitops/tandem/runtimes"
)

// Runtime exists on Windows only.
type Runtime struct{ runtimes.Runtime }

// Open refuses: Windows containers run on Windows.
func Open(context.Context, Options) (*Runtime, error) {
	return nil, fmt.Errorf("the hcs runtime on %s: %w: use a machine with Windows Server 2019 or later", runtime.GOOS, runtimes.ErrUnsupported)
}

// Keep refuses, as Open does.
func Keep([]string) error {
	return fmt.Errorf("keep a container's log on %s: %w", runtime.GOOS, runtimes.ErrUnsupported)
}

// SetRange does nothing.
func (*Runtime) SetRange(netip.Prefix) error { return nil }

// Close does nothing.
func (*Runtime) Close() error { return nil }

// Shutdown does nothing.
func (*Runtime) Shutdown(context.Context) error { return nil }

// Check says that this isn't Windows.
func Check() []Finding {
	return []Finding{{Name: "windows", Fatal: true, Detail: "this is " + runtime.GOOS, Remedy: "use a machine with Windows Server 2019 or later"}}
}
