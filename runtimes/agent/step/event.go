package step

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An Event is something that the outside tells the machine. The types in this
// file are all there are.
type Event interface{ event() }

// Assigned is what the node should run. One that is older than the applied one
// (epoch, generation, sequence number) is ignored.
type Assigned struct{ Assignment *state.Assignment }

// Connected says that a session with the controller begins: the next report is
// full. So it is after anything that may have lost a report.
type Connected struct{}

// Observed is what exists on the node. The machine does nothing before the
// first whole one, so that it never starts what already runs.
type Observed struct {
	Whole      bool // what isn't in it isn't there; otherwise it adds to what is known
	Sandboxes  []Sandbox
	Containers []Container
}

// A Sandbox is a pod that has something on this node.
type Sandbox struct {
	UID state.UID
	Key state.PodKey
	IP  string
}

// A Container is one that runs or has ended.
type Container struct {
	UID       state.UID
	Name      string
	Attempt   int32
	Running   bool
	ExitCode  int32
	OOMKilled bool
	Started   int64 // wall nanoseconds
	Finished  int64
	Error     string // why it couldn't be started
}

// A Class is how an action ended.
type Class uint8

// How an action ended. They are the classes of package runtimes, and one that
// the agent adds.
const (
	OK            Class = iota + 1
	Unavailable         // try again later
	Rejected            // the runtime refuses the specification
	Unsupported         // never on this node
	NotFound            // image, sandbox or container isn't there
	ConfigMissing       // a ConfigMap, Secret or key isn't there
	NeverPull           // the image is absent and its policy is Never
)

// Done says how an action ended.
type Done struct {
	ID    uint64
	UID   state.UID
	Class Class
	Text  string // the error, in words; with OK, of Run: why the container must not go on
	IP    string // of MakeSandbox
}

// Exceeded says that a pod took more of the node than it may: it is evicted.
type Exceeded struct {
	UID  state.UID
	Text string
}

// Probed is the result of a probe that StartProbe asked for.
type Probed struct {
	UID       state.UID
	Container string
	Attempt   int32
	Probe     Probe
	OK        bool
	Text      string
	Times     int32 // how often in a row; 0 is once
}

func (*Assigned) event()  {}
func (*Connected) event() {}
func (*Observed) event()  {}
func (*Done) event()      {}
func (*Probed) event()    {}
func (*Exceeded) event()  {}

// A Verb is what an action does.
type Verb uint8

// What actions do. All but Cancel, StartProbe and StopProbe are answered by Done.
const (
	Pull        Verb = iota + 1
	Prepare          // make the pod's volumes, or bring them up to date
	MakeSandbox      // the pod's namespaces and address
	Run              // start a container
	Stop             // end a container
	Remove           // end the pod and leave nothing of it
	Cancel           // the pod stops: end its Pull, Prepare, MakeSandbox and Run early; they still answer
	StartProbe       // probe a container until StopProbe, or until its attempt has ended
	StopProbe
	DropVolume // delete a volume's data; UID is the volume's
)

// String is the verb for a log line.
func (v Verb) String() string {
	names := [...]string{"", "pull", "prepare", "sandbox", "run", "stop", "remove", "cancel", "start probe", "stop probe", "drop volume"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// A Probe is one of Kubernetes's three.
type Probe uint8

// The probes of a container.
const (
	Startup Probe = iota
	Liveness
	Readiness
)

// String is the field's word.
func (p Probe) String() string {
	return [...]string{"startup", "liveness", "readiness"}[p%3]
}

// An Action is one call of the runtime, or one thing for the agent to do. Actions
// of one step may run side by side; the machine asks for the next when it may run.
type Action struct {
	ID        uint64
	Do        Verb
	UID       state.UID
	Pod       *state.AssignedPod // nil for the removal of a pod that nobody assigned
	Container string
	Attempt   int32
	Init      bool
	Image     string // Pull: as the template names it
	IP        string // Run, Stop, StartProbe: the pod's
	Grace     time.Duration
	Probe     Probe
	Started   int64           // StartProbe: when the container started, wall nanoseconds
	Objects   []*state.Object // Prepare, Run: the ConfigMaps and Secrets that the pod names; Pull: its pull Secrets, in order
	Missing   []string        // Pull: names of pull Secrets that aren't there
	Volumes   []PodVolume     // Prepare, Run: the volumes that are claims
}

// A PodVolume is a volume of a pod that is a claim.
type PodVolume struct {
	Name string // as the pod calls it
	state.AssignedVolume
}

// Output is what one step decided.
type Output struct {
	Actions []Action
	Report  *state.Report // nil where nothing changed
	Wake    state.Instant // when the answer changes by itself; zero if it can't
}
