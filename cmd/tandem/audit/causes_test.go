package audit_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// chain is a record's causes, itself first.
func chain(all map[state.Seq]*state.Record, from *state.Record) []state.Kind {
	var out []state.Kind
	for r := from; r != nil; r = all[r.Cause] {
		out = append(out, r.Fact.Kind())
	}
	return out
}

// What becomes of a pod leads back, record by record, to the commit or the
// person that wanted it; no effect is without its intent.
func TestEveryEffectLeadsBackToItsCause(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "first", shop("shop.example/web:1", 2))
	w.converged("first")
	w.push("Ada <ada@shop.example>", "second", shop("shop.example/web:2", 1))
	w.converged("second")
	web := state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}
	var victim *state.Pod
	w.ctl.View(func(s *state.State) { victim = s.Workloads[web].Pods[0] })
	w.do(&state.Command{
		Verb: state.CmdDeletePod, Object: state.Ref{Kind: "Pod", Namespace: victim.Key.Namespace, Name: victim.Key.Name},
		Actor: w.ctl.Text("eva"), Reason: w.ctl.Text("looks odd"),
	})
	w.until("another pod", func(s *state.State) bool {
		pods := s.Workloads[web].Pods
		return len(pods) == 1 && pods[0].UID != victim.UID && pods[0].Ready && s.Apps[state.RootApp].Converged
	})
	w.end()

	a := open(t, dir)
	all := map[state.Seq]*state.Record{}
	stopped := map[state.UID]bool{}
	var last *state.Record
	for r, err := range a.Store.Read(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		all[r.Seq] = r
		if r.Cause >= r.Seq {
			t.Errorf("record %d is caused by record %d", r.Seq, r.Cause)
		}
		switch f := r.Fact.(type) {
		case *state.PodStopping:
			stopped[f.UID] = true
		case *state.PodGone:
			if !f.Vanished && !stopped[f.UID] {
				t.Errorf("record %d: pod %s ended, and nothing said that it should", r.Seq, f.UID)
			}
		case *state.PodObserved:
			if !f.Ready {
				break
			}
			last = r
			kinds := chain(all, r)
			if root := kinds[len(kinds)-1]; root != state.KindRevisionApplied && root != state.KindCommanded {
				t.Errorf("record %d, a pod is ready, leads back to %s: %v", r.Seq, root, kinds)
			}
		}
		switch r.Fact.(type) {
		case *state.Revised, *state.Decided, *state.PodPlaced, *state.PodObserved, *state.PodStopping, *state.PodGone, *state.ImageResolved,
			*state.RolledOut, *state.Converged:
			if r.Cause == 0 {
				t.Errorf("record %d, %s, has no cause", r.Seq, r.Fact.Kind())
			}
		}
	}
	if kinds := chain(all, last); kinds[len(kinds)-1] != state.KindCommanded {
		t.Errorf("the pod in the deleted one's place leads back to %v", kinds)
	}
}
