//go:build !linux && !windows

package agent

import (
	"fmt"
	"io/fs"

	"github.com/tandem-gitops/tandem/runtimes"
)

func mountTmpfs(string, int64, fs.FileMode) error {
	return fmt.Errorf("tmpfs on this operating system: %w", runtimes.ErrUnsupported)
}

func unmountTmpfs(string) error { return nil }

func subPath(string, string, string, bool) error {
	return fmt.Errorf("%w here: mount the whole volume", runtimes.ErrUnsupported)
}

func unmountBelow(string) error { return nil }

func chmod(string, uint32) error { return nil }

func ownedBy(string, int) bool { return true }
