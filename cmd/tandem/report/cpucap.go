package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A CPUCap is a container's limit of processor as the Windows nodes honour it on
// which its pods are: a hard cap in hundredths of a per cent of the machine.
type CPUCap struct {
	Workload  state.Ref        `json:"workload"`
	Container string           `json:"container"`
	Limit     string           `json:"limit"`
	Cap       string           `json:"cap"` // in thousandths of a core
	Cores     int              `json:"cores"`
	Nodes     []state.NodeName `json:"nodes"`
}

// cpuCaps are those of pods in process isolation: a Hyper-V guest has processors
// of its own.
func cpuCaps(s *state.State, pods []*state.Pod) []CPUCap {
	type key struct {
		workload  state.Ref
		container string
		milli     int64
		cores     int
	}
	on := map[key]map[state.NodeName]bool{}
	for _, p := range pods {
		n := s.Nodes[p.Node]
		if p.OS != state.Windows || p.Isolation == state.HyperV || n == nil || p.Template == nil {
			continue
		}
		cores := int(max(n.Facts.Capacity.MilliCPU, n.Facts.Allocatable.MilliCPU) / 1000)
		spec := &p.Template.Spec.Spec
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			limit, ok := c.Resources.Limits[corev1.ResourceCPU]
			if !ok || cores == 0 {
				continue
			}
			k := key{p.Workload, c.Name, limit.MilliValue(), cores}
			if on[k] == nil {
				on[k] = map[state.NodeName]bool{}
			}
			on[k][p.Node] = true
		}
	}
	keys := slices.SortedFunc(maps.Keys(on), func(a, b key) int {
		return cmp.Or(a.workload.Compare(b.workload), strings.Compare(a.container, b.container), cmp.Compare(a.milli, b.milli), cmp.Compare(a.cores, b.cores))
	})
	var out []CPUCap
	for _, k := range keys {
		out = append(out, CPUCap{
			Workload: k.workload, Container: k.container, Limit: fmt.Sprintf("%dm", k.milli), Cap: tenthsText(state.CPUCap(k.milli, k.cores)),
			Cores: k.cores, Nodes: slices.Sorted(maps.Keys(on[k])),
		})
	}
	return out
}

// tenthsText is an amount in tenths of a thousandth of a core: "6.4m", "250m".
func tenthsText(n int64) string {
	if n%10 == 0 {
		return fmt.Sprintf("%dm", n/10)
	}
	return fmt.Sprintf("%d.%dm", n/10, n%10)
}

// String is a cap for people: "web: a limit of 10m is a cap of 6.4m on win-1 (64 cores)".
func (c *CPUCap) String() string {
	nodes := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		nodes[i] = string(n)
	}
	return fmt.Sprintf("%s: a limit of %s is a cap of %s on %s (%s)", c.Container, c.Limit, c.Cap, shorten(nodes, ", ", maxPlanNodes), plural(c.Cores, "core"))
}
