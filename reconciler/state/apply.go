package state

import (
	"fmt"
)

// Apply folds one record. The rules are frozen: a log that any released version
// wrote folds to the same state for ever. It fails only where the log is
// damaged, is not in order, or names a blob that isn't there.
func (s *State) Apply(r *Record) error {
	if r.Seq != s.Seq+1 {
		return fmt.Errorf("record %d follows record %d", r.Seq, s.Seq)
	}
	if err := s.apply(r); err != nil {
		return fmt.Errorf("record %d (%s): %w", r.Seq, r.Fact.Kind(), err)
	}
	s.trials(r, s.At)
	s.Seq, s.At = r.Seq, r.At
	return nil
}

func (s *State) apply(r *Record) error {
	switch f := r.Fact.(type) {
	case *LogStarted:
		s.LogID = f.ID
	case *ControllerStarted:
		s.Started, s.Stopped = r.At, false
	case *ControllerStopped:
		s.Stopped = true
		for _, n := range s.Nodes {
			n.Parked = true
		}
	case *NodeJoined, *NodeChanged, *NodeReady, *NodeLost, *NodeSuspect, *NodeCordoned, *NodeRemoved:
		return s.applyNode(r)
	case *AppQuarantined, *AppDeclared, *AppRemoved, *RevisionRejected, *RevisionApplied, *RevisionSeen, *Converged, *Degraded, *SourceLost, *SourceBack, *ObjectGone, *AppSuspended, *RevisionsSeen:
		return s.applyApp(r)
	case *ImageResolved:
		im := f.Image
		s.resolve(ImageKey{App: r.App, Manifest: f.Manifest, Name: im.Name}, &im)
	case *Revised, *RolledOut, *Stalled, *Commanded, *Scaled:
		return s.applyWorkload(r)
	case *PodCounted, *JobMoved:
		return s.applyJob(r)
	case *CronFired, *JobDropped:
		return s.applyCron(r)
	case *GateJobStarted, *GateJobEnded:
		return s.applyGateJob(r)
	case *PodPlaced, *PodStopping, *PodHurried, *PodGone, *PodObserved, *PodFlapping, *PodSettled:
		return s.applyPod(r)
	case *NodeRanged, *ServiceAddressed, *RoutingChosen:
		return s.applyNetwork(r)
	case *ClaimBound, *ClaimDropped, *VolumeGone, *ClaimResized:
		return s.applyClaim(r)
	case *PipelineDeclared, *PipelineRemoved, *CandidateReviewed, *PromotionRequested, *PromotionVoted, *PromotionStarted, *PromotionEnded,
		*StageSuspended, *CheckReported:
		return s.applyPromotion(r)
	case *AccessDeclared:
		s.Access = &f.Access
	case *AccessRemoved:
		s.Access = nil
	case *DeploymentNoted:
		return s.noted(r, f)
	case *SessionEnded, *JoinTokenNoted:
		s.applySession(r)
	case *Held:
		s.hold(r, f)
	case *Released:
		s.release(f)
	case *Decided, *ClockStepped, *SigningKeyRotated:
		// They explain; they change nothing.
	default:
		return fmt.Errorf("this version does not know the fact")
	}
	return nil
}

func (s *State) hold(r *Record, f *Held) {
	h := &Hold{Held: *f, App: r.App, Since: r.At, Seq: r.Seq}
	if old := s.Holds[f.ID]; old != nil {
		h.Since, h.Approved = old.Since, old.Approved
	}
	s.Holds[f.ID] = h
	if w := s.Workloads[f.Object]; w != nil {
		w.Holds[f.ID] = h
	}
}

func (s *State) release(f *Released) {
	if f.Approved {
		if h := s.Holds[f.ID]; h != nil {
			h.Approved = true
		}
		return
	}
	delete(s.Holds, f.ID)
	if w := s.Workloads[f.Object]; w != nil {
		delete(w.Holds, f.ID)
	}
}
