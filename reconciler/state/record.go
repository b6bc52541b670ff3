package state

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

// A Fact is what a record says. The kinds below are all there are.
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

// The kinds of facts about Jobs that judge commits.
const (
	KindGateJobStarted Kind = 175
	KindGateJobEnded   Kind = 176
)

// KindSigningKeyRotated is of the keys that sign the log.
const KindSigningKeyRotated Kind = 177

// KindSessionEnded is of what people do in pods.
const KindSessionEnded Kind = 178

// KindPodHurried is of pods that a person gives another time to end.
const KindPodHurried Kind = 209

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
func facts() map[Kind]func() Fact { //nolint:funlen // a table
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

		KindDeploymentNoted:   func() Fact { return new(DeploymentNoted) },
		KindGateJobStarted:    func() Fact { return new(GateJobStarted) },
		KindGateJobEnded:      func() Fact { return new(GateJobEnded) },
		KindSigningKeyRotated: func() Fact { return new(SigningKeyRotated) },
		KindSessionEnded:      func() Fact { return new(SessionEnded) },
		KindPodHurried:        func() Fact { return new(PodHurried) },
		KindJoinTokenNoted:    func() Fact { return new(JoinTokenNoted) },
		KindRevisionsSeen:     func() Fact { return new(RevisionsSeen) },
	}
}
