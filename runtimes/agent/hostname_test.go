package agent

import (
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A pod's hostname is one that a machine may have, however long its own name is:
// the kubelet's truncatePodHostnameIfNeeded.
func TestHostname(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"web-7c9f-abcde":                              "web-7c9f-abcde",
		strings.Repeat("a", 70):                       strings.Repeat("a", 63),
		strings.Repeat("a", 62) + "-7c9f-abcde":       strings.Repeat("a", 62),
		strings.Repeat("a", 60) + ".--" + "web-abcde": strings.Repeat("a", 60),
	} {
		p := &state.AssignedPod{Key: state.PodKey{Namespace: "prod", Name: name}, Workload: state.Ref{Kind: "Deployment", Name: "web"}, Ordinal: -1, Template: &state.Template{}}
		if got := hostname(p); got != want {
			t.Errorf("%s: hostname %s, want %s", name, got, want)
		}
	}
}
