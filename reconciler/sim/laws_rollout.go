package sim

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func budget(d *appsv1.Deployment, replicas int) (surge, away int) {
	r := d.Spec.Strategy.RollingUpdate
	if r == nil {
		return 0, replicas
	}
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
	lives := 0
	for _, p := range wl.Pods {
		if p.Key == f.Pod {
			lives++
		}
	}
	if lives > 1 {
		w.fail("I9", "%s is placed while a life of it has not ended", f.Pod)
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
		// One that is put out of its node in this very step was there when this was decided.
		i := slices.IndexFunc(wl.Pods, func(p *state.Pod) bool { return p.Ordinal == ordinal && (!p.Stopping || p.StopAt == s.At) })
		if p := wl.Pods[max(i, 0)]; i < 0 || !p.Ready || p.Lost || s.At.Since(p.ReadySince) < settles(wl) {
			w.fail("I5", "%s starts while %s-%d is not ready", f.Pod, wl.Ref.Name, ordinal)
		}
	}
	u, v := set.Spec.UpdateStrategy.RollingUpdate, wl.Variant(f.OS)
	if u != nil && u.Partition != nil && position < int(*u.Partition) && v != nil && v.Current != nil && f.Template != v.Current.Digest {
		w.fail("I6", "%s is below the partition of %d and starts with the new revision", f.Pod, *u.Partition)
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
func (w *world) obeyStopping(s *state.State, f *state.PodStopping) {
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
		if c := count(wl, s.At); c.up < int(wl.Replicas())-away && d.Spec.Strategy.RollingUpdate != nil {
			w.fail("I4", "%s stops %s and has %d of %d available, %d may be away", wl.Ref, p.Key, c.up, wl.Replicas(), away)
		}
	}
	if set, ok := wl.StatefulSet(); ok && f.Why == state.StopOutdated && p.Ready {
		w.obeyAway(wl, set)
	}
	if set, ok := wl.StatefulSet(); ok && f.Why == state.StopScaledDown && set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		for _, o := range wl.Pods {
			if o.Ordinal > p.Ordinal && !slices.Contains(ordinals(wl), o.Ordinal) {
				w.fail("I5", "%s stops before %s, which also goes, has gone", p.Key, o.Key)
			}
		}
	}
}

// counts are of one workload's pods.
type counts struct{ alive, up int }

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
	switch b := w.Owned.Object.First().(type) {
	case *appsv1.Deployment:
		return time.Duration(b.Spec.MinReadySeconds) * time.Second
	case *appsv1.StatefulSet:
		return time.Duration(b.Spec.MinReadySeconds) * time.Second
	case *appsv1.DaemonSet:
		return time.Duration(b.Spec.MinReadySeconds) * time.Second
	}
	return 0
}

// obeyTotals is I4 for what there is in all.
func (w *world) obeyTotals(s *state.State) {
	for ref, wl := range s.Workloads {
		if wl.Deleting {
			continue
		}
		if d, ok := wl.Deployment(); ok {
			surge, _ := budget(d, int(wl.Replicas()))
			if c := count(wl, s.At); c.alive > max(int(wl.Replicas())+surge, w.laws.alive[ref]) {
				w.fail("I4", "%s has %d pods, %d replicas and %d surge", ref, c.alive, wl.Replicas(), surge)
			}
		}
		if set, ok := wl.Owned.Object.First().(*appsv1.DaemonSet); ok {
			w.obeyDaemons(wl, set)
		}
	}
}

// obeyDaemons: no node has more pods of a DaemonSet than its surge allows.
func (w *world) obeyDaemons(wl *state.Workload, set *appsv1.DaemonSet) {
	most := 1
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.MaxSurge != nil && r.MaxSurge.IntValue() > 0 {
		most = 2
	}
	at := map[state.NodeName]int{}
	for _, p := range wl.Pods {
		if !p.Stopping && !p.Lost && !p.Ended() {
			at[p.Node]++
			if at[p.Node] > most {
				w.fail("I4", "%s has %d pods on %s", wl.Ref, at[p.Node], p.Node)
			}
		}
	}
}

// obeyJob is I4 for Jobs: no more than parallelism at a time, no index twice,
// nothing after the end.
func (w *world) obeyJob(s *state.State, f *state.PodPlaced) {
	wl := s.Workloads[f.Workload]
	if wl == nil || wl.Job == nil {
		return
	}
	j, ok := wl.BatchJob()
	if !ok {
		return
	}
	if wl.Job.Over() || state.Holds(wl.Job.Done, f.Ordinal) {
		w.fail("I4", "%s starts %s, and is %s", wl.Ref, f.Pod, wl.Job.Stage)
	}
	active, same := 0, 0
	for _, p := range wl.Pods {
		if p.Ended() || p.Stopping || p.Lost {
			continue
		}
		active++
		if p.Ordinal >= 0 && p.Ordinal == f.Ordinal {
			same++
		}
	}
	if most := int(*j.Spec.Parallelism); active > most || same > 1 {
		w.fail("I4", "%s runs %d pods, %d of index %d; parallelism is %d", wl.Ref, active, same, f.Ordinal, most)
	}
}

// obeyCron: each time begins one Job, in order, and Forbid means one at a time.
func (w *world) obeyCron(s *state.State, f *state.CronFired) {
	if f.At <= w.laws.fired[f.CronJob] {
		w.fail("I9", "%s begins a Job for a time that has had one", f.CronJob)
	}
	w.laws.fired[f.CronJob] = f.At
	cron := s.Workloads[f.CronJob]
	if cron == nil {
		return
	}
	if c, ok := cron.CronJob(); !ok || c.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
		return
	}
	for _, child := range cron.Children() {
		if child.Ref != f.Job && !child.Job.Over() && !child.Deleting {
			w.fail("I4", "%s begins %s while %s runs, and forbids that", f.CronJob, f.Job, child.Ref)
		}
	}
}

// obeyBudget is I4 for disruption budgets: a pod that is ready is put out of its
// node only while enough others are.
func (w *world) obeyBudget(s *state.State, f *state.PodStopping, all []*state.Record) {
	p := s.Pods[f.UID]
	if f.Why != state.StopDrained || p == nil || !p.Ready || p.Workload.Kind != "Deployment" && p.Workload.Kind != "StatefulSet" {
		return
	}
	rule := s.Rules[state.Ref{Kind: "PodDisruptionBudget", Namespace: p.Key.Namespace, Name: p.Workload.Name}]
	wl := s.Workloads[p.Workload]
	if rule == nil || wl == nil {
		return
	}
	for _, r := range all {
		switch r.Fact.(type) {
		case *state.PodPlaced, *state.PodStopping, *state.PodGone:
		default:
			return // what was decided before that can't be told from what comes after
		}
	}
	pdb, ok := rule.Object.First().(*policyv1.PodDisruptionBudget)
	if !ok || pdb.Spec.MaxUnavailable == nil {
		return
	}
	healthy := 0
	for _, o := range wl.Pods {
		if o.Ready && !o.Stopping && !o.Lost {
			healthy++
		}
	}
	if least := int(wl.Replicas()) - pdb.Spec.MaxUnavailable.IntValue(); healthy < least {
		w.fail("I4", "%s is put out and leaves %d healthy, its budget asks for %d", p.Key, healthy, least)
	}
}

// obeyAway is I4 for a StatefulSet's update: with what stops now, no more are
// away than maxUnavailable lets be; what was broken before isn't counted.
func (w *world) obeyAway(wl *state.Workload, set *appsv1.StatefulSet) {
	most := 1
	if u := set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		most = max(1, u.MaxUnavailable.IntValue())
	}
	away := 0
	for _, p := range wl.Pods {
		if p.Stopping && p.StopWhy == state.StopOutdated && p.Ready && slices.Contains(ordinals(wl), p.Ordinal) {
			away++
		}
	}
	if away > most {
		w.fail("I4", "%s replaces %d pods at once, maxUnavailable is %d", wl.Ref, away, most)
	}
}
