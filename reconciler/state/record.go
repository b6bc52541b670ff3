package state

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// A Record is one decision or one observed change. The machine gives Seq and
// At; a record is immutable once made.
type Record struct {
	Seq   Seq     `json:"seq" pb:"1"`
	At    Instant `json:"at" pb:"2"`
	Cause Seq     `json:"cause,omitempty" pb:"3"` // the record that led to this one
	Actor Text    `json:"actor,omitzero" pb:"4"`  // a person; zero: Tandem itself
	App   AppName `json:"app,omitempty" pb:"5"`
	Fact  Fact    `json:"fact" pb:"-"` // field 16 + Kind
}

// A Fact is what a record says. The types in this file are all there are.
type Fact interface{ Kind() Kind }

// Kind numbers the facts. Numbers are never reused: logs keep them for ever.
type Kind uint8

// The kinds of facts.
const (
	KindLogStarted        Kind = 1
	KindControllerStarted Kind = 2
	KindControllerStopped Kind = 3
	KindClockStepped      Kind = 4
	KindNodeJoined        Kind = 5
	KindNodeChanged       Kind = 6
	KindNodeReady         Kind = 7
	KindNodeLost          Kind = 8
	KindNodeCordoned      Kind = 9
	KindNodeRemoved       Kind = 10
	KindAppDeclared       Kind = 11
	KindAppRemoved        Kind = 12
	KindRevisionRejected  Kind = 13
	KindRevisionApplied   Kind = 14
	KindImageResolved     Kind = 15
	KindRevised           Kind = 16
	KindDecided           Kind = 17
	KindPodPlaced         Kind = 18
	KindPodStopping       Kind = 19
	KindPodGone           Kind = 20
	KindPodObserved       Kind = 21
	KindPodFlapping       Kind = 22
	KindPodSettled        Kind = 23
	KindHeld              Kind = 24
	KindReleased          Kind = 25
	KindRolledOut         Kind = 26
	KindConverged         Kind = 27
	KindDegraded          Kind = 28
	KindCommanded         Kind = 29
	KindSourceLost        Kind = 30
	KindSourceBack        Kind = 31
	KindObjectGone        Kind = 32
	KindRevisionSeen      Kind = 33
	KindStalled           Kind = 34
	KindPodCounted        Kind = 35
	KindJobMoved          Kind = 36
	KindCronFired         Kind = 37
	KindJobDropped        Kind = 38
	KindNodeRanged        Kind = 48 // 38 to 47 are kept free
	KindServiceAddressed  Kind = 49
	KindRoutingChosen     Kind = 110
	KindNodeSuspect       Kind = 52
	KindClaimBound        Kind = 70
	KindClaimDropped      Kind = 71
	KindVolumeGone        Kind = 72
	KindClaimResized      Kind = 73
	KindAppQuarantined    Kind = 74
	KindAppSuspended      Kind = 114
)

// The kinds of facts about promotion.
const (
	KindPipelineDeclared   Kind = 40
	KindPipelineRemoved    Kind = 41
	KindCandidateReviewed  Kind = 42
	KindPromotionRequested Kind = 43
	KindPromotionVoted     Kind = 44
	KindPromotionStarted   Kind = 45
	KindPromotionEnded     Kind = 46
	KindStageSuspended     Kind = 47
	KindCheckReported      Kind = 39
)

// The kinds of facts about who may do what.
const (
	KindAccessDeclared Kind = 115
	KindAccessRemoved  Kind = 116
)

// KindDeploymentNoted is of what a repository is told.
const KindDeploymentNoted Kind = 117

// NewFact returns a pointer to an empty fact of that kind, or nil for a number
// that this version doesn't know.
func NewFact(k Kind) Fact {
	make, ok := facts()[k]
	if !ok {
		return nil
	}
	return make()
}

// facts makes an empty fact of each kind.
func facts() map[Kind]func() Fact {
	return map[Kind]func() Fact{
		KindLogStarted:        func() Fact { return new(LogStarted) },
		KindControllerStarted: func() Fact { return new(ControllerStarted) },
		KindControllerStopped: func() Fact { return new(ControllerStopped) },
		KindClockStepped:      func() Fact { return new(ClockStepped) },
		KindNodeJoined:        func() Fact { return new(NodeJoined) },
		KindNodeChanged:       func() Fact { return new(NodeChanged) },
		KindNodeReady:         func() Fact { return new(NodeReady) },
		KindNodeLost:          func() Fact { return new(NodeLost) },
		KindNodeCordoned:      func() Fact { return new(NodeCordoned) },
		KindNodeRemoved:       func() Fact { return new(NodeRemoved) },
		KindAppDeclared:       func() Fact { return new(AppDeclared) },
		KindAppRemoved:        func() Fact { return new(AppRemoved) },
		KindRevisionRejected:  func() Fact { return new(RevisionRejected) },
		KindRevisionApplied:   func() Fact { return new(RevisionApplied) },
		KindImageResolved:     func() Fact { return new(ImageResolved) },
		KindRevised:           func() Fact { return new(Revised) },
		KindDecided:           func() Fact { return new(Decided) },
		KindPodPlaced:         func() Fact { return new(PodPlaced) },
		KindPodStopping:       func() Fact { return new(PodStopping) },
		KindPodGone:           func() Fact { return new(PodGone) },
		KindPodObserved:       func() Fact { return new(PodObserved) },
		KindPodFlapping:       func() Fact { return new(PodFlapping) },
		KindPodSettled:        func() Fact { return new(PodSettled) },
		KindHeld:              func() Fact { return new(Held) },
		KindReleased:          func() Fact { return new(Released) },
		KindRolledOut:         func() Fact { return new(RolledOut) },
		KindConverged:         func() Fact { return new(Converged) },
		KindDegraded:          func() Fact { return new(Degraded) },
		KindCommanded:         func() Fact { return new(Commanded) },
		KindSourceLost:        func() Fact { return new(SourceLost) },
		KindSourceBack:        func() Fact { return new(SourceBack) },
		KindObjectGone:        func() Fact { return new(ObjectGone) },
		KindRevisionSeen:      func() Fact { return new(RevisionSeen) },
		KindStalled:           func() Fact { return new(Stalled) },
		KindPodCounted:        func() Fact { return new(PodCounted) },
		KindJobMoved:          func() Fact { return new(JobMoved) },
		KindCronFired:         func() Fact { return new(CronFired) },
		KindJobDropped:        func() Fact { return new(JobDropped) },
		KindScaled:            func() Fact { return new(Scaled) },
		KindNodeRanged:        func() Fact { return new(NodeRanged) },
		KindRoutingChosen:     func() Fact { return new(RoutingChosen) },
		KindServiceAddressed:  func() Fact { return new(ServiceAddressed) },
		KindNodeSuspect:       func() Fact { return new(NodeSuspect) },
		KindClaimBound:        func() Fact { return new(ClaimBound) },
		KindClaimDropped:      func() Fact { return new(ClaimDropped) },
		KindVolumeGone:        func() Fact { return new(VolumeGone) },
		KindClaimResized:      func() Fact { return new(ClaimResized) },
		KindAppQuarantined:    func() Fact { return new(AppQuarantined) },
		KindAppSuspended:      func() Fact { return new(AppSuspended) },

		KindPipelineDeclared:   func() Fact { return new(PipelineDeclared) },
		KindPipelineRemoved:    func() Fact { return new(PipelineRemoved) },
		KindCandidateReviewed:  func() Fact { return new(CandidateReviewed) },
		KindPromotionRequested: func() Fact { return new(PromotionRequested) },
		KindPromotionVoted:     func() Fact { return new(PromotionVoted) },
		KindPromotionStarted:   func() Fact { return new(PromotionStarted) },
		KindPromotionEnded:     func() Fact { return new(PromotionEnded) },
		KindStageSuspended:     func() Fact { return new(StageSuspended) },
		KindCheckReported:      func() Fact { return new(CheckReported) },

		KindAccessDeclared: func() Fact { return new(AccessDeclared) },
		KindAccessRemoved:  func() Fact { return new(AccessRemoved) },

		KindDeploymentNoted: func() Fact { return new(DeploymentNoted) },
	}
}

// LogStarted is the first record of every log.
type LogStarted struct {
	ID     Digest `json:"id" pb:"1"`
	Format uint32 `json:"format" pb:"2"`
}

// ControllerStarted marks a controller's start; nodes count as renewed then.
type ControllerStarted struct {
	Version string `json:"version" pb:"1"`
}

// ControllerStopped marks a clean stop: every node is parked.
type ControllerStopped struct{}

// ClockStepped says that the wall clock moved against the steady one.
type ClockStepped struct {
	By time.Duration `json:"by" pb:"1"`
}

// NodeJoined adds a node, or a new life of one that was removed.
type NodeJoined struct {
	Node   NodeName  `json:"node" pb:"1"`
	Facts  NodeFacts `json:"facts" pb:"2"`
	BootID string    `json:"bootID" pb:"3"`
}

// NodeChanged replaces what is known of a node's machine.
type NodeChanged struct {
	Node  NodeName  `json:"node" pb:"1"`
	Facts NodeFacts `json:"facts" pb:"2"`
}

// NodeReady says that a node reports and may be given pods.
type NodeReady struct {
	Node        NodeName `json:"node" pb:"1"`
	BootID      string   `json:"bootID" pb:"2"`
	Incarnation uint64   `json:"incarnation" pb:"3"`
	// Parked: an agent that a clean stop left its leases for ever has connected,
	// but has not yet said that it counts them again.
	Parked bool `json:"parked,omitempty" pb:"4"`
}

// NodeSuspect says that a node with identities has been silent for a while, by
// the controller's steady clock. No grant leaves after it before a NodeReady is
// durable, so whichever controller comes next may go on counting from Silent.
type NodeSuspect struct {
	Node   NodeName      `json:"node" pb:"1"`
	Epoch  uint64        `json:"epoch" pb:"2"`
	BootID string        `json:"bootID" pb:"3"`
	Silent time.Duration `json:"silent" pb:"4"`
}

// NodeLost says that a node's lease lapsed. Since is the volatile input of the
// decision: when the node was last heard.
type NodeLost struct {
	Node  NodeName `json:"node" pb:"1"`
	Since Instant  `json:"since" pb:"2"`
}

// NodeCordoned says whether a node takes new pods.
type NodeCordoned struct {
	Node NodeName `json:"node" pb:"1"`
	On   bool     `json:"on,omitempty" pb:"2"`
}

// NodeRemoved forgets a node and every pod on it.
type NodeRemoved struct {
	Node NodeName `json:"node" pb:"1"`
}

// AppDeclared adds or changes an application.
type AppDeclared struct {
	Application Application `json:"application" pb:"1"`
}

// AppRemoved says that an application left the root; its objects are pruned
// unless it says otherwise.
type AppRemoved struct {
	Name    AppName  `json:"name" pb:"1"`
	Changes []Change `json:"changes,omitempty" pb:"2"`
}

// RevisionSeen says that a commit changed nothing in an application's render:
// it counts as applied.
type RevisionSeen struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
}

// RevisionRejected says that a commit has problems: nothing of it was applied.
type RevisionRejected struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
	Problems int32    `json:"problems" pb:"3"`
	Detail   Text     `json:"detail,omitzero" pb:"4"` // all problems, as printed
	// Conflicts are objects that another application owns.
	Conflicts []Ref `json:"conflicts,omitempty" pb:"5"`
	// Fixed are fields that it changes and that stay while the object exists.
	Fixed []Fixed `json:"fixed,omitempty" pb:"70"`
}

// A Fixed is a field that can't be changed while its object exists.
type Fixed struct {
	Object Ref    `json:"object" pb:"1"`
	Field  string `json:"field" pb:"2"` // "spec.serviceName"
}

// RevisionApplied says what an application should be from now on.
type RevisionApplied struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
	Manifest Digest   `json:"manifest" pb:"3"`
	Changes  []Change `json:"changes,omitempty" pb:"4"`
	Restores bool     `json:"restores,omitempty" pb:"70"` // after a revision that failed
}

// Verb is what a revision does to one object.
type Verb uint8

// The verbs of a change.
const (
	Create Verb = iota + 1
	Update
	Delete
	Retire // no longer in the text, kept while a pod needs it
	Adopt  // moved here from another application
	Keep   // left the text, and pruning is off or waits for approval
)

// String is the verb for people.
func (v Verb) String() string {
	names := [...]string{"", "create", "update", "delete", "retire", "adopt", "keep"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// A Change is what a revision does to one object.
type Change struct {
	Ref    Ref    `json:"ref" pb:"1"`
	Verb   Verb   `json:"verb" pb:"2"`
	Digest Digest `json:"digest,omitzero" pb:"3"` // of the new content
}

// ImageResolved says what an image name means for one manifest of one application.
type ImageResolved struct {
	Manifest Digest `json:"manifest" pb:"1"`
	Image    Image  `json:"image" pb:"2"`
}

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

// PodStopping says that a pod is told to stop.
type PodStopping struct {
	UID UID        `json:"uid" pb:"1"`
	Why StopReason `json:"why" pb:"2"`
}

// PodGone ends a life: nothing of it runs any more.
type PodGone struct {
	UID      UID   `json:"uid" pb:"1"`
	Vanished bool  `json:"vanished,omitempty" pb:"2"` // the node had it no more, though nobody stopped it
	Exit     int32 `json:"exit,omitempty" pb:"3"`
	// Fenced: nobody saw it end; its node is silent for so long that it must
	// have ended it by itself.
	Fenced bool `json:"fenced,omitempty" pb:"4"`
}

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

// PodFlapping says that a pod changes too often to record each change; it
// counts as not ready until PodSettled.
type PodFlapping struct {
	UID   UID   `json:"uid" pb:"1"`
	Edges int32 `json:"edges" pb:"2"` // changes since the last of these records
}

// PodSettled ends flapping.
type PodSettled struct {
	UID UID `json:"uid" pb:"1"`
}

// HoldCode says what a held workload or application waits for.
type HoldCode uint8

// What is waited for. Text that is right in a world that isn't.
const (
	HoldImageUnknown  HoldCode = iota + 1 // an image couldn't be looked up
	HoldImageOS                           // the image index lacks the variant's OS
	HoldNoNode                            // no node could take it, even empty
	HoldNoRoom                            // nodes could, but have no room now
	HoldNodeLost                          // an identity on a lost node isn't started elsewhere
	HoldPrune                             // more objects would go than the limit
	HoldUnsupported                       // a field that this OS can't honour, known from the image index
	HoldPaused                            // spec.paused
	HoldSuspended                         // the application is suspended
	HoldPredecessor                       // an ordered pod waits for the one before it
	HoldConfigMissing                     // a ConfigMap or Secret isn't in the text
	HoldBudget        HoldCode = 24       // pods that should leave their node wait for a disruption budget
	HoldPriority      HoldCode = 80       // a PriorityClass that the pods name isn't there; Params: its name
	HoldAddress       HoldCode = 32       // the address or node port that a Service asks for can't be given
	HoldVolume        HoldCode = 70       // a pod must run where its data is, and can't now; Params: pod, claim, node
	HoldClaimMissing  HoldCode = 71       // a claim isn't in the text
	HoldQuarantined   HoldCode = 74       // a render that failed isn't applied again; Params: the revision that waits, the one that failed, the one that runs
	HoldRestore       HoldCode = 75       // a revision failed, and there is data that an older program may not read; Params: it, the one to restore
	HoldMove          HoldCode = 73       // an identity goes to the other OS, and its data can't follow; Params: the claims
	HoldClaimBusy     HoldCode = 72       // a claim is another pod's (ReadWriteOncePod), or its data is being deleted; Params: the claims
	HoldDependency    HoldCode = 50       // an application waits for others; Params: the revision that waits, their names
	HoldWindow        HoldCode = 51       // an application's sync windows are shut; Params: the revision that waits
	HoldManual        HoldCode = 52       // an application is synced by hand; Params: the revision that waits
	HoldGated         HoldCode = 90       // spec.schedulingGates; Params: their names
	HoldRewind        HoldCode = 40       // the branch doesn't follow from what was there before; Params: the revision that waits, the one before it
)

// A Held is something wanted that a rule says not yet.
type Held struct {
	ID     string   `json:"id" pb:"1"` // "h-41c2"
	Object Ref      `json:"object,omitzero" pb:"2"`
	Code   HoldCode `json:"code" pb:"3"`
	OS     OS       `json:"os,omitempty" pb:"4"`
	Count  int32    `json:"count,omitempty" pb:"5"`  // pods that wait
	Params []string `json:"params,omitempty" pb:"6"` // typed by Code: image names, node names, pod names
	// Decided is the record with every node's reason, for NoNode and NoRoom.
	Decided Seq `json:"decided,omitempty" pb:"7"`
}

// BudgetParam begins those Params of HoldBudget that name a PodDisruptionBudget;
// the others are pods. Where there is none, the workload's own budget refuses.
const BudgetParam = "pdb/"

// SurgeFirst among the Params of HoldNoRoom: a rollout that lets no pod be away
// can't begin without the pod that found no room.
const SurgeFirst = "surge"

// Released ends a hold.
type Released struct {
	ID       string `json:"id" pb:"1"`
	Object   Ref    `json:"object,omitzero" pb:"2"`
	Approved bool   `json:"approved,omitempty" pb:"3"` // by the record's actor; else by the world
}

// RolledOut says that every pod of a workload runs its newest template and is available.
type RolledOut struct {
	Workload Ref  `json:"workload" pb:"1"`
	Partial  bool `json:"partial,omitempty" pb:"2"` // a partition keeps some pods on the template before
	// Keep is how many revisions stay, as in Revised. 0: all that there are.
	Keep int32 `json:"keep,omitempty" pb:"80"`
}

// Stalled says that a rollout made no progress within its deadline.
type Stalled struct {
	Workload Ref `json:"workload" pb:"1"`
}

// Converged says that all of an application's revision is there and available.
type Converged struct {
	Revision Revision `json:"revision" pb:"1"`
}

// Degraded says that an application that had converged no longer has.
type Degraded struct {
	Revision Revision `json:"revision" pb:"1"`
	Object   Ref      `json:"object" pb:"2"` // the first workload that isn't available
}

// CommandVerb is what a person asked for.
type CommandVerb uint8

// What a person can ask for.
const (
	CmdApprove CommandVerb = iota + 1
	CmdCordon
	CmdUncordon
	CmdDeletePod
	CmdRestart
	CmdRemoveNode
	CmdExec
	CmdDown
	CmdSync
	CmdSuspend
	CmdResume
	CmdDrain
	CmdReject
	CmdPromote
	CmdRollback
)

// String is the verb as on the command line.
func (v CommandVerb) String() string {
	switch v {
	case CmdErase:
		return "erase"
	case CmdEvict:
		return "evict"
	case CmdDropClaim:
		return "delete data"
	default:
	}
	names := [...]string{"", "approve", "cordon", "uncordon", "delete pod", "restart", "remove node", "exec", "down", "sync", "suspend", "resume", "drain", "reject", "promote", "rollback"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// Commanded is what a person asked for; what follows from it has this record
// as its cause.
type Commanded struct {
	Verb   CommandVerb `json:"verb" pb:"1"`
	Object Ref         `json:"object,omitzero" pb:"2"` // also Node and Pod
	Reason Text        `json:"reason,omitzero" pb:"3"`
	Detail Text        `json:"detail,omitzero" pb:"4"` // exec: the command line
	Until  int64       `json:"until,omitempty" pb:"5"`
	ID     string      `json:"id,omitempty" pb:"6"` // approve: the hold
}

// SourceLost says that an application's source doesn't answer.
type SourceLost struct {
	Detail Text `json:"detail,omitzero" pb:"1"`
}

// SourceBack says that it answers again.
type SourceBack struct{}

// ObjectGone says that a pruned object's last pod is gone, and with it the object.
type ObjectGone struct {
	Ref Ref `json:"ref" pb:"1"`
}

// Kind implements Fact.
func (*LogStarted) Kind() Kind { return KindLogStarted }

// Kind implements Fact.
func (*ControllerStarted) Kind() Kind { return KindControllerStarted }

// Kind implements Fact.
func (*ControllerStopped) Kind() Kind { return KindControllerStopped }

// Kind implements Fact.
func (*ClockStepped) Kind() Kind { return KindClockStepped }

// Kind implements Fact.
func (*NodeJoined) Kind() Kind { return KindNodeJoined }

// Kind implements Fact.
func (*NodeChanged) Kind() Kind { return KindNodeChanged }

// Kind implements Fact.
func (*NodeReady) Kind() Kind { return KindNodeReady }

// Kind implements Fact.
func (*NodeLost) Kind() Kind { return KindNodeLost }

// Kind implements Fact.
func (*NodeSuspect) Kind() Kind { return KindNodeSuspect }

// Kind implements Fact.
func (*NodeCordoned) Kind() Kind { return KindNodeCordoned }

// Kind implements Fact.
func (*NodeRemoved) Kind() Kind { return KindNodeRemoved }

// Kind implements Fact.
func (*AppDeclared) Kind() Kind { return KindAppDeclared }

// Kind implements Fact.
func (*AppRemoved) Kind() Kind { return KindAppRemoved }

// Kind implements Fact.
func (*RevisionRejected) Kind() Kind { return KindRevisionRejected }

// Kind implements Fact.
func (*RevisionApplied) Kind() Kind { return KindRevisionApplied }

// Kind implements Fact.
func (*ImageResolved) Kind() Kind { return KindImageResolved }

// Kind implements Fact.
func (*Revised) Kind() Kind { return KindRevised }

// Kind implements Fact.
func (*Decided) Kind() Kind { return KindDecided }

// Kind implements Fact.
func (*PodPlaced) Kind() Kind { return KindPodPlaced }

// Kind implements Fact.
func (*PodStopping) Kind() Kind { return KindPodStopping }

// Kind implements Fact.
func (*PodGone) Kind() Kind { return KindPodGone }

// Kind implements Fact.
func (*PodObserved) Kind() Kind { return KindPodObserved }

// Kind implements Fact.
func (*PodFlapping) Kind() Kind { return KindPodFlapping }

// Kind implements Fact.
func (*PodSettled) Kind() Kind { return KindPodSettled }

// Kind implements Fact.
func (*Held) Kind() Kind { return KindHeld }

// Kind implements Fact.
func (*Released) Kind() Kind { return KindReleased }

// Kind implements Fact.
func (*RolledOut) Kind() Kind { return KindRolledOut }

// Kind implements Fact.
func (*Converged) Kind() Kind { return KindConverged }

// Kind implements Fact.
func (*Degraded) Kind() Kind { return KindDegraded }

// Kind implements Fact.
func (*Commanded) Kind() Kind { return KindCommanded }

// Kind implements Fact.
func (*SourceLost) Kind() Kind { return KindSourceLost }

// Kind implements Fact.
func (*SourceBack) Kind() Kind { return KindSourceBack }

// Kind implements Fact.
func (*ObjectGone) Kind() Kind { return KindObjectGone }

// Kind implements Fact.
func (*RevisionSeen) Kind() Kind { return KindRevisionSeen }

// Kind implements Fact.
func (*Stalled) Kind() Kind { return KindStalled }
