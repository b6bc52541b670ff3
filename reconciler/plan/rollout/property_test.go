package rollout_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// farm is one workload in a world where every pod finds a node: what Next says
// is done at once, and everything else that happens is drawn.
type farm struct {
	t    *rapid.T
	w    *state.Workload
	now  state.Instant
	next uint64
	set  *appsv1.StatefulSetSpec
	dep  *appsv1.DeploymentSpec
}

func templates() []*state.Template {
	var out []*state.Template
	for i := range 4 {
		for _, os := range []state.OS{state.Linux, state.Windows} {
			t, _ := state.NewTemplate(os, &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: fmt.Sprint(i)}}}}, nil)
			out = append(out, t)
		}
	}
	return out
}

func newFarm(t *rapid.T, kind string) *farm {
	f := &farm{t: t, now: state.Instant{Mono: time.Hour, Wall: 1e18}}
	f.w = &state.Workload{Ref: state.Ref{Kind: kind, Namespace: "default", Name: "x"}, Progress: f.now}
	owned := &state.Owned{Object: &state.Object{Ref: f.w.Ref}}
	if kind == "StatefulSet" {
		body := &appsv1.StatefulSet{}
		f.set = &body.Spec
		f.set.PodManagementPolicy = rapid.SampledFrom([]appsv1.PodManagementPolicyType{appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement}).Draw(t, "policy")
		f.set.MinReadySeconds = rapid.SampledFrom([]int32{0, 7}).Draw(t, "minReadySeconds")
		owned.Object.Variants = []state.Variant{{Body: body}}
	} else {
		body := &appsv1.Deployment{}
		f.dep = &body.Spec
		f.dep.MinReadySeconds = rapid.SampledFrom([]int32{0, 7}).Draw(t, "minReadySeconds")
		if rapid.IntRange(0, 4).Draw(t, "recreate") == 0 {
			f.dep.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		}
		owned.Object.Variants = []state.Variant{{Body: body}}
	}
	f.w.Owned = owned
	for i, os := range []state.OS{state.Linux, state.Windows}[:rapid.IntRange(1, 2).Draw(t, "variants")] {
		f.w.Variants = append(f.w.Variants, &state.WorkloadVariant{OS: os, Start: int32(100 * i)})
	}
	f.text()
	return f
}

// text changes what is wanted: replicas, template, budget, partition.
func (f *farm) text() {
	version := rapid.IntRange(0, 3).Draw(f.t, "version")
	paused := f.dep != nil && rapid.IntRange(0, 4).Draw(f.t, "paused") == 0
	if f.dep != nil {
		f.dep.Paused = paused
	}
	for i, v := range f.w.Variants {
		v.Replicas = rapid.Int32Range(0, 5).Draw(f.t, "replicas")
		if t := templates()[2*version+i]; v.Update == nil || !paused && v.Update.Digest != t.Digest {
			v.Update, v.Scaled = t, v.Replicas
		}
		if v.Current == nil {
			v.Current = v.Update
		}
	}
	amount := rapid.SampledFrom([]string{"0", "1", "2", "25%", "100%"})
	surge, away := intstr.Parse(amount.Draw(f.t, "surge")), intstr.Parse(amount.Draw(f.t, "unavailable"))
	if f.dep != nil {
		if f.dep.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
			f.dep.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &away}
		}
	} else {
		f.set.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(rapid.Int32Range(0, 3).Draw(f.t, "partition")), MaxUnavailable: &away}
	}
	f.w.Complete, f.w.IsStalled = false, false
}

// happens draws what a pod does.
func (f *farm) happens(good bool) {
	if len(f.w.Pods) == 0 {
		return
	}
	p := f.w.Pods[rapid.IntRange(0, len(f.w.Pods)-1).Draw(f.t, "pod")]
	most := 6
	if good {
		most = 1
	}
	switch rapid.IntRange(0, most).Draw(f.t, "event") {
	case 0:
		f.ready(p)
	case 1:
		f.gone(p)
	case 2:
		p.Ready = false
	case 3:
		if !p.Stopping {
			p.Phase, p.Ready = state.Failed, false
		}
	case 4:
		p.Lost = true
	case 5:
		p.Lost = false
	case 6:
		p.Stopping = true // a person asked
	}
}

func (f *farm) ready(p *state.Pod) {
	if p.Phase == state.Failed || p.Lost {
		return
	}
	if p.Phase = state.Running; !p.Ready {
		p.Ready, p.ReadySince = true, f.now
	}
}

func (f *farm) gone(p *state.Pod) {
	if i := slices.Index(f.w.Pods, p); i >= 0 && p.Stopping && !p.Lost {
		f.w.Pods = slices.Delete(f.w.Pods, i, i+1)
	}
}

// plan does what Next says until it says nothing more.
func (f *farm) plan() rollout.Step {
	f.t.Helper()
	for range 100 {
		step := rollout.Next(f.w, f.now)
		f.obeys(&step)
		for _, s := range step.Scaled {
			s.Variant.Scaled = s.Replicas
		}
		for _, s := range step.Stop {
			s.Pod.Stopping, s.Pod.StopWhy = true, s.Why
		}
		for _, s := range step.Start {
			for range s.Count {
				f.next++
				p := &state.Pod{Workload: f.w.Ref, OS: s.Variant.OS, Ordinal: s.Ordinal, Template: s.Template, Phase: state.Pending, Placed: f.now, PlacedSeq: state.Seq(f.next)}
				binary.BigEndian.PutUint64(p.UID[:], f.next)
				f.w.Pods = append(f.w.Pods, p)
			}
		}
		if len(step.Start)+len(step.Stop)+len(step.Scaled) == 0 {
			if step.Complete {
				f.rolledOut(&step)
			}
			return step
		}
	}
	f.t.Fatal("planning does not come to an end")
	return rollout.Step{}
}

func (f *farm) rolledOut(step *rollout.Step) {
	f.w.Complete = true
	for _, v := range f.w.Variants {
		v.Scaled = v.Replicas
		if !step.Partial {
			v.Current = v.Update
		}
	}
}

func (f *farm) up(p *state.Pod) bool {
	least := int32(0)
	if f.dep != nil {
		least = f.dep.MinReadySeconds
	} else {
		least = f.set.MinReadySeconds
	}
	return p.Available(f.now, time.Duration(least)*time.Second)
}

// obeys checks a step before it is done.
func (f *farm) obeys(step *rollout.Step) {
	f.t.Helper()
	seen := map[*state.Pod]bool{}
	for _, s := range step.Stop {
		if seen[s.Pod] || s.Pod.Stopping {
			f.t.Fatalf("a pod is stopped twice: %s", s.Why)
		}
		seen[s.Pod] = true
	}
	if f.dep != nil {
		f.budget(step, seen)
		return
	}
	f.order(step)
}

// budget is a Deployment's law, over both OSes together.
func (f *farm) budget(step *rollout.Step, stopped map[*state.Pod]bool) {
	f.t.Helper()
	want := int(f.w.Replicas())
	alive, after, up := 0, 0, 0
	for _, p := range f.w.Pods {
		if p.Stopping || p.Lost || p.Phase == state.Failed {
			continue
		}
		alive++
		if stopped[p] {
			continue
		}
		after++
		if f.up(p) {
			up++
		}
	}
	for _, s := range step.Start {
		after += s.Count
	}
	if f.dep.Paused {
		f.paused(step)
	}
	if f.dep.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		for _, s := range step.Start {
			if !f.dep.Paused && slices.ContainsFunc(f.w.Pods, func(p *state.Pod) bool { return !f.w.IsCurrent(p) && !p.Ended() && f.w.Variant(p.OS) == s.Variant }) {
				f.t.Fatalf("Recreate starts beside pods of the revision before")
			}
		}
		return
	}
	r := f.dep.Strategy.RollingUpdate
	surge, _ := intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, want, true)
	away, _ := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, want, false)
	if surge == 0 && away == 0 {
		away = 1
	}
	if after > max(want+surge, alive) {
		f.t.Fatalf("%d pods, want %d and surge %d", after, want, surge)
	}
	for _, s := range step.Stop {
		if s.Why == state.StopOutdated && f.up(s.Pod) && up < want-away {
			f.t.Fatalf("%d available after a stop, want %d and %d away", up, want, away)
		}
	}
}

// paused is the law of a paused Deployment: nothing is replaced.
func (f *farm) paused(step *rollout.Step) {
	f.t.Helper()
	for _, s := range step.Stop {
		if s.Why == state.StopOutdated {
			f.t.Fatalf("a paused rollout replaces %s", s.Pod.Template.Spec.Spec.Containers[0].Image)
		}
	}
}

// order is a StatefulSet's law.
func (f *farm) order(step *rollout.Step) {
	f.t.Helper()
	strict := f.set.PodManagementPolicy == appsv1.OrderedReadyPodManagement
	if strict && len(step.Start)+len(step.Stop) > 1 {
		for _, s := range step.Stop {
			if len(step.Start) > 0 || s.Why != state.StopOutdated {
				f.t.Fatalf("an ordered set does %d things at once", len(step.Start)+len(step.Stop))
			}
		}
	}
	for _, s := range step.Start {
		if slices.ContainsFunc(f.w.Pods, func(p *state.Pod) bool { return p.Ordinal == s.Ordinal }) {
			f.t.Fatalf("%d starts while a life of it is there", s.Ordinal)
		}
		position := 0
		for _, v := range f.w.Variants {
			for i := range v.Replicas {
				if o := v.Start + i; o < s.Ordinal {
					position++
					below := slices.IndexFunc(f.w.Pods, func(p *state.Pod) bool { return p.Ordinal == o })
					if strict && (below < 0 || !f.up(f.w.Pods[below])) {
						f.t.Fatalf("%d starts before %d is available", s.Ordinal, o)
					}
				}
			}
		}
		if part := int(*f.set.UpdateStrategy.RollingUpdate.Partition); position < part && s.Template != s.Variant.Current {
			f.t.Fatalf("position %d is below the partition %d and starts with the new revision", position, part)
		}
	}
	for _, s := range step.Stop {
		if s.Why != state.StopScaledDown || !strict {
			continue
		}
		if slices.ContainsFunc(f.w.Pods, func(p *state.Pod) bool {
			return p.Ordinal > s.Pod.Ordinal && f.w.Variant(p.OS) != nil && !f.wanted(p.Ordinal)
		}) {
			f.t.Fatalf("%d goes before a higher one", s.Pod.Ordinal)
		}
	}
}

func (f *farm) wanted(ordinal int32) bool {
	return slices.ContainsFunc(f.w.Variants, func(v *state.WorkloadVariant) bool { return ordinal >= v.Start && ordinal < v.Start+v.Replicas })
}

// run draws a life, and then lets all be well: it comes to its end.
func run(t *rapid.T, kind string) {
	f := newFarm(t, kind)
	f.plan()
	for range rapid.IntRange(0, 60).Draw(t, "events") {
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0:
			f.text()
		case 1:
			f.now = f.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
		default:
			f.happens(rapid.Bool().Draw(t, "good"))
		}
		f.plan()
	}
	if f.dep != nil {
		f.dep.Paused = false
	}
	for range 400 {
		if step := f.plan(); step.Complete && f.w.Complete && !slices.ContainsFunc(f.w.Pods, func(p *state.Pod) bool { return p.Stopping }) {
			return
		}
		for _, p := range slices.Clone(f.w.Pods) {
			p.Lost = false
			f.gone(p)
			f.ready(p)
		}
		f.now = f.now.Add(10 * time.Second)
	}
	t.Fatalf("it is never rolled out: %+v", rollout.Next(f.w, f.now))
}

func checkDeployment(t *rapid.T)  { run(t, "Deployment") }
func checkStatefulSet(t *rapid.T) { run(t, "StatefulSet") }

func TestDeployment(t *testing.T)  { rapid.Check(t, checkDeployment) }
func TestStatefulSet(t *testing.T) { rapid.Check(t, checkStatefulSet) }

func FuzzDeployment(f *testing.F)  { f.Fuzz(rapid.MakeFuzz(checkDeployment)) }
func FuzzStatefulSet(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkStatefulSet)) }
