package rollout

import (
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// What Kubernetes lets a Deployment say and a StatefulSet not: annotations on the
// StatefulSet.
const (
	// PausedSet keeps the pods at the revision that they have: "true".
	PausedSet = "tandem.dev/paused"
	// DeadlineOfSet is how many seconds a rollout may make no progress.
	DeadlineOfSet = "tandem.dev/progress-deadline-seconds"
)

// Paused says whether a workload's rollout stands still because its text says so.
func Paused(w *state.Workload) bool {
	if d, ok := w.Deployment(); ok {
		return d.Spec.Paused
	}
	set, ok := w.StatefulSet()
	return ok && set.Annotations[PausedSet] == "true"
}

// deadlineOf is how long the rollout of a StatefulSet may make no progress.
func deadlineOf(w *state.Workload) time.Duration {
	if set, ok := w.StatefulSet(); ok {
		if n, err := strconv.ParseInt(set.Annotations[DeadlineOfSet], 10, 32); err == nil && n > 0 {
			return time.Duration(n) * time.Second
		}
	}
	return DefaultDeadline
}
