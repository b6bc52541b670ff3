package report

import (
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Daemon is where a DaemonSet's pods belong.
type Daemon struct {
	Wanted    int32 // nodes that should have one
	Elsewhere int32 // pods on nodes that should have none
	Ready     map[state.OS]Ratio
	Lacks     []string // nodes that the images have nothing for, by name
}

// NewDaemon says where a DaemonSet's pods belong now.
func NewDaemon(s *state.State, w *state.Workload) Daemon {
	out := Daemon{Ready: map[state.OS]Ratio{}}
	ready, all := map[state.NodeName]bool{}, map[state.NodeName]int32{}
	for _, p := range w.Pods {
		if !p.Stopping {
			all[p.Node]++
			ready[p.Node] = ready[p.Node] || p.Ready && !p.Lost
		}
	}
	for _, h := range schedule.Hosts(s, w) {
		switch h.Reason {
		case state.NodeFits:
			out.Wanted++
			r := out.Ready[h.Node.Facts.OS]
			r.Wanted++
			if ready[h.Node.Name] {
				r.Ready++
			}
			out.Ready[h.Node.Facts.OS] = r
			continue
		case state.NodeOtherOS, state.NodeOtherArch, state.NodeOtherBuild, state.NodeNoImage, state.NodeNoIsolation, state.NodeImageUnknown:
			if v := w.Variant(h.Node.Facts.OS); v != nil && v.Update != nil {
				out.Lacks = append(out.Lacks, string(h.Node.Name))
			}
		default:
			// The text keeps it off this node.
		}
		out.Elsewhere += all[h.Node.Name]
	}
	return out
}
