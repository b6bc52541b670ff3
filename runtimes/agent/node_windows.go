package agent

import (
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// now reads the clock that goes on while the machine sleeps: leases and
// back-off go by it (decision 7).
func now() state.Instant {
	return state.Instant{Mono: windows.DurationSinceBoot(), Wall: time.Now().UnixNano()}
}

// bootID is the minute of the boot: Windows has no ID for it. The wall clock
// may be set between two starts of the agent; then what runs is observed to run.
func bootID() (string, error) {
	booted := time.Now().Add(-windows.DurationSinceBoot())
	return "boot-" + booted.UTC().Round(time.Minute).Format("20060102T1504"), nil
}

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
