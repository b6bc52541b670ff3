package sim

import (
	"fmt"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// complete is the law of the end that the log alone is held to: what was begun has
// ended, each thing once, and nothing ended that wasn't begun.
func (w *world) complete() {
	open := map[string]state.Seq{}
	begin := func(r *state.Record, format string, args ...any) { open[fmt.Sprintf(format, args...)] = r.Seq }
	end := func(format string, args ...any) { delete(open, fmt.Sprintf(format, args...)) }
	placed, stopping := map[state.UID]bool{}, map[state.UID]bool{}
	id := w.ctl.view.LogID
	for i, raw := range w.ctl.disk {
		if was, ok := w.ctl.damage[i]; ok {
			raw = was // what the disk did to it later is I13's matter
		}
		r, err := recordpb.UnmarshalRecord(raw)
		if err != nil {
			w.fail("complete", "record %d: %v", i+1, err)
			return
		}
		if r.Cause >= r.Seq {
			w.fail("complete", "record %d is caused by record %d", r.Seq, r.Cause)
		}
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			uid := state.NewUID(id, r.Seq, f.Pod.Namespace, f.Pod.Name)
			placed[uid] = true
			begin(r, "placing %s", uid)
		case *state.PodObserved:
			end("placing %s", f.UID)
		case *state.PodStopping:
			stopping[f.UID] = true
			begin(r, "stopping %s", f.UID)
		case *state.PodGone:
			if !placed[f.UID] {
				w.fail("complete", "record %d: %s is gone, and nothing placed it", r.Seq, f.UID)
			}
			if !stopping[f.UID] && !f.Vanished && !f.Fenced {
				w.fail("complete", "record %d: %s ended, and nothing says that it should", r.Seq, f.UID)
			}
			end("placing %s", f.UID)
			end("stopping %s", f.UID)
		case *state.CronFired:
			begin(r, "the Job %s", f.Job)
		case *state.JobMoved:
			end("the Job %s", f.Workload)
		case *state.JobDropped:
			end("the Job %s", f.Job)
		case *state.ObjectGone:
			end("the Job %s", f.Ref)
		case *state.ClaimDropped:
			begin(r, "deleting the volume %s", f.Volume)
		case *state.VolumeGone:
			end("deleting the volume %s", f.Volume)
		case *state.NodeLost:
			begin(r, "the loss of %s", f.Node)
		case *state.NodeReady:
			end("the loss of %s", f.Node)
		case *state.NodeRemoved:
			end("the loss of %s", f.Node)
		case *state.RevisionApplied:
			begin(r, "applying to %s", r.App)
		case *state.Converged:
			end("applying to %s", r.App)
		case *state.AppRemoved: // nothing of it is wanted any more
			end("applying to %s", f.Name)
		}
	}
	for _, what := range sortedKeys(open) {
		w.fail("complete", "%s began with record %d and has no outcome", what, open[what])
	}
}
