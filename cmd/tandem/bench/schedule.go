package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The schedule suites measure what is decided, and durable, a second. There are
// no agents: as in scheduler_perf nodes are names with capacity, and who answers
// for them answers at once.
//
// Kubernetes's own floors, by which its scheduler_perf suite fails: pods a
// second on 5,000 nodes (test/integration/scheduler_perf, v1.35).
const (
	kubeBasic        = 270
	kubeAntiAffinity = 60
	kubeSpread       = 85
	kubePreemption   = 160
)

// board's line for a rate, beside Kubernetes's floor.
func (b *board) rate(name string, pods int, took time.Duration, goal, kube float64) {
	b.atLeast(fmt.Sprintf("%s (Kubernetes %.0f)", name, kube), float64(pods)/took.Seconds(), "pods/s", goal)
}

// desk is a controller with a real log and nodes that only exist on paper.
type desk struct {
	*world
	mu      sync.Mutex
	todo    map[state.NodeName]state.Assignment
	signal  chan struct{}
	numbers map[state.NodeName]uint64
	told    map[state.UID]bool
	placed  atomic.Int64 // when a place was last decided, nanoseconds since 1970
}

// Stepped implements act.Meter.
func (d *desk) Stepped(_ time.Duration, records []*state.Record) {
	if slices.ContainsFunc(records, func(r *state.Record) bool { _, ok := r.Fact.(*state.PodPlaced); return ok }) {
		d.placed.Store(time.Now().UnixNano())
	}
}

// Appended implements act.Meter.
func (*desk) Appended(time.Duration, []*state.Record) {}

// Assign implements act.Nodes.
func (d *desk) Assign(a state.Assignment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.todo[a.Node] = a
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

// newDesk starts a controller with nodes of 16 CPUs in ten zones.
func newDesk(ctx context.Context, nodes int) (*desk, error) {
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return nil, err
	}
	d := &desk{
		world: &world{dir: dir}, todo: map[state.NodeName]state.Assignment{}, signal: make(chan struct{}, 1),
		numbers: map[state.NodeName]uint64{}, told: map[state.UID]bool{},
	}
	if d.data, err = serve.OpenData(dir, false); err != nil {
		return nil, err
	}
	d.ctl, err = act.New(ctx, act.Config{
		Log: d.data.Store, Library: d.data.Library, Texts: d.data.Store.Texts(), Nodes: d, Images: registry{}, Meter: d,
		LogID: d.data.Store.ID(), Version: "bench", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	var failure error
	all.Go(func() {
		if failure = d.ctl.Run(run); failure != nil {
			fmt.Fprintf(os.Stderr, "bench: the controller ended: %v\n", failure)
		}
	})
	all.Go(func() { d.answer(run) })
	d.stop = func() error {
		cancel()
		all.Wait()
		return errors.Join(failure, d.data.Close(), os.RemoveAll(dir))
	}
	var events []state.Event
	for i := range nodes {
		facts := state.NodeFacts{
			OS: state.Linux, Arch: "amd64", Labels: map[string]string{corev1.LabelTopologyZone: fmt.Sprint(i % 10)},
			Allocatable: state.Resources{MilliCPU: 16_000, Memory: 64 << 30, Ephemeral: 100 << 30, Pods: 110},
		}
		facts.Capacity = facts.Allocatable
		events = append(events, &state.NodeHello{Node: state.NodeName(fmt.Sprintf("node-%05d", i)), Facts: facts, BootID: "boot", Incarnation: 1})
	}
	d.ctl.Submit(events...)
	err = d.until(ctx, func(s *state.State) bool { return len(s.Nodes) == nodes })
	return d, err
}

// answer says of each assignment that it is done.
func (d *desk) answer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.signal:
		}
		d.mu.Lock()
		todo := d.todo
		d.todo = map[state.NodeName]state.Assignment{}
		d.mu.Unlock()
		var events []state.Event
		for _, a := range todo {
			r := state.Report{Node: a.Node, Epoch: a.Epoch, BootID: "boot", Incarnation: 1, Number: d.number(a.Node), Applied: a.Generation}
			for _, p := range a.Pods {
				switch {
				case p.Stop:
					r.Gone = append(r.Gone, p.UID)
				case !d.told[p.UID]:
					d.told[p.UID] = true
					r.Pods = append(r.Pods, state.PodStatus{UID: p.UID, Phase: state.Running, Ready: true})
				}
			}
			if len(r.Gone) > 0 || len(r.Pods) > 0 {
				events = append(events, &state.Reported{Report: r})
			}
		}
		if len(events) > 0 {
			d.ctl.Submit(events...)
		}
	}
}

// number is that of a node's next report.
func (d *desk) number(node state.NodeName) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers[node]++
	return d.numbers[node]
}

// shaped is a Deployment whose pod template is changed.
func shaped(name string, replicas int32, change ...func(*corev1.PodTemplateSpec)) *state.Object {
	o := deployment(name, "bench.example/"+name+":1", state.Linux, replicas)
	d, _ := o.Variants[0].Body.(*appsv1.Deployment)
	for _, f := range change {
		f(&d.Spec.Template)
	}
	return object("Deployment", state.Linux, d)
}

func asks(cpu string) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
}

func ofClass(name string) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) { t.Spec.PriorityClassName = name }
}

func priorityClass(name string, value int32) *state.Object {
	return object("PriorityClass", state.AnyOS, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value})
}

func placed(pods int) func(*state.State) bool {
	return func(s *state.State) bool { return len(s.Pods) == pods }
}

// timed is from a commit to a state at the watermark.
func (d *desk) timed(ctx context.Context, n int, holds func(*state.State) bool, objects ...*state.Object) (time.Duration, error) {
	start := time.Now()
	d.commit(n, objects...)
	err := d.until(ctx, holds)
	return time.Since(start), err
}

func basic(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	var objects []*state.Object
	for i := range 20 {
		objects = append(objects, shaped(fmt.Sprintf("web-%02d", i), 500))
	}
	took, err := d.timed(ctx, 1, placed(10_000), objects...)
	if err != nil {
		return err
	}
	b.rate("10,000 pods, 5,000 nodes: basic", 10_000, took, 60_000, kubeBasic)
	return d.stop()
}

func antiAffinity(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	apart := func(t *corev1.PodTemplateSpec) {
		t.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels}},
		}}}
	}
	took, err := d.timed(ctx, 1, placed(5000), shaped("a", 2500, apart), shaped("b", 2500, apart))
	if err != nil {
		return err
	}
	b.rate("5,000 pods, required anti-affinity", 5000, took, 5000, kubeAntiAffinity)
	return d.stop()
}

func topologySpread(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	spread := func(t *corev1.PodTemplateSpec) {
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
			t.Spec.TopologySpreadConstraints = append(t.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
				MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: t.Labels},
			})
		}
	}
	took, err := d.timed(ctx, 1, placed(5000), shaped("a", 2500, spread), shaped("b", 2500, spread))
	if err != nil {
		return err
	}
	b.rate("5,000 pods, spread over zones and nodes", 5000, took, 5000, kubeSpread)
	return d.stop()
}

// preemption: every node is full; each new pod takes the place of another, from
// the commit to the new pods' placement, with the old ones' end between.
func preemption(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	classes := []*state.Object{priorityClass("high", 1000), priorityClass("low", 1)}
	low := shaped("low", 20_000, asks("4"), ofClass("low"))
	if _, err := d.timed(ctx, 1, func(s *state.State) bool { return ready(s) == 20_000 }, append(slices.Clone(classes), low)...); err != nil {
		return err
	}
	high := state.Ref{Kind: "Deployment", Namespace: "default", Name: "high"}
	took, err := d.timed(ctx, 2, func(s *state.State) bool {
		w := s.Workloads[high]
		return w != nil && len(w.Pods) == 5000
	}, append(slices.Clone(classes), low, shaped("high", 5000, asks("4"), ofClass("high")))...)
	if err != nil {
		return err
	}
	b.rate("5,000 pods, each preempts one", 5000, took, 2000, kubePreemption)
	return d.stop()
}

// whyMany asks why a workload isn't placed, as the API does: the log is read and
// every node's reason said in words.
func whyMany(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	ref := state.Ref{Kind: "Deployment", Namespace: "default", Name: "huge"}
	small := shaped("small", 5000)
	if _, err := d.timed(ctx, 1, func(s *state.State) bool { return ready(s) == 5000 }, small); err != nil {
		return err
	}
	// It comes second: before the others were placed it would fit.
	if _, err := d.timed(ctx, 2, func(s *state.State) bool { return len(s.Holds) == 1 }, small, shaped("huge", 1, asks("15950m"))); err != nil {
		return err
	}
	var samples []time.Duration
	for range 20 {
		start := time.Now()
		asked := report.NewInquiry(ref)
		d.ctl.View(asked.Begin)
		for r, err := range d.ctl.Records(ctx, 1) {
			if err != nil {
				return err
			}
			asked.Read(r)
		}
		var answer report.Why
		d.ctl.View(func(s *state.State) { answer = asked.Answer(s, d.ctl.Words) })
		samples = append(samples, time.Since(start))
		if !slices.ContainsFunc(answer.Because, func(x report.Because) bool { return strings.Contains(strings.Join(x.Detail, " "), "cpu") }) {
			return fmt.Errorf("why does not say what nodes lack: %v", answer.Because)
		}
	}
	b.atMost("why over 5,000 nodes, worst of 20", ms(p99(samples)), "ms", 100)
	return d.stop()
}

// planMany plans another image for 1,000 Deployments of 10 pods, from the bytes
// of a saved inventory.
func planMany(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 5000)
	if err != nil {
		return err
	}
	var objects, next []*state.Object
	for i := range 1000 {
		name := fmt.Sprintf("web-%04d", i)
		objects = append(objects, shaped(name, 10))
		next = append(next, shaped(name, 10, func(t *corev1.PodTemplateSpec) { t.Spec.Containers[0].Image = "bench.example/" + name + ":2" }))
	}
	if _, err := d.timed(ctx, 1, func(s *state.State) bool { return ready(s) == 10_000 }, objects...); err != nil {
		return err
	}
	var base *forecast.Base
	d.ctl.View(func(s *state.State) { base = forecast.Copy(s) })
	saved, err := report.NewInventory(base)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	request, err := report.NewPlanRequest(state.Application{Name: state.RootApp}, "next", &state.Manifest{Objects: next})
	if err != nil {
		return err
	}
	known := map[string]state.Image{}
	for _, name := range forecast.ImageNames(&state.Manifest{Objects: next}) {
		known[name] = registry{}.Look(ctx, name, nil)
	}
	start := time.Now()
	var inventory report.Inventory
	if err := json.Unmarshal(raw, &inventory); err != nil {
		return err
	}
	if base, err = inventory.Base(); err != nil {
		return err
	}
	p, err := report.NewPlan(base, request, known, true)
	if err != nil {
		return err
	}
	took := time.Since(start)
	if len(p.Rollouts) != 1000 || len(p.Held) > 0 {
		return fmt.Errorf("the plan has %d rollouts and %d holds, want 1,000 and none", len(p.Rollouts), len(p.Held))
	}
	b.atMost("plan of 1,000 workloads on 5,000 nodes, offline", ms(took), "ms", 5000)
	return d.stop()
}

// large is 100,000 pods on 10,000 nodes: what it takes, and what one pod's
// change costs then.
func large(ctx context.Context, b *board) error {
	d, err := newDesk(ctx, 10_000)
	if err != nil {
		return err
	}
	var objects []*state.Object
	for i := range 20 {
		objects = append(objects, shaped(fmt.Sprintf("web-%02d", i), 5000))
	}
	took, err := d.timed(ctx, 1, func(s *state.State) bool { return ready(s) == 100_000 }, objects...)
	if err != nil {
		return err
	}
	b.atMost("100,000 pods on 10,000 nodes: all Ready", ms(took), "ms", 0)
	runtime.GC()
	rss, _ := resident()
	b.atMost("100,000 pods on 10,000 nodes: resident", rss, "MB", 1024)
	if err := oneOfMany(ctx, b, d); err != nil {
		return err
	}
	return d.stop()
}

// oneOfMany ends one pod of 100,000 after the other: how long it takes until its
// successor's place is decided, and until that is durable. A floor is taken
// beside each: the same disk, asked for one write.
func oneOfMany(ctx context.Context, b *board, d *desk) error {
	ref := state.Ref{Kind: "Deployment", Namespace: "default", Name: "web-00"}
	fsync, err := newFloor(d.dir)
	if err != nil {
		return err
	}
	defer fsync.Close()
	var decided, durable, floor []time.Duration
	for range 200 {
		var victim *state.Pod
		var epoch uint64
		d.ctl.View(func(s *state.State) {
			victim = s.Workloads[ref].Pods[0]
			epoch = s.Nodes[victim.Node].Epoch
		})
		start := time.Now()
		d.placed.Store(0)
		d.ctl.Submit(&state.Reported{Report: state.Report{
			Node: victim.Node, Epoch: epoch, BootID: "boot", Incarnation: 1, Number: d.number(victim.Node), Applied: 1 << 40, Gone: []state.UID{victim.UID},
		}})
		if err := d.until(ctx, func(s *state.State) bool {
			return s.Pods[victim.UID] == nil && len(s.Workloads[ref].Pods) == 5000
		}); err != nil {
			return err
		}
		durable = append(durable, time.Since(start))
		decided = append(decided, time.Unix(0, d.placed.Load()).Sub(start))
		// Its successor becomes Ready: another change, which isn't to be in the way of the next.
		if err := d.until(ctx, func(s *state.State) bool {
			pods := s.Workloads[ref].Pods
			return pods[len(pods)-1].Ready
		}); err != nil {
			return err
		}
		took, err := fsync.sample()
		if err != nil {
			return err
		}
		floor = append(floor, took)
	}
	b.atMost("one pod of them gone, successor decided, p50", ms(median(decided)), "ms", 5)
	b.atMost("one pod of them gone, successor decided, p99", ms(p99(decided)), "ms", 5)
	b.atMost("one pod of them gone, successor durable, p50", ms(median(durable)), "ms", 5)
	b.atMost("one pod of them gone, successor durable, p99", ms(p99(durable)), "ms", 5+ms(p99(floor)))
	b.atMost("floor beside it: write and fsync 512 B, p50", ms(median(floor)), "ms", 0)
	b.atMost("floor beside it: write and fsync 512 B, p99", ms(p99(floor)), "ms", 0)
	return nil
}

func median(samples []time.Duration) time.Duration {
	s := slices.Clone(samples)
	slices.Sort(s)
	return s[len(s)/2]
}
