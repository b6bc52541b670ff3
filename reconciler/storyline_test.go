package reconciler_test

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func podSpec(o *state.Object) *corev1.PodSpec {
	if t := state.TemplateOf(o.First()); t != nil {
		return &t.Spec
	}
	return nil
}

// line is a record as a story shows it; empty for those that only explain.
func (s *story) line(r *state.Record) string {
	switch f := r.Fact.(type) {
	case *state.NodeJoined, *state.Decided, *state.ImageResolved, *state.ControllerStarted, *state.AppDeclared, *state.LogStarted, *state.NodeRanged, *state.NodeSuspect:
		return ""
	case *state.NodeReady:
		return fmt.Sprintf("node %s ready", f.Node)
	case *state.NodeLost:
		return fmt.Sprintf("node %s lost", f.Node)
	case *state.NodeRemoved:
		return fmt.Sprintf("node %s removed", f.Node)
	case *state.NodeCordoned:
		return fmt.Sprintf("node %s cordoned %t", f.Node, f.On)
	case *state.RevisionApplied:
		line := "applied"
		for _, c := range f.Changes {
			line += fmt.Sprintf(" %s %s", c.Verb, c.Ref)
		}
		return line
	case *state.RevisionRejected:
		if len(f.Fixed) > 0 {
			return fmt.Sprintf("rejected: can't be changed: %v", f.Fixed)
		}
		return fmt.Sprintf("rejected: %d problems, conflicts %v", f.Problems, f.Conflicts)
	case *state.Revised:
		return fmt.Sprintf("revision %d of %s %s", f.Number, f.Workload.Name, f.OS)
	case *state.PodPlaced:
		return fmt.Sprintf("place %s on %s", s.placed(r, f), f.Node)
	case *state.PodStopping:
		return fmt.Sprintf("stop %s: %s", s.of(f.UID), f.Why)
	case *state.PodHurried:
		return fmt.Sprintf("%s is given %s to end", s.of(f.UID), f.Grace)
	case *state.PodGone:
		return s.goneLine(f)
	case *state.PodObserved:
		word := "not ready"
		if f.Ready {
			word = "ready"
		}
		return fmt.Sprintf("%s is %s, %s", s.of(f.UID), f.Phase, word)
	case *state.PodFlapping:
		return fmt.Sprintf("%s flaps: %d edges", s.of(f.UID), f.Edges)
	case *state.PodSettled:
		return fmt.Sprintf("%s settled", s.of(f.UID))
	case *state.Held:
		return fmt.Sprintf("held %s: code %d %s ×%d %v", f.Object, f.Code, f.OS, f.Count, f.Params)
	case *state.Released:
		return fmt.Sprintf("released %s, approved %t", f.Object, f.Approved)
	case *state.RolledOut:
		return fmt.Sprintf("rolled out %s, partial %t", f.Workload.Name, f.Partial)
	case *state.ServiceAddressed:
		line := fmt.Sprintf("address of %s: %s", f.Service.Name, cmp.Or(f.IP, "none"))
		for _, p := range f.Ports {
			line += fmt.Sprintf(", %d/%s at %d of every node", p.Port, p.Protocol, p.Node)
		}
		return line
	case *state.PodCounted:
		return fmt.Sprintf("%s counts: %s", s.of(f.UID), f.Verdict)
	case *state.JobMoved:
		return strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", f.Workload.Name, f.Stage, f.Why), ": ")
	case *state.Scaled:
		return fmt.Sprintf("shares of %s %s for %d", f.Workload.Name, f.OS, f.Replicas)
	case *state.CronFired:
		return fmt.Sprintf("%s begins %s, missed %d", f.CronJob.Name, f.Job.Name, f.Missed)
	case *state.GateJobStarted:
		return fmt.Sprintf("%s judges %s for %s/%s, try %d", f.Job.Name, f.Commit.Tree, f.Pipeline, f.Stage, f.Try)
	case *state.GateJobEnded:
		return strings.TrimSuffix(fmt.Sprintf("%s says of %s: %s, %s", f.Job.Name, f.Commit, f.Outcome, f.Why), ", ")
	case *state.PromotionStarted:
		line := "move the branch to " + f.Tree
		for _, e := range f.Evidence {
			if e.Gate == state.GateJobs {
				line += fmt.Sprintf(", %s %d of %d by %d", e.Name, e.Have, e.Want, len(e.Votes))
			}
		}
		return line
	case *state.PromotionEnded:
		return fmt.Sprintf("%s %s", f.ID, f.Outcome)
	case *state.PromotionRequested:
		return fmt.Sprintf("%s asked for: %s", f.ID, f.Commit.Tree)
	case *state.JobDropped:
		return fmt.Sprintf("drop %s: %s", f.Job.Name, f.Why)
	case *state.ClaimBound:
		return fmt.Sprintf("volume for %s on %s", f.Claim.Name, f.Node)
	case *state.ClaimDropped:
		return fmt.Sprintf("give up the data of %s: %s", f.Claim.Name, f.Why)
	case *state.VolumeGone:
		if f.Unseen {
			return "its volume went with the node"
		}
		return "its volume is gone"
	case *state.ClaimResized:
		return fmt.Sprintf("%s asks for %d bytes", f.Claim.Name, f.Capacity)
	case *state.ObjectGone:
		return fmt.Sprintf("gone %s", f.Ref)
	default:
		return r.Fact.Kind().String()
	}
}

func (s *story) placed(r *state.Record, f *state.PodPlaced) string {
	return alias(f.Workload, f.Pod.Name, f.Ordinal, r.Seq)
}

// alias is a pod's name, where that is an identity; else with the number of the
// record that placed it in place of the part that is derived.
func alias(w state.Ref, name string, ordinal int32, placed state.Seq) string {
	switch {
	case w.Kind == "StatefulSet" || w.Kind == "Pod":
		return name
	case ordinal >= 0:
		return fmt.Sprintf("%s-%d-~%d", w.Name, ordinal, placed)
	default:
		return fmt.Sprintf("%s-~%d", w.Name, placed)
	}
}

func (s *story) goneLine(f *state.PodGone) string {
	if f.Fenced {
		return fmt.Sprintf("%s must have ended", s.of(f.UID))
	}
	if f.Vanished {
		return fmt.Sprintf("%s vanished", s.of(f.UID))
	}
	return fmt.Sprintf("%s is gone", s.of(f.UID))
}

// of names a pod by its UID, from the log: it may be gone.
func (s *story) of(uid state.UID) string {
	id := s.m.State().LogID
	for _, r := range s.log {
		if f, ok := r.Fact.(*state.PodPlaced); ok && state.NewUID(id, r.Seq, f.Pod.Namespace, f.Pod.Name) == uid {
			return s.placed(r, f)
		}
	}
	return "?"
}
