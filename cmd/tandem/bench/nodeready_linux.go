package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	restingPods = 100
	restingFor  = time.Minute
)

func containerdImage(d state.Digest) runtimes.Image {
	return runtimes.Image{Name: nodeImage, Digest: d, Policy: string(corev1.PullIfNotPresent)}
}

// plain is a Deployment of pods that ask for nothing and have no probes.
func plain(name string, replicas int32) *state.Object {
	o := deployment(name, nodeImage, state.Linux, replicas)
	c := &o.Variants[0].Body.(*appsv1.Deployment).Spec.Template.Spec.Containers[0]
	c.ReadinessProbe, c.Resources = nil, corev1.ResourceRequirements{}
	return object("Deployment", state.Linux, o.Variants[0].Body)
}

// probed is a Deployment of one pod whose readiness this process answers for.
func probed(name string, port int) *state.Object {
	o := plain(name, 1)
	o.Variants[0].Body.(*appsv1.Deployment).Spec.Template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: machineAddress, Path: "/" + name, Port: intstr.FromInt(port), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds: 10, TimeoutSeconds: 300, SuccessThreshold: 1, FailureThreshold: 3,
	}
	return object("Deployment", state.Linux, o.Variants[0].Body)
}

// A gate answers the readiness probes of pods, each when it is released.
type gate struct {
	server *http.Server
	port   int

	mu       sync.Mutex
	released map[string]chan struct{}
	answered map[string]time.Time // when the first passing answer was given
	asked    map[string]bool
}

func openGate() (*gate, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", machineAddress+":0")
	if err != nil {
		return nil, err
	}
	g := &gate{port: l.Addr().(*net.TCPAddr).Port, released: map[string]chan struct{}{}, answered: map[string]time.Time{}, asked: map[string]bool{}}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = g.server.Serve(l) }()
	return g, nil
}

func (g *gate) of(name string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released[name] == nil {
		g.released[name] = make(chan struct{})
	}
	return g.released[name]
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	held := g.of(name)
	g.mu.Lock()
	g.asked[name] = true
	g.mu.Unlock()
	select {
	case <-held:
	case <-r.Context().Done():
		return
	}
	g.mu.Lock()
	if g.answered[name].IsZero() {
		g.answered[name] = time.Now()
	}
	g.mu.Unlock()
	w.WriteHeader(http.StatusOK)
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func (g *gate) answer(name string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answered[name]
}

// readiness measures, pod by pod, how long it takes from the answer of a passing
// probe until the pod is durably Ready.
func (w *nodeWorld) readiness(ctx context.Context, b *board) error {
	g, err := openGate()
	if err != nil {
		return err
	}
	w.gate = g
	for i := range restingPods {
		w.standing = append(w.standing, probed(fmt.Sprintf("ready-%03d", i), g.port))
	}
	w.want()
	for limit := time.Now().Add(5 * time.Minute); g.waiting() < restingPods; {
		if time.Now().After(limit) {
			return fmt.Errorf("%d of %d pods were probed", g.waiting(), restingPods)
		}
		time.Sleep(50 * time.Millisecond)
	}
	var samples []time.Duration
	for i := range restingPods {
		name := fmt.Sprintf("ready-%03d", i)
		close(g.of(name))
		if err := w.until(ctx, func(s *state.State) bool { return readyOf(s, name) }); err != nil {
			return err
		}
		samples = append(samples, time.Since(g.answer(name)))
	}
	b.atMost("a passing probe's answer to Ready, durable, p50", ms(median(samples)), "ms", 0)
	b.atMost("a passing probe's answer to Ready, durable, p99 of 100", ms(p99(samples)), "ms", 50)
	return nil
}

func readyOf(s *state.State, name string) bool {
	for _, p := range s.Pods {
		if p.Workload.Name == name {
			return p.Ready
		}
	}
	return false
}

// resting measures what an agent costs while its pods, which are probed every
// ten seconds, just run.
func (w *nodeWorld) resting(ctx context.Context, b *board) error {
	pid := w.agent.Process.Pid
	before, err := cpuOf(pid)
	if err != nil {
		return err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(restingFor):
	}
	after, err := cpuOf(pid)
	if err != nil {
		return err
	}
	b.atMost("agent with 100 pods at rest, mean over 60 s", 100*float64(after-before)/float64(time.Since(start)), "% core", 1)
	m, err := memoryOf(pid)
	if err != nil {
		return err
	}
	b.atMost("agent with 100 pods: private memory", m["Private_Dirty"], "MB", 40)
	b.atMost("agent with 100 pods: program and files, mapped", m["Rss"]-m["Private_Dirty"], "MB", 0)
	return nil
}

// cpuOf is what a process has used of the processors.
func cpuOf(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(after)
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100, nil
}

// memoryOf is a process's memory by kind, in MB.
func memoryOf(pid int) (map[string]float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			found[strings.TrimSuffix(f[0], ":")] = kb / 1024
		}
	}
	return found, nil
}
