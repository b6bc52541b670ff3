package simulated

import (
	"fmt"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A Kind is what goes wrong.
type Kind uint8

// What can be made to go wrong.
const (
	FailPull    Kind = iota + 1 // the image can't be pulled
	FailSandbox                 // the pod gets no sandbox
	FailStart                   // the container doesn't start
	Crash                       // the container ends with Code, After it started
	Unready                     // the readiness probe fails
	Unhealthy                   // the liveness and startup probes fail
	Hang                        // the container ignores the request to stop
)

// String is the kind as the command line spells it.
func (k Kind) String() string {
	names := [...]string{"", "fail-pull", "fail-sandbox", "fail-start", "crash", "unready", "unhealthy", "hang"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// A Fault goes wrong wherever all that it names matches; what is empty matches
// everything.
type Fault struct {
	Kind      Kind
	Pod       state.PodKey
	Container string
	Image     string
	Code      int32         // Crash
	After     time.Duration // Crash
	Times     int           // how often; 0: until healed
}

func (f *Fault) matches(kind Kind, pod state.PodKey, container, image string) bool {
	return f.Kind == kind && (f.Pod.Namespace == "" || f.Pod.Namespace == pod.Namespace) && (f.Pod.Name == "" || f.Pod.Name == pod.Name) &&
		(f.Container == "" || container == "" || f.Container == container) && (f.Image == "" || f.Image == image)
}

// Faults is what goes wrong now; the zero value is nothing.
type Faults struct {
	mu   sync.Mutex
	list []Fault
}

// Inject adds a fault.
func (f *Faults) Inject(x Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, x)
}

// Heal removes all faults.
func (f *Faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// hit finds a fault and counts it.
func (f *Faults) hit(kind Kind, pod state.PodKey, container, image string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.list {
		x := f.list[i]
		if !x.matches(kind, pod, container, image) {
			continue
		}
		if x.Times == 1 {
			f.list = append(f.list[:i:i], f.list[i+1:]...)
		} else if x.Times > 1 {
			f.list[i].Times--
		}
		return x, true
	}
	return Fault{}, false
}

func (f *Faults) err(kind Kind, pod state.PodKey, container, image string) error {
	if _, ok := f.hit(kind, pod, container, image); ok {
		return fmt.Errorf("injected fault %s: %w", kind, runtimes.ErrUnavailable)
	}
	return nil
}

// Latency is how long things take.
type Latency struct {
	Pull, Sandbox, Start, Stop time.Duration
}
