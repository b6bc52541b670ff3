package agent

import (
	"time"

	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A Meter is told what an agent does, for whoever watches many of them. It must
// not block.
type Meter interface {
	// Did: an action ended. It waited for its turn before that took so long.
	Did(x *step.Action, class step.Class, took time.Duration)
	// Probed: a probe answered, or didn't.
	Probed(kind step.Probe, ok bool)
	// Unobserved: the runtime did not say what exists.
	Unobserved()
	// Reached and Lost: a session with the controller began, or ended, or could
	// not begin.
	Reached()
	Lost(err error)
}

type noMeter struct{}

func (noMeter) Did(*step.Action, step.Class, time.Duration) {}
func (noMeter) Probed(step.Probe, bool)                     {}
func (noMeter) Unobserved()                                 {}
func (noMeter) Reached()                                    {}
func (noMeter) Lost(error)                                  {}

// Assigned is how many pods this node should run.
func (a *Agent) Assigned() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.applied == nil {
		return 0
	}
	return len(a.applied.Pods)
}
