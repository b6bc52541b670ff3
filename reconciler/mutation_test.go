package reconciler_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/sim"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A laws' test: each defect below is planted into the simulated world or into
// the machine, and a law has to notice it. A law that notices nothing is none.

// mutationSeeds is within how many seeds of each scenario a defect is found.
const mutationSeeds = 60

type defect struct {
	name      string
	scenarios []sim.Scenario // none: all
	options   sim.Options
}

func TestMutations(t *testing.T) {
	t.Parallel()
	for _, d := range slices.Concat(worldDefects(), edgeDefects(), rolloutDefects()) {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			scenarios := d.scenarios
			if len(scenarios) == 0 {
				scenarios = sim.Scenarios()
			}
			for seed := uint64(1); seed <= mutationSeeds; seed++ {
				for _, s := range scenarios {
					o := d.options
					o.Seed, o.Scenario = seed, s
					if err := broken(o); err != nil {
						t.Logf("seed %d %s: %v", seed, s, err)
						return
					}
				}
			}
			t.Errorf("no law noticed it in %d seeds", mutationSeeds)
		})
	}
}

// broken is the law that a run broke; the machine's own invariants panic.
func broken(o sim.Options) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return sim.Run(o).Err
}

func worldDefects() []defect {
	var out []defect
	for _, m := range []sim.Mutation{
		sim.MutateEarly, sim.MutateNoSums, sim.MutateNoHead, sim.MutateTellSecret, sim.MutateLyingDisk, sim.MutateKeepSuffix, sim.MutateNoFencing, sim.MutateAbsentGone, sim.MutateWallClock, sim.MutateRetryWrite,
	} {
		out = append(out, defect{name: string(m), scenarios: []sim.Scenario{sim.Faults}, options: sim.Options{Mutate: m}})
	}
	for _, m := range []sim.Mutation{sim.MutateNoFencer, sim.MutateEndless, sim.MutateReply} {
		out = append(out, defect{name: string(m) + ", with long hangs", scenarios: []sim.Scenario{"fencing"}, options: sim.Options{Mutate: m}})
	}
	for _, m := range []sim.Mutation{sim.MutateSweep, sim.MutateFreshDisk} {
		out = append(out, defect{name: string(m), scenarios: []sim.Scenario{"storage"}, options: sim.Options{Mutate: m}})
	}
	// Counting from the reply shows only while an agent hangs: a partition alone
	// leaves the fencer, which counts by itself.
	out = append(out, defect{name: string(sim.MutateEndless), scenarios: []sim.Scenario{sim.Partition}, options: sim.Options{Mutate: sim.MutateEndless}})
	return out
}

// edgeDefects forget what one kind of event makes dirty (decision 10).
func edgeDefects() []defect {
	edge := func(name string, forget func(state.Event) bool, timers, leases bool) defect {
		return defect{name: "dirty edge forgotten: " + name, options: sim.Options{
			Step: func(m *reconciler.Machine, now state.Instant, events []state.Event) reconciler.Output {
				return m.StepForgetting(now, events, forget, timers, leases)
			},
		}}
	}
	none := func(state.Event) bool { return false }
	return []defect{
		edge("reports", is[*state.Reported], false, false),
		edge("commits", is[*state.RootRendered], false, false),
		edge("images", is[*state.ImageLooked], false, false),
		edge("nodes that connect", is[*state.NodeHello], false, false),
		edge("what a person asks for", is[*state.Command], false, false),
		edge("timers", none, true, false),
		edge("lapsed leases", none, false, true),
	}
}

func is[E state.Event](e state.Event) bool {
	_, ok := e.(E)
	return ok
}

// in says in which scenarios a defect shows soon.
func (d defect) in(scenarios ...sim.Scenario) defect {
	d.scenarios = scenarios
	return d
}

// planted is a defect of the rollout.
func planted(name string, next func(*state.Workload, state.Instant) rollout.Step) defect {
	return defect{name: name, options: sim.Options{Plant: func(m *reconciler.Machine) { m.SetNext(next) }}}
}

func rolloutDefects() []defect {
	did := map[state.Ref]state.Instant{}
	return []defect{
		planted("partition ignored", func(w *state.Workload, now state.Instant) rollout.Step {
			return rollout.Next(withSet(w, func(s *appsv1.StatefulSetSpec) {
				s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
			}), now)
		}),
		planted("order ignored", func(w *state.Workload, now state.Instant) rollout.Step {
			return rollout.Next(withSet(w, func(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = appsv1.ParallelPodManagement }), now)
		}),
		planted("two lives of one identity", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if _, ok := w.StatefulSet(); !ok || len(step.Held) == 0 {
				return step
			}
			step.Held = nil
			for _, p := range w.Pods {
				if v := w.Variant(p.OS); p.Lost && v != nil && newest(w, p) {
					step.Start = append(step.Start, rollout.Start{Variant: v, Template: p.Template, Count: 1, Ordinal: p.Ordinal})
				}
			}
			return step
		}),
		planted("surge exceeded", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			d, ok := w.Deployment()
			if ok && did[w.Ref] != now && len(step.Start) == 0 && len(step.Stop) == 0 && alive(w) == int(w.Replicas())+d.Spec.Strategy.RollingUpdate.MaxSurge.IntValue() {
				did[w.Ref] = now // else one step goes on for long
				if v := w.Variants[0]; v.Update != nil && slices.ContainsFunc(w.Pods, func(p *state.Pod) bool { return !w.IsCurrent(p) }) {
					step.Start = append(step.Start, rollout.Start{Variant: v, Template: v.Update, Count: 1, Ordinal: -1})
				}
			}
			return step
		}),
		planted("too many unavailable", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if _, ok := w.Deployment(); ok && len(step.Stop) == 0 {
				for _, p := range w.Pods {
					if p.Ready && !p.Stopping && !p.Lost && !w.IsCurrent(p) && w.Variant(p.OS) != nil {
						step.Stop = append(step.Stop, rollout.Stop{Pod: p, Why: state.StopOutdated})
					}
				}
			}
			return step
		}),
	}
}

// upstreamDefects are bugs that Kubernetes had or has, each by one switch.
func upstreamDefects() []defect {
	stale := map[state.Ref][]*state.Pod{}
	return []defect{
		{
			name: "kubernetes#135017: a new version renders the same text to other bytes", scenarios: []sim.Scenario{sim.Faults},
			options: sim.Options{Mutate: sim.MutateOtherRender},
		},
		planted("kubernetes#67250: a revision that never becomes ready is never replaced", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if set, ok := w.StatefulSet(); ok && set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
				step.Stop = slices.DeleteFunc(step.Stop, func(s rollout.Stop) bool {
					return s.Why == state.StopOutdated && !s.Pod.Ready && s.Pod.ReadySince.IsZero()
				})
			}
			return step
		}).in("runtime"),
		planted("kubernetes#38418: an unhealthy successor keeps a failed predecessor from being made again", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if set, ok := w.StatefulSet(); ok && set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
				step.Start = slices.DeleteFunc(step.Start, func(s rollout.Start) bool {
					return slices.ContainsFunc(w.Pods, func(p *state.Pod) bool { return p.Ordinal > s.Ordinal && !p.Ready && !p.Stopping })
				})
			}
			return step
		}).in(sim.Partition),
		planted("kubernetes#137409: old broken pods use up maxUnavailable under Parallel", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if set, ok := w.StatefulSet(); ok && set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement {
				if slices.ContainsFunc(w.Pods, func(p *state.Pod) bool { return !p.Ready }) {
					step.Stop = slices.DeleteFunc(step.Stop, func(s rollout.Stop) bool { return s.Why == state.StopOutdated })
				}
			}
			return step
		}).in(sim.Faults),
		planted("kubernetes#58347: two revisions of one text, and every pod is of the other one", func(w *state.Workload, now state.Instant) rollout.Step {
			step := rollout.Next(w, now)
			if _, ok := w.StatefulSet(); ok && len(step.Start)+len(step.Stop) == 0 {
				if i := slices.IndexFunc(w.Pods, func(p *state.Pod) bool { return p.Ready && !p.Stopping && !p.Lost && w.IsCurrent(p) }); i >= 0 {
					step.Stop = append(step.Stop, rollout.Stop{Pod: w.Pods[i], Why: state.StopOutdated})
				}
			}
			return step
		}).in(sim.Calm, sim.Faults),
		{
			name: "kubernetes#113524: the address of a Service that is gone leads on to its pods", scenarios: []sim.Scenario{"services"},
			options: sim.Options{Serve: func(rules sim.Rules, _, told *state.Network) sim.Rules {
				rules = maps.Clone(rules)
				if rules == nil {
					rules = sim.Rules{}
				}
				for _, s := range told.Services {
					rules[s.Ref] = s
				}
				return rules
			}},
		},
		{
			name: "kubernetes#110674: after a reset only what changes is served again", scenarios: []sim.Scenario{"services"},
			options: sim.Options{Serve: func(rules sim.Rules, before, told *state.Network) sim.Rules {
				out := sim.Rules{}
				for _, s := range told.Services {
					if rules[s.Ref] != nil || before == nil || !slices.Contains(before.Services, s) {
						out[s.Ref] = s
					}
				}
				return out
			}},
		},
		{
			name: "containerd#6693: revisions of a Windows build are compared as strings",
			options: sim.Options{Image: func(p *state.AssignedPod, name string, facts *state.NodeFacts) (state.Digest, bool) {
				im, _ := p.Template.Image(name)
				var best state.Platform
				for _, f := range im.Platforms {
					if f.OS == facts.OS && f.OSVersion >= best.OSVersion {
						best = f
					}
				}
				return best.Digest, !best.Digest.IsZero()
			}},
		},
		{
			name: "containerd#11451: an image that is on its way is pulled again",
			options: sim.Options{Image: func(p *state.AssignedPod, name string, facts *state.NodeFacts) (state.Digest, bool) {
				d, ok := step.ImageDigest(p, name, facts)
				return state.DigestOf(slices.Concat(d[:], p.UID[:])), ok
			}},
		},
		planted("kubernetes#59848: decisions from a cache that lacks the last writes", func(w *state.Workload, now state.Instant) rollout.Step {
			old := *w
			old.Pods = slices.DeleteFunc(slices.Clone(stale[w.Ref]), func(p *state.Pod) bool { return !slices.Contains(w.Pods, p) })
			stale[w.Ref] = slices.Clone(w.Pods)
			return rollout.Next(&old, now)
		}),
	}
}

// withSet is a StatefulSet as if its text said something else.
func withSet(w *state.Workload, edit func(*appsv1.StatefulSetSpec)) *state.Workload {
	set, ok := w.StatefulSet()
	if !ok {
		return w
	}
	other := set.DeepCopy()
	edit(&other.Spec)
	copied, owned, object := *w, *w.Owned, *w.Owned.Object
	object.Variants = slices.Clone(object.Variants)
	object.Variants[0].Body = other
	owned.Object = &object
	copied.Owned = &owned
	return &copied
}

func newest(w *state.Workload, p *state.Pod) bool {
	return !slices.ContainsFunc(w.Pods, func(o *state.Pod) bool { return o.Ordinal == p.Ordinal && o.PlacedSeq > p.PlacedSeq })
}

func alive(w *state.Workload) int {
	n := 0
	for _, p := range w.Pods {
		if !p.Stopping && !p.Lost {
			n++
		}
	}
	return n
}
