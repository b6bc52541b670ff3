package state

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// PodPlaced begins a life of a pod: its UID is NewUID(log, this record's Seq, name).
type PodPlaced struct {
	Pod       PodKey    `json:"pod" pb:"1"`
	Workload  Ref       `json:"workload" pb:"2"`
	OS        OS        `json:"os,omitempty" pb:"3"` // of the variant
	Ordinal   int32     `json:"ordinal" pb:"4"`
	Template  Digest    `json:"template" pb:"5"`
	Node      NodeName  `json:"node" pb:"6"`
	Isolation Isolation `json:"isolation,omitempty" pb:"7"`
	Serial    uint64    `json:"serial,omitempty" pb:"8"` // the workload's count of names used
	// Loss is what becomes of the identity when the node is lost. Agents that
	// end nothing by themselves are given Wait.
	Loss lease.Class `json:"loss,omitempty" pb:"9"`
}

// Kind implements Fact.
func (*PodPlaced) Kind() Kind { return KindPodPlaced }

// PodStopping says that a pod is told to stop.
type PodStopping struct {
	UID UID        `json:"uid" pb:"1"`
	Why StopReason `json:"why" pb:"2"`
}

// Kind implements Fact.
func (*PodStopping) Kind() Kind { return KindPodStopping }

// PodHurried says that a pod which stops is given another time for it, from this
// record on: a person asked for it.
type PodHurried struct {
	UID   UID           `json:"uid" pb:"1"`
	Grace time.Duration `json:"grace" pb:"2"`
}

// Kind implements Fact.
func (*PodHurried) Kind() Kind { return KindPodHurried }

// PodGone ends a life: nothing of it runs any more.
type PodGone struct {
	UID      UID   `json:"uid" pb:"1"`
	Vanished bool  `json:"vanished,omitempty" pb:"2"` // the node had it no more, though nobody stopped it
	Exit     int32 `json:"exit,omitempty" pb:"3"`
	// Fenced: nobody saw it end; its node is silent for so long that it must
	// have ended it by itself.
	Fenced bool `json:"fenced,omitempty" pb:"4"`
}

// Kind implements Fact.
func (*PodGone) Kind() Kind { return KindPodGone }

// PodObserved is a change in what an agent says of a pod.
type PodObserved struct {
	UID        UID               `json:"uid" pb:"1"`
	Phase      PodPhase          `json:"phase" pb:"2"`
	Ready      bool              `json:"ready,omitempty" pb:"3"`
	IP         string            `json:"ip,omitempty" pb:"4"`
	Reason     PodReason         `json:"reason,omitempty" pb:"5"`
	Detail     Text              `json:"detail,omitzero" pb:"6"`
	Containers []ContainerStatus `json:"containers,omitempty" pb:"7"`
}

// Kind implements Fact.
func (*PodObserved) Kind() Kind { return KindPodObserved }

// PodFlapping says that a pod changes too often to record each change; it
// counts as not ready until PodSettled.
type PodFlapping struct {
	UID   UID   `json:"uid" pb:"1"`
	Edges int32 `json:"edges" pb:"2"` // changes since the last of these records
}

// Kind implements Fact.
func (*PodFlapping) Kind() Kind { return KindPodFlapping }

// PodSettled ends flapping.
type PodSettled struct {
	UID UID `json:"uid" pb:"1"`
}

// Kind implements Fact.
func (*PodSettled) Kind() Kind { return KindPodSettled }
