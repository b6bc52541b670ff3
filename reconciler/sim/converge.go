package sim

import (
	"fmt"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// converged says whether all is as Git says, in the records and on the nodes.
func (w *world) converged() bool { return w.missing() == "" }

// missing says what isn't as Git says; empty where all is.
func (w *world) missing() string {
	c := w.ctl
	switch {
	case c.machine == nil:
		return "the controller is down"
	case len(c.waiting) > 0 || c.writing || len(c.events) > 0:
		return "the controller is busy"
	}
	s := c.machine.State()
	app := s.Apps[state.RootApp]
	if app == nil {
		return "there is no application"
	}
	if why := w.unrolled(s); why != "" {
		return why
	}
	for id, h := range s.Holds {
		return fmt.Sprintf("%s is held: %s, code %d, %v", h.Object, id, h.Code, h.Params)
	}
	for _, n := range w.nodes {
		if n.dead {
			if s.Nodes[n.name] != nil {
				return fmt.Sprintf("%s is dead and not removed", n.name)
			}
			continue
		}
		if why := w.nodeMissing(s, n); why != "" {
			return why
		}
	}
	return ""
}

// unrolled is the first application or workload that isn't as the newest commit
// says.
func (w *world) unrolled(s *state.State) string {
	head := w.repo.commits[w.repo.head]
	if w.repo.due || w.repo.polling {
		return "a commit is on its way"
	}
	for _, a := range s.SortedApps() {
		if a.Removed || head.number == 0 {
			continue
		}
		if a.Revision != head.revision() {
			return fmt.Sprintf("application %s is at %s, the branch at commit %d", a.Spec.Name, a.Revision, head.number)
		}
		for _, wl := range s.SortedWorkloads() {
			if wl.App == a.Spec.Name && wl.Parent == nil && (!wl.Complete || wl.Deleting) {
				return fmt.Sprintf("%s is not rolled out: %s", wl.Ref, describe(wl))
			}
			if wl.Job != nil && wl.Parent != nil && !wl.Job.Over() {
				return fmt.Sprintf("%s still runs: %s", wl.Ref, describe(wl))
			}
			if j, ok := wl.BatchJob(); ok && wl.Parent != nil && j.Spec.TTLSecondsAfterFinished != nil {
				return fmt.Sprintf("%s has time left", wl.Ref)
			}
		}
		if !a.Converged {
			return fmt.Sprintf("application %s has not converged", a.Spec.Name)
		}
	}
	return w.wanted(s, head)
}

// wanted says what the head has and the inventory lacks, or the reverse.
func (w *world) wanted(s *state.State, head *commit) string {
	want := map[state.Ref]bool{}
	for _, spec := range head.specs {
		ref := spec.workload(0).Ref
		want[ref] = true
		if s.Workloads[ref] == nil {
			return fmt.Sprintf("%s is not there", ref)
		}
	}
	for _, wl := range s.SortedWorkloads() {
		if wl.Parent == nil && !want[wl.Ref] {
			return fmt.Sprintf("%s left the text and is still there: %s", wl.Ref, describe(wl))
		}
	}
	return ""
}

func describe(wl *state.Workload) string {
	var out strings.Builder
	for _, p := range wl.Pods {
		fmt.Fprintf(&out, " %s(%s ready=%t stopping=%t lost=%t current=%t %s)", p.Key.Name, p.Phase, p.Ready, p.Stopping, p.Lost, wl.IsCurrent(p), p.Reason)
	}
	return out.String()
}

func (w *world) nodeMissing(s *state.State, n *node) string {
	fold := s.Nodes[n.name]
	if fold == nil || !fold.Ready || !n.online {
		return fmt.Sprintf("%s is not connected", n.name)
	}
	for uid, p := range fold.Pods {
		if p.Stopping { // also one whose containers have ended: that it is gone is still to be said
			return fmt.Sprintf("%s is still to be rid of %s", n.name, p.Key)
		}
		if c := n.containers[ckey{uid, "main"}]; !p.Ended() && (c == nil || !c.Running) {
			return fmt.Sprintf("%s does not run %s", n.name, p.Key)
		}
	}
	if why := n.unserved(s); why != "" {
		return why
	}
	if why := n.unkept(s); why != "" {
		return why
	}
	return n.leaks(fold)
}

// leaks is I15: the node has a sandbox and volumes of the pods that it is
// assigned, of no other, and no call is open.
func (n *node) leaks(fold *state.Node) string {
	for uid := range n.sandboxes {
		if fold.Pods[uid] == nil {
			return fmt.Sprintf("%s still has the sandbox of %s", n.name, n.sandboxes[uid].Key)
		}
	}
	for k := range n.containers {
		if _, ok := n.sandboxes[k.uid]; !ok {
			return fmt.Sprintf("%s still has a container of %s, which has no sandbox", n.name, k.uid)
		}
	}
	for uid := range n.mounts {
		if _, ok := n.sandboxes[uid]; !ok {
			return fmt.Sprintf("%s still has the volumes of %s", n.name, uid)
		}
	}
	if len(n.flying) > 0 {
		return fmt.Sprintf("%s has %d calls of its runtime open", n.name, len(n.flying))
	}
	return ""
}

// finish checks the laws of the end: faults have stopped, so all is as Git
// says, and a converged world has an empty plan.
func (w *world) finish() {
	if w.err != nil {
		return
	}
	if why := w.missing(); why != "" {
		law := "I12"
		if strings.Contains(why, " still has ") {
			law = "I15"
		}
		if strings.Contains(why, " serves what ") {
			law = "services"
		}
		w.fail(law, "%s after the last fault: %s", healing, why)
		return
	}
	out := w.ctl.machine.Step(w.instant(), nil)
	if len(out.Records) > 0 {
		w.fail("I12", "a converged world still decides: %s", out.Records[0].Fact.Kind())
	}
	w.complete()
	for _, wl := range w.ctl.machine.State().SortedWorkloads() {
		for _, p := range wl.Pods {
			if !wl.IsCurrent(p) && !w.mayBeOld(wl) {
				w.fail("I12", "%s runs an old revision in a converged world", p.Key)
			}
		}
	}
}

// mayBeOld says whether only a person replaces the workload's pods, or it is a
// Job of a former text.
func (w *world) mayBeOld(wl *state.Workload) bool {
	s := w.repo.find(wl.Ref.Name)
	return wl.Parent != nil || s != nil && s.ondelete
}
