package state

import (
	"net/netip"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// PodPhase is how far a pod has come, as its agent last said.
type PodPhase uint8

// The phases of a pod, in Kubernetes's words.
const (
	Pending PodPhase = iota + 1
	Running
	Succeeded
	Failed
)

// String is Kubernetes's spelling.
func (p PodPhase) String() string {
	switch p {
	case Pending:
		return "Pending"
	case Running:
		return "Running"
	case Succeeded:
		return "Succeeded"
	case Failed:
		return "Failed"
	default:
		return "Unknown"
	}
}

// PodReason is the code of why a pod is as it is; words that a program wrote go
// beside it as Text.
type PodReason uint8

// Why a pod is as it is. The words are those that kubectl users know.
const (
	ReasonNone PodReason = iota
	ReasonContainerCreating
	ReasonImagePull
	ReasonImagePullBackOff
	ReasonImageNeverPull
	ReasonConfigMissing // a ConfigMap or Secret that the pod names is not there
	ReasonCreateError
	ReasonCrashLoopBackOff
	ReasonError
	ReasonCompleted
	ReasonOOMKilled
	ReasonUnready      // the readiness probe fails
	ReasonUnhealthy    // the liveness or startup probe failed
	ReasonNodeLost     // the node does not report
	ReasonUnsupported  // this node's runtime can never run it
	ReasonRejected     // the runtime refuses the specification
	ReasonDeadline     // activeDeadlineSeconds
	ReasonFlapping     // it becomes ready and unready too often to be recorded each time
	ReasonEvicted      // by a person or the node
	ReasonHostRestart  // the node rebooted
	ReasonInitializing // init containers run
)

// String is the word that kubectl users know.
func (r PodReason) String() string {
	names := [...]string{
		"", "ContainerCreating", "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "CreateContainerConfigError",
		"CreateContainerError", "CrashLoopBackOff", "Error", "Completed", "OOMKilled", "Unready", "Unhealthy", "NodeLost",
		"Unsupported", "Rejected", "DeadlineExceeded", "Flapping", "Evicted", "NodeRestarted", "PodInitializing",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "Unknown"
}

// ContainerState is whether a container waits, runs or has ended.
type ContainerState uint8

// The states of a container.
const (
	ContainerWaiting ContainerState = iota + 1
	ContainerRunning
	ContainerTerminated
)

// ContainerStatus is what an agent says of one container.
type ContainerStatus struct {
	Name     string         `json:"name" pb:"1"`
	State    ContainerState `json:"state" pb:"2"`
	Ready    bool           `json:"ready,omitempty" pb:"3"`
	Started  bool           `json:"started,omitempty" pb:"4"` // passed its startup probe
	Restarts int32          `json:"restarts,omitempty" pb:"5"`
	Reason   PodReason      `json:"reason,omitempty" pb:"6"`
	ExitCode int32          `json:"exitCode,omitempty" pb:"7"` // of the last end
	Since    int64          `json:"since,omitempty" pb:"8"`    // wall nanoseconds: start or end of this state
	Image    Digest         `json:"image,omitzero" pb:"9"`
	Init     bool           `json:"init,omitempty" pb:"10"`
	LastExit int32          `json:"lastExit,omitempty" pb:"11"` // exit code of the life before this one
	LastEnd  int64          `json:"lastEnd,omitempty" pb:"12"`
	LastWhy  PodReason      `json:"lastWhy,omitempty" pb:"13"`
	LastFrom int64          `json:"lastFrom,omitempty" pb:"14"` // when that life began
	LastSaid Text           `json:"lastSaid,omitzero" pb:"15"`  // its last words; made by the shell
}

// A Pod is one life of a pod: it begins with the record that placed it.
type Pod struct {
	// What planning asks of each of a workload's pods lies together: thousands are
	// gone through, and memory is what that costs.
	Template   *Template
	Phase      PodPhase
	Ready      bool
	Stopping   bool
	Lost       bool // its node is lost; it may still run there
	Flapping   bool
	Reported   bool // an agent has spoken of this life
	Counted    bool // its end counts for its Job already
	StopWhy    StopReason
	OS         OS      // of the node and of the variant
	ReadySince Instant // when Ready last became true
	Node       NodeName

	Key        PodKey
	UID        UID
	Workload   Ref
	Ordinal    int32 // of a StatefulSet; -1 where there is none
	Isolation  Isolation
	Loss       lease.Class // of an identity: what becomes of it when its node is lost
	Placed     Instant
	PlacedSeq  Seq
	PlacedGen  uint64 // the node's generation that first had this pod
	StopAt     Instant
	StopGrace  time.Duration // that a person asked for; 0: the template's
	Reason     PodReason
	Detail     Text
	IP         netip.Addr
	Restarts   int32
	Containers []ContainerStatus
	Changed    Seq // of the last record about this pod

	assigned *AssignedPod
}

// Available says whether the pod has been ready for at least min.
func (p *Pod) Available(now Instant, least time.Duration) bool {
	return p.Ready && !p.Stopping && !p.Lost && now.Since(p.ReadySince) >= least
}

// Ended says whether the pod has run to its end: it needs no room any more.
func (p *Pod) Ended() bool { return p.Phase == Succeeded || p.Phase == Failed }

// Charge is what the pod takes of its node.
func (p *Pod) Charge() Resources {
	if p.Ended() {
		return Resources{}
	}
	return Charge(p.Template.Requests, p.Isolation)
}

// StopReason is the code of why a pod was told to stop.
type StopReason uint8

// Why a pod is stopped.
const (
	StopOutdated   StopReason = iota + 1 // another revision takes its place
	StopScaledDown                       // fewer replicas are wanted
	StopPruned                           // its workload left the text
	StopNodeLost                         // replaced; ends when the node returns
	StopFailed                           // it ended and its workload wants it to run
	StopRequested                        // a person asked: delete, restart, evict
	StopDrained                          // its node is emptied
	StopPreempted                        // a pod of higher priority needs the room
	StopMisplaced                        // its node no longer can run it
	StopTaint                            // a NoExecute taint
	StopFinished                         // it ended and is cleaned away
)

// String says it in words.
func (r StopReason) String() string {
	names := [...]string{
		"", "outdated", "scaled down", "pruned", "node lost", "failed", "requested", "drained", "preempted", "misplaced", "taint", "finished",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// yields is 1 for a pod that was preempted and isn't gone yet.
func (p *Pod) yields() int {
	if p.Stopping && p.StopWhy == StopPreempted {
		return 1
	}
	return 0
}

// PodStatus is what an agent says of one pod.
type PodStatus struct {
	UID        UID               `json:"uid" pb:"1"`
	Phase      PodPhase          `json:"phase" pb:"2"`
	Ready      bool              `json:"ready,omitempty" pb:"3"`
	IP         string            `json:"ip,omitempty" pb:"4"`
	Reason     PodReason         `json:"reason,omitempty" pb:"5"`
	Message    string            `json:"message,omitempty" pb:"6"` // in clear on the wire only
	Detail     Text              `json:"-" pb:"-"`                 // made of Message by the shell
	Containers []ContainerStatus `json:"containers,omitempty" pb:"7"`
	Words      []string          `json:"words,omitempty" pb:"8"` // last words by container, in clear on the wire only; nil: nobody left any
}

// Restarts is the sum over all containers.
func (s *PodStatus) Restarts() int32 {
	var n int32
	for i := range s.Containers {
		n += s.Containers[i].Restarts
	}
	return n
}

// A Report is what an agent says of its node, with the fencing tuple that keeps
// an old report from changing a newer life. A pod that is not in a full report
// is gone only if the applied generation is at least that of its placement.
type Report struct {
	Node        NodeName    `pb:"1"`
	Epoch       uint64      `pb:"2"`
	BootID      string      `pb:"3"`
	Incarnation uint64      `pb:"4"` // of the agent's process, growing
	Number      uint64      `pb:"5"` // within the incarnation, growing
	Applied     uint64      `pb:"6"` // generation of the assignment that this report follows
	Full        bool        `pb:"7"` // Pods is all that exist on the node
	Pods        []PodStatus `pb:"8"`
	Gone        []UID       `pb:"9"`  // ended and removed since the last report
	Dropped     []UID       `pb:"70"` // volumes of which nothing is left, since the last report
}

// AssignedPod is what a node should run under one UID. It never changes: a pod
// that is to stop gets a new value.
type AssignedPod struct {
	UID       UID
	Key       PodKey
	Workload  Ref
	Ordinal   int32
	Service   string // StatefulSet's serviceName: the pod's subdomain
	Template  *Template
	Isolation Isolation
	Placement Seq // fencing token: the sequence number of the placement
	Loss      lease.Class
	Stop      bool
	Grace     time.Duration // with Stop
	Given     string        // names of the pull Secrets that its ServiceAccount gives it, "a,b"
}

// An Assignment is the whole of what one node should run, as of one record. It
// is captured when made and may leave once the log is durable up to Seq.
type Assignment struct {
	Node       NodeName
	Epoch      uint64
	Generation uint64
	Seq        Seq
	Pods       []*AssignedPod   // sorted by UID
	Objects    []*Object        // ConfigMaps and Secrets that these pods name, sorted by Ref
	Volumes    []AssignedVolume // sorted by UID
}
