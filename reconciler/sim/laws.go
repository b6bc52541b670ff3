package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// alone is the first law: no identity of a StatefulSet runs twice, on any node,
// at any instant.
func (w *world) alone(pod *state.AssignedPod) {
	if pod.Workload.Kind != "StatefulSet" {
		return
	}
	for _, n := range w.nodes {
		for _, c := range n.containers {
			if c.Running && c.pod.Workload == pod.Workload && c.pod.Key == pod.Key && c.UID != pod.UID {
				w.fail("%s runs twice: as %s and, on %s, as %s", pod.Key, pod.UID, n.name, c.UID)
			}
		}
	}
}

// counts are of one workload's pods.
type counts struct{ alive, up int }

// seen is what the laws need to know of the state before a step.
type seen struct {
	workloads map[state.Ref]counts
	where     map[state.UID]state.NodeName
	fast      map[state.UID]bool // of the shortest lease
}

func observe(s *state.State) seen {
	out := seen{map[state.Ref]counts{}, make(map[state.UID]state.NodeName, len(s.Pods)), map[state.UID]bool{}}
	for ref, w := range s.Workloads {
		out.workloads[ref] = count(w, s.At)
	}
	for uid, p := range s.Pods {
		out.where[uid] = p.Node
		if p.Loss == lease.FailoverFast {
			out.fast[uid] = true
		}
	}
	return out
}

func count(w *state.Workload, now state.Instant) counts {
	var c counts
	least := settles(w)
	for _, p := range w.Pods {
		if p.Stopping || p.Lost {
			continue
		}
		c.alive++
		if p.Available(now, least) {
			c.up++
		}
	}
	return c
}

// settles is how long a pod is ready before it counts as available.
func settles(w *state.Workload) time.Duration {
	if d, ok := w.Deployment(); ok {
		return time.Duration(d.Spec.MinReadySeconds) * time.Second
	}
	if set, ok := w.StatefulSet(); ok {
		return time.Duration(set.Spec.MinReadySeconds) * time.Second
	}
	return 0
}

// obey checks the laws that a step can break.
func (w *world) obey(before seen, s *state.State, records []*state.Record) {
	w.obeyLeases(s)
	w.obeyClaims(s, records)
	for _, n := range s.Nodes {
		var used state.Resources
		for _, p := range n.Pods {
			used = used.Add(p.Charge())
			if p.Template.OS != state.AnyOS && p.Template.OS != n.Facts.OS {
				w.fail("%s is a %s pod on %s node %s", p.Key, p.Template.OS, n.Facts.OS, n.Name)
			}
		}
		if used != n.Used {
			w.fail("node %s counts %+v as used, its pods ask %+v", n.Name, n.Used, used)
		}
		if !n.Facts.Allocatable.Fits(n.Used) {
			w.fail("node %s is over-committed: %+v of %+v", n.Name, n.Used, n.Facts.Allocatable)
		}
	}
	for _, r := range records {
		switch f := r.Fact.(type) {
		case *state.PodGone:
			w.obeyGone(s, w.node(before.where[f.UID]), f)
		case *state.NodeLost:
			if n := w.node(f.Node); n != nil && w.now-n.fresh < w.patience(before, f.Node) {
				w.fail("%s is lost, and was heard of %s ago", n.name, w.now-n.fresh)
			}
		case *state.RevisionApplied:
			w.obeyApplied(f)
		case *state.PodPlaced:
			w.obeyPlaced(s, f)
			w.placed[state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)] = r.Seq
		case *state.PodStopping:
			w.obeyStopping(before, s, f)
		}
	}
	for ref, wl := range s.Workloads {
		d, ok := wl.Deployment()
		if !ok || wl.Deleting {
			continue
		}
		surge, _ := budget(d, int(wl.Replicas()))
		if c := count(wl, s.At); c.alive > max(int(wl.Replicas())+surge, before.workloads[ref].alive) {
			w.fail("%s has %d pods, %d replicas and %d surge", ref, c.alive, wl.Replicas(), surge)
		}
	}
}

// obeyGone: what is gone does not run, and its node, but for one that a person
// removed, had been told of it.
func (w *world) obeyGone(s *state.State, n *node, f *state.PodGone) {
	if n != nil && !f.Fenced && n.told < w.placed[f.UID] && s.Nodes[n.name] != nil {
		w.fail("%s counts as gone, and %s was never told to run it", f.UID, n.name)
	}
	for _, n := range w.nodes {
		for k, c := range n.containers {
			if k.uid == f.UID && c.Running {
				w.fail("%s counts as gone and runs on %s", c.pod.Key, n.name)
			}
		}
	}
}

// patience is how long a node is silent before it may count as lost: as its
// shortest lease lasts.
func (w *world) patience(before seen, name state.NodeName) time.Duration {
	for uid, node := range before.where {
		if node == name && before.fast[uid] {
			return lease.FailoverFast.Terms().Wait
		}
	}
	return lease.Failover.Terms().Wait
}

// obeyApplied: one revision has one meaning.
func (w *world) obeyApplied(f *state.RevisionApplied) {
	if old, ok := w.applied[f.Revision]; ok && old != f.Manifest {
		w.fail("revision %s is applied again, as something else", f.Revision)
	}
	w.applied[f.Revision] = f.Manifest
}

// obeyLeases: a node that is silent for longer than a lease is known to be lost.
func (w *world) obeyLeases(s *state.State) {
	for _, n := range w.nodes {
		silent := w.now - max(n.any, w.ctl.born)
		if fold := s.Nodes[n.name]; fold != nil && fold.Ready && silent > lease.Failover.Terms().Wait+time.Second {
			w.fail("%s is silent for %s and counts as ready", n.name, silent)
		}
	}
}

// sameFold: there is one state for one log.
func (w *world) sameFold(what string, a, b *state.State) {
	x, err := recordpb.Marshal(a.Snapshot())
	y, err2 := recordpb.Marshal(b.Snapshot())
	if err != nil || err2 != nil || !bytes.Equal(x, y) {
		w.fail("%s gives another state (%v, %v)", what, err, err2)
	}
}

func budget(d *appsv1.Deployment, replicas int) (surge, away int) {
	r := d.Spec.Strategy.RollingUpdate
	surge, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, replicas, true)
	away, _ = intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, replicas, false)
	if surge == 0 && away == 0 {
		away = 1
	}
	return surge, away
}

// obeyPlaced: in an ordered set nothing starts before all below it are ready,
// and below a partition nothing new starts.
func (w *world) obeyPlaced(s *state.State, f *state.PodPlaced) {
	wl := s.Workloads[f.Workload]
	if wl == nil {
		return
	}
	set, ok := wl.StatefulSet()
	if !ok {
		return
	}
	position := 0
	for _, ordinal := range ordinals(wl) {
		if ordinal == f.Ordinal {
			break
		}
		position++
		if set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement {
			continue
		}
		i := slices.IndexFunc(wl.Pods, func(p *state.Pod) bool { return p.Ordinal == ordinal && !p.Stopping })
		if i < 0 || !wl.Pods[i].Available(s.At, settles(wl)) {
			w.fail("%s starts while %s-%d is not ready", f.Pod, wl.Ref.Name, ordinal)
		}
	}
	u, v := set.Spec.UpdateStrategy.RollingUpdate, wl.Variant(f.OS)
	if u != nil && u.Partition != nil && position < int(*u.Partition) && v != nil && v.Current != nil && f.Template != v.Current.Digest {
		w.fail("%s is below the partition of %d and starts with the new revision", f.Pod, *u.Partition)
	}
}

func ordinals(wl *state.Workload) []int32 {
	var out []int32
	for _, v := range wl.Variants {
		for i := range v.Replicas {
			out = append(out, v.Start+i)
		}
	}
	slices.Sort(out)
	return out
}

// obeyStopping: a rollout keeps enough pods available, and an ordered set goes
// down from the top.
func (w *world) obeyStopping(before seen, s *state.State, f *state.PodStopping) {
	p := s.Pods[f.UID]
	if p == nil {
		return
	}
	wl := s.Workloads[p.Workload]
	if wl == nil {
		return
	}
	if d, ok := wl.Deployment(); ok && f.Why == state.StopOutdated && p.Ready && s.At.Since(p.ReadySince) >= settles(wl) {
		_, away := budget(d, int(wl.Replicas()))
		if c := count(wl, s.At); c.up < int(wl.Replicas())-away {
			w.fail("%s stops %s and has %d of %d available, %d may be away (before: %+v)", wl.Ref, p.Key, c.up, wl.Replicas(), away, before.workloads[wl.Ref])
		}
	}
	if set, ok := wl.StatefulSet(); ok && f.Why == state.StopScaledDown && set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		for _, o := range wl.Pods {
			if o.Ordinal > p.Ordinal && !slices.Contains(ordinals(wl), o.Ordinal) {
				w.fail("%s stops before %s, which also goes, has gone", p.Key, o.Key)
			}
		}
	}
}

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
	switch {
	case app == nil || app.Manifest != w.author.digest:
		return "the newest commit isn't applied"
	case !app.Converged:
		for _, wl := range s.SortedWorkloads() {
			if !wl.Complete || wl.Deleting {
				return fmt.Sprintf("%s is not rolled out: %s", wl.Ref, describe(wl))
			}
		}
		return "the application has not converged"
	case len(s.Holds) > 0:
		return "something is held"
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
	if len(n.sandboxes) != len(fold.Pods) {
		return fmt.Sprintf("%s has %d sandboxes, %d pods are assigned", n.name, len(n.sandboxes), len(fold.Pods))
	}
	for uid, p := range fold.Pods {
		c := n.containers[ckey{uid, "main"}]
		if c == nil || !c.Running || p.Stopping {
			return fmt.Sprintf("%s does not run %s", n.name, p.Key)
		}
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
		w.fail("%s after the last fault: %s", healing, why)
		return
	}
	out := w.ctl.machine.Step(w.instant(), nil)
	if len(out.Records) > 0 {
		w.fail("a converged world still decides: %s", out.Records[0].Fact.Kind())
	}
	for _, wl := range w.ctl.machine.State().SortedWorkloads() {
		for _, p := range wl.Pods {
			if !wl.IsCurrent(p) {
				w.fail("%s runs an old revision in a converged world", p.Key)
			}
		}
	}
}
