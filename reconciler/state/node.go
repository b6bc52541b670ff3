package state

import (
	"strings"
	"time"
)

// Resources are integer amounts: CPU in thousandths of a core, memory and
// ephemeral storage in bytes, pods by count.
type Resources struct {
	MilliCPU  int64 `json:"milliCPU,omitempty" pb:"1"`
	Memory    int64 `json:"memory,omitempty" pb:"2"`
	Ephemeral int64 `json:"ephemeral,omitempty" pb:"3"`
	Pods      int64 `json:"pods,omitempty" pb:"4"`
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.MilliCPU + o.MilliCPU, r.Memory + o.Memory, r.Ephemeral + o.Ephemeral, r.Pods + o.Pods}
}

// Sub returns r − o.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.MilliCPU - o.MilliCPU, r.Memory - o.Memory, r.Ephemeral - o.Ephemeral, r.Pods - o.Pods}
}

// Fits says whether o is within r in every dimension.
func (r Resources) Fits(o Resources) bool {
	return o.MilliCPU <= r.MilliCPU && o.Memory <= r.Memory && o.Ephemeral <= r.Ephemeral && o.Pods <= r.Pods
}

// Isolation is how a Windows container is kept apart; Linux has one way and
// leaves it empty.
type Isolation string

// The isolations of Windows.
const (
	NoIsolation Isolation = ""
	Process     Isolation = "process"
	HyperV      Isolation = "hyperv"
)

// Taint is a Kubernetes node taint.
type Taint struct {
	Key    string `json:"key" pb:"1"`
	Value  string `json:"value,omitempty" pb:"2"`
	Effect string `json:"effect" pb:"3"`
}

// NodeFacts are what an agent says of its machine. They change rarely; a change
// is a record.
type NodeFacts struct {
	OS          OS                `json:"os" pb:"1"`
	Arch        string            `json:"arch" pb:"2"`
	OSVersion   string            `json:"osVersion,omitempty" pb:"3"` // Windows: "10.0.20348.2113"
	Isolations  []Isolation       `json:"isolations,omitempty" pb:"4"`
	Capacity    Resources         `json:"capacity" pb:"5"`
	Allocatable Resources         `json:"allocatable" pb:"6"`
	Labels      map[string]string `json:"labels,omitempty" pb:"7"`
	Taints      []Taint           `json:"taints,omitempty" pb:"8"`
	Simulated   bool              `json:"simulated,omitempty" pb:"9"`
	Runtime     string            `json:"runtime,omitempty" pb:"10"` // "containerd://1.6.20"
	Kernel      string            `json:"kernel,omitempty" pb:"11"`
	OSImage     string            `json:"osImage,omitempty" pb:"12"`
	Agent       string            `json:"agent,omitempty" pb:"13"` // the agent's version
	Address     string            `json:"address,omitempty" pb:"14"`
	Fences      bool              `json:"fences,omitempty" pb:"15"`    // its agent ends identities when their lease ends
	Unfenced    bool              `json:"unfenced,omitempty" pb:"105"` // but nobody would in its stead: no fencer runs
}

// A Node is a machine that joined.
type Node struct {
	// What every placement asks of every node lies together.
	Name     NodeName
	Used     Resources
	Ready    bool
	Cordoned bool
	Parked   bool // the controller stopped cleanly: nobody moves identities until it has reported
	Yielding int  // pods that were preempted and aren't gone yet

	Facts       NodeFacts
	Index       uint32 // order of joining, never reused: names the node in compact reasons
	Epoch       uint64 // how often a node of this name joined
	BootID      string
	Incarnation uint64 // of the agent's process, as last recorded
	ReadyChange Instant
	Silent      time.Duration // for how long it was silent by the last NodeSuspect; 0: it isn't
	Joined      Instant
	Duty        Duty
	PodRange    string // the addresses of its pods: "10.88.3.0/24"; empty: none were given
	Generation  uint64 // of the assignment: counts every change of what this node should run
	Pods        map[UID]*Pod
	Claims      map[Ref]*Claim // whose data is here
}

// Names from before Kubernetes 1.14 of labels that every node has. The kubelet
// sets them to this day, and many public manifests select by them.
const (
	LabelOSBeta   = "beta.kubernetes.io/os"
	LabelArchBeta = "beta.kubernetes.io/arch"
)

// KnownLabels are those that a node has without having been given them, where
// they have a value.
func KnownLabels() []string {
	return []string{"kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/hostname", "node.kubernetes.io/windows-build", LabelOSBeta, LabelArchBeta}
}

// Label returns one of the node's labels, the well-known ones filled in.
func (n *Node) Label(key string) (string, bool) {
	switch key {
	case "kubernetes.io/os", LabelOSBeta:
		return string(n.Facts.OS), true
	case "kubernetes.io/arch", LabelArchBeta:
		return n.Facts.Arch, true
	case "kubernetes.io/hostname":
		return string(n.Name), true
	case "node.kubernetes.io/windows-build": // "10.0.20348"
		if parts := strings.SplitN(n.Facts.OSVersion, ".", 4); n.Facts.OS == Windows && len(parts) >= 3 {
			return strings.Join(parts[:3], "."), true
		}
	}
	v, ok := n.Facts.Labels[key]
	return v, ok
}
