package agent

import (
	"fmt"
	"io/fs"

	"github.com/tandem-gitops/tandem/runtimes"
)

// mountTmpfs: Windows has none; secrets lie in the agent's directory, as the
// kubelet's do there. Memory as a medium is refused.
func mountTmpfs(_ string, _ int64, mode fs.FileMode) error {
	if mode == 0o777 {
		return fmt.Errorf("emptyDir.medium Memory on Windows: %w", runtimes.ErrUnsupported)
	}
	return nil
}

func unmountTmpfs(string) error { return nil }

func subPath(string, string, string, bool) error {
	return fmt.Errorf("%w here: mount the whole volume", runtimes.ErrUnsupported)
}

func unmountBelow(string) error { return nil }

func chmod(string, uint32) error { return nil }

func ownedBy(string, int) bool { return true }
