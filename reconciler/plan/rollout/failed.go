package rollout

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// FailedWait is how long after its placement a pod that failed is replaced, at
// the soonest: a pod that fails at once must not be made in a hot loop.
const FailedWait = 10 * time.Second

// failed says whether a pod that ended is to be replaced now; if it is to be
// later, the step wakes then.
func (s *Step) failed(p *state.Pod, now state.Instant) bool {
	if p.Phase != state.Failed && p.Phase != state.Succeeded {
		return false
	}
	if now.Since(p.Placed) >= FailedWait {
		return true
	}
	s.wake(p.Placed.Mono + FailedWait)
	return false
}
