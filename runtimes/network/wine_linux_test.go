package network_test

import (
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
)

// TestUnderWine runs this package's Windows tests on a machine under Wine.
func TestUnderWine(t *testing.T) { hcstest.Run(t, ".", "TestPolicies", "TestOneEndpointFails") }
