package bootclock

import (
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
)

// TestUnderWine runs this package's tests on a Windows machine under Wine.
func TestUnderWine(t *testing.T) {
	t.Parallel()
	hcstest.Run(t, ".", "TestOneNameForABoot", "TestTimer")
}
