package state

import "slices"

// Kinds are the numbers of all facts, ascending.
func Kinds() []Kind {
	var ks []Kind
	for k := range facts() {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// String is the fact's name: "PodPlaced".
func (k Kind) String() string {
	names := [...]string{
		KindLogStarted:        "LogStarted",
		KindControllerStarted: "ControllerStarted",
		KindControllerStopped: "ControllerStopped",
		KindClockStepped:      "ClockStepped",
		KindNodeJoined:        "NodeJoined",
		KindNodeChanged:       "NodeChanged",
		KindNodeReady:         "NodeReady",
		KindNodeLost:          "NodeLost",
		KindNodeCordoned:      "NodeCordoned",
		KindNodeRemoved:       "NodeRemoved",
		KindAppDeclared:       "AppDeclared",
		KindAppRemoved:        "AppRemoved",
		KindRevisionRejected:  "RevisionRejected",
		KindRevisionApplied:   "RevisionApplied",
		KindImageResolved:     "ImageResolved",
		KindRevised:           "Revised",
		KindDecided:           "Decided",
		KindPodPlaced:         "PodPlaced",
		KindPodStopping:       "PodStopping",
		KindPodGone:           "PodGone",
		KindPodObserved:       "PodObserved",
		KindPodFlapping:       "PodFlapping",
		KindPodSettled:        "PodSettled",
		KindHeld:              "Held",
		KindReleased:          "Released",
		KindRolledOut:         "RolledOut",
		KindConverged:         "Converged",
		KindDegraded:          "Degraded",
		KindCommanded:         "Commanded",
		KindSourceLost:        "SourceLost",
		KindSourceBack:        "SourceBack",
		KindObjectGone:        "ObjectGone",
		KindRevisionSeen:      "RevisionSeen",
		KindStalled:           "Stalled",
		KindPodCounted:        "PodCounted",
		KindJobMoved:          "JobMoved",
		KindCronFired:         "CronFired",
		KindJobDropped:        "JobDropped",
		KindScaled:            "Scaled",
		KindNodeRanged:        "NodeRanged",
		KindRoutingChosen:     "RoutingChosen",
		KindServiceAddressed:  "ServiceAddressed",
		KindNodeSuspect:       "NodeSuspect",
		KindClaimBound:        "ClaimBound",
		KindClaimDropped:      "ClaimDropped",
		KindVolumeGone:        "VolumeGone",
		KindClaimResized:      "ClaimResized",
		KindAppQuarantined:    "AppQuarantined",
		KindAppSuspended:      "AppSuspended",

		KindPipelineDeclared:   "PipelineDeclared",
		KindPipelineRemoved:    "PipelineRemoved",
		KindCandidateReviewed:  "CandidateReviewed",
		KindPromotionRequested: "PromotionRequested",
		KindPromotionVoted:     "PromotionVoted",
		KindPromotionStarted:   "PromotionStarted",
		KindPromotionEnded:     "PromotionEnded",
		KindStageSuspended:     "StageSuspended",
		KindCheckReported:      "CheckReported",

		KindAccessDeclared: "AccessDeclared",
		KindAccessRemoved:  "AccessRemoved",

		KindDeploymentNoted: "DeploymentNoted",
		KindJoinTokenNoted:  "JoinTokenNoted",

		KindGateJobStarted: "GateJobStarted",
		KindGateJobEnded:   "GateJobEnded",

		KindSigningKeyRotated: "SigningKeyRotated",
		KindSessionEnded:      "SessionEnded",
	}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return "Unknown"
}
