package rollout

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// podStep is a bare Pod: one identity with a name that the text gives. It is
// never there twice, so nothing replaces it before it is gone, and on a lost
// node it is held. What ran to its end stays as it is.
func podStep(w *state.Workload) Step {
	var s Step
	v := w.Variants[0]
	if w.Deleting {
		for _, p := range w.Pods {
			if !p.Stopping {
				s.Stop = append(s.Stop, Stop{p, state.StopPruned})
			}
		}
		return s
	}
	if v.Update == nil {
		return s
	}
	if len(w.Pods) == 0 && w.Finished.Template == v.Update.Digest {
		s.Complete = !w.Finished.Failed
		return s
	}
	if len(w.Pods) == 0 {
		s.Start = append(s.Start, Start{Variant: v, Template: v.Update, Count: 1, Ordinal: -1})
		return s
	}
	for _, p := range w.Pods {
		switch {
		case p.Stopping:
		case p.Lost && !p.Ended():
			s.Held = append(s.Held, state.Held{
				Object: w.Ref, Code: state.HoldNodeLost, OS: p.OS, Count: 1, Params: []string{p.Key.Name, string(p.Node)},
			})
		case !w.IsCurrent(p):
			s.Stop = append(s.Stop, Stop{p, state.StopOutdated})
		}
	}
	s.Complete = slices.ContainsFunc(w.Pods, func(p *state.Pod) bool {
		return w.IsCurrent(p) && !p.Stopping && (p.Ready && !p.Lost || p.Phase == state.Succeeded)
	})
	return s
}
