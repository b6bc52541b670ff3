package state

// Revised says that a workload's pods of one variant are to be made from
// another template.
type Revised struct {
	Workload Ref    `json:"workload" pb:"1"`
	OS       OS     `json:"os,omitempty" pb:"2"`
	Template Digest `json:"template" pb:"3"`
	Number   int64  `json:"number" pb:"4"` // Kubernetes's revision number, per workload
	// Keep is how many revisions stay, this one included (revisionHistoryLimit);
	// those that have pods stay in any case. 0: eleven, whatever has pods.
	Keep int32 `json:"keep,omitempty" pb:"80"`
}

// Kind implements Fact.
func (*Revised) Kind() Kind { return KindRevised }

// NodeReason is the code of why a node can't take a pod.
type NodeReason uint8

// Why a node can't take a pod; kube-scheduler's filters and Tandem's own.
const (
	NodeFits NodeReason = iota
	NodeNotReady
	NodeIsCordoned
	NodeOtherOS
	NodeOtherArch
	NodeOtherBuild // Windows: no image for this build, by process or Hyper-V isolation
	NodeNoIsolation
	NodeNoImage // the image index has nothing for this node
	NodeImageUnknown
	NodeTainted
	NodeSelectorMismatch
	NodeAffinityMismatch
	NodeOtherName
	NodeShortCPU
	NodeShortMemory
	NodeShortStorage
	NodeShortPods
	NodePortTaken
	NodeSpread
	NodePodAffinity
	NodePodAntiAffinity
	NodeExistingAntiAffinity
	NodeVolumeElsewhere
	NodeUnsupportedField
	NodeReserved NodeReason = 90  // pods were told to make room there for more important ones
	NodeUnfenced NodeReason = 105 // its fencer doesn't run, so that it takes no identity that would have to end in time
)

// A ReasonGroup is the nodes that share a reason. Nodes are named by Index,
// each as the difference to the one before it: about a byte per node.
type ReasonGroup struct {
	Reason NodeReason `json:"reason" pb:"1"`
	Nodes  []uint32   `json:"nodes" pb:"2"`
}

// Decided is what the scheduler answered for a batch of pods of one template,
// with every node that it refused.
type Decided struct {
	Workload Ref           `json:"workload" pb:"1"`
	OS       OS            `json:"os,omitempty" pb:"2"`
	Template Digest        `json:"template" pb:"3"`
	Asked    int32         `json:"asked" pb:"4"`
	Placed   int32         `json:"placed" pb:"5"`
	Groups   []ReasonGroup `json:"groups,omitempty" pb:"6"`
}

// Kind implements Fact.
func (*Decided) Kind() Kind { return KindDecided }

// RolledOut says that every pod of a workload runs its newest template and is available.
type RolledOut struct {
	Workload Ref  `json:"workload" pb:"1"`
	Partial  bool `json:"partial,omitempty" pb:"2"` // a partition keeps some pods on the template before
	// Keep is how many revisions stay, as in Revised. 0: all that there are.
	Keep int32 `json:"keep,omitempty" pb:"80"`
}

// Kind implements Fact.
func (*RolledOut) Kind() Kind { return KindRolledOut }

// Stalled says that a rollout made no progress within its deadline.
type Stalled struct {
	Workload Ref `json:"workload" pb:"1"`
}

// Kind implements Fact.
func (*Stalled) Kind() Kind { return KindStalled }
