package simulated

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A Behaviour is what a simulated program does.
type Behaviour struct {
	Ends     bool // by itself
	Code     int32
	After    time.Duration
	Stubborn bool     // ignores the request to stop
	Output   []string // lines
}

// Options make a Runtime.
type Options struct {
	Facts   state.NodeFacts // Simulated is set; capacity of zero is a large machine
	Latency Latency
	// Program says what a container does. Nil: it runs until stopped, and an
	// init container ends with 0.
	Program func(runtimes.Container) Behaviour
}

// A Runtime is a simulated node's. What it runs lives as long as the value.
type Runtime struct {
	Faults

	opts Options

	mu      sync.Mutex
	version uint64
	changed chan struct{} // closed and replaced at each change
	images  map[string]bool
	pods    map[state.UID]*simPod
	nextIP  uint32
}

type simPod struct {
	sandbox    runtimes.Sandbox
	ip         string
	containers map[string]*simContainer
}

type simContainer struct {
	runtimes.ContainerObserved
	spec  runtimes.Container
	does  Behaviour
	timer *time.Timer
	ended chan struct{}
}

// Facts are those of a large simulated machine.
func Facts(os state.OS, arch, version string) state.NodeFacts {
	room := state.Resources{MilliCPU: 32_000, Memory: 128 << 30, Ephemeral: 1 << 40, Pods: 110}
	f := state.NodeFacts{
		OS: os, Arch: arch, OSVersion: version, Capacity: room, Allocatable: room, Simulated: true, Runtime: "simulated://1",
	}
	if os == state.Windows {
		f.Isolations = []state.Isolation{state.Process, state.HyperV}
		if version == "" {
			f.OSVersion = "10.0.20348.2113"
		}
	}
	return f
}

// New is a node with nothing on it.
func New(opts Options) *Runtime {
	if opts.Facts.OS == "" {
		opts.Facts.OS = state.Linux
	}
	base := Facts(opts.Facts.OS, opts.Facts.Arch, opts.Facts.OSVersion)
	if opts.Facts.Capacity == (state.Resources{}) {
		opts.Facts.Capacity = base.Capacity
	}
	if opts.Facts.Allocatable == (state.Resources{}) {
		opts.Facts.Allocatable = opts.Facts.Capacity
	}
	if opts.Facts.Arch == "" {
		opts.Facts.Arch = "amd64"
	}
	opts.Facts.Simulated, opts.Facts.Runtime = true, base.Runtime
	return &Runtime{opts: opts, version: 1, changed: make(chan struct{}), images: map[string]bool{}, pods: map[state.UID]*simPod{}}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// touch says that something changed; mu is held.
func (r *Runtime) touch() {
	r.version++
	close(r.changed)
	r.changed = make(chan struct{})
}

// Describe says what was asked for.
func (r *Runtime) Describe(ctx context.Context) (state.NodeFacts, error) {
	return r.opts.Facts, ctx.Err()
}

// Pull makes an image present.
func (r *Runtime) Pull(ctx context.Context, image runtimes.Image) error {
	if err := wait(ctx, r.opts.Latency.Pull); err != nil {
		return err
	}
	if err := r.err(FailPull, state.PodKey{}, "", image.Name); err != nil {
		return fmt.Errorf("pull %s: %w", image.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if image.Policy == "Never" && !r.images[image.Name] {
		return fmt.Errorf("image %s is not present and its policy is Never: %w", image.Name, runtimes.ErrNotFound)
	}
	r.images[image.Name] = true
	return nil
}

// Sandbox makes a pod.
func (r *Runtime) Sandbox(ctx context.Context, s runtimes.Sandbox) (runtimes.SandboxStatus, error) {
	if err := wait(ctx, r.opts.Latency.Sandbox); err != nil {
		return runtimes.SandboxStatus{}, err
	}
	if err := r.err(FailSandbox, s.Key, "", ""); err != nil {
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w", s.Key, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[s.UID]
	if p == nil {
		r.nextIP++
		p = &simPod{sandbox: s, ip: address(r.nextIP), containers: map[string]*simContainer{}}
		r.pods[s.UID] = p
		r.touch()
	}
	return runtimes.SandboxStatus{IP: p.ip}, nil
}

// address is one of 198.18.0.0/15, which RFC 2544 keeps for what is no network.
func address(n uint32) string {
	return fmt.Sprintf("198.%d.%d.%d", 18+(n>>16)&1, (n>>8)&255, n&255)
}

// Run starts a container.
func (r *Runtime) Run(ctx context.Context, c runtimes.Container) error {
	if err := wait(ctx, r.opts.Latency.Start); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[c.UID]
	if p == nil {
		return fmt.Errorf("run %s: its pod has no sandbox: %w", c.Name, runtimes.ErrNotFound)
	}
	if !r.images[c.Image.Name] {
		return fmt.Errorf("run %s: image %s is not present: %w", c.Name, c.Image.Name, runtimes.ErrNotFound)
	}
	if old := p.containers[c.Name]; old != nil {
		if old.Attempt == c.Attempt {
			return nil
		}
		if old.Attempt > c.Attempt {
			return fmt.Errorf("run %s: attempt %d is over, %d has begun: %w", c.Name, c.Attempt, old.Attempt, runtimes.ErrRejected)
		}
		r.end(old, 137)
	}
	if err := r.err(FailStart, p.sandbox.Key, c.Name, c.Image.Name); err != nil {
		return fmt.Errorf("run %s: %w", c.Name, err)
	}
	s := &simContainer{spec: c, ended: make(chan struct{}), does: r.program(p, c)}
	s.ContainerObserved = runtimes.ContainerObserved{
		UID: c.UID, Name: c.Name, Attempt: c.Attempt, Running: true, StartedAt: time.Now(),
	}
	p.containers[c.Name] = s
	if s.does.Ends {
		s.timer = time.AfterFunc(s.does.After, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.end(s, s.does.Code)
		})
	}
	r.touch()
	return r.write(p, s)
}

func (r *Runtime) program(p *simPod, c runtimes.Container) Behaviour {
	b := Behaviour{Ends: c.Init}
	if r.opts.Program != nil {
		b = r.opts.Program(c)
	}
	if f, ok := r.hit(Crash, p.sandbox.Key, c.Name, c.Image.Name); ok {
		b.Ends, b.Code, b.After = true, f.Code, f.After
	}
	if _, ok := r.hit(Hang, p.sandbox.Key, c.Name, c.Image.Name); ok {
		b.Stubborn = true
	}
	return b
}

// write puts the container's output where its log belongs.
func (r *Runtime) write(p *simPod, s *simContainer) error {
	if s.spec.LogPath == "" {
		return nil
	}
	lines := append([]string{line(p.sandbox.Key, s.Name, s.spec.Image.Name, s.Attempt)}, s.does.Output...)
	f, err := os.OpenFile(s.spec.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("log of %s: %w", s.Name, errors.Join(err, runtimes.ErrUnavailable))
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("log of %s: %w", s.Name, errors.Join(err, runtimes.ErrUnavailable))
	}
	return nil
}

func line(pod state.PodKey, container, image string, attempt int32) string {
	return fmt.Sprintf("simulated: container %s of %s, image %s, attempt %d", container, pod, image, attempt)
}

// end ends a container; mu is held.
func (r *Runtime) end(s *simContainer, code int32) {
	if !s.Running {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.Running, s.ExitCode, s.FinishedAt = false, code, time.Now()
	close(s.ended)
	r.touch()
}

// Stop ends a container, a stubborn one after grace.
func (r *Runtime) Stop(ctx context.Context, uid state.UID, container string, grace time.Duration) error {
	r.mu.Lock()
	var s *simContainer
	if p := r.pods[uid]; p != nil {
		s = p.containers[container]
	}
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	delay, code := min(r.opts.Latency.Stop, grace), int32(143)
	if s.does.Stubborn {
		delay, code = grace, 137
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
	case <-t.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(s, code)
	return nil
}

// Remove ends a pod.
func (r *Runtime) Remove(ctx context.Context, uid state.UID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[uid]
	if p == nil {
		return nil
	}
	for _, s := range p.containers {
		r.end(s, 137)
	}
	delete(r.pods, uid)
	r.touch()
	return nil
}

// Kill ends a container as if somebody had killed its process.
func (r *Runtime) Kill(uid state.UID, container string, code int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil && p.containers[container] != nil {
		r.end(p.containers[container], code)
	}
}

// Observe says all that exists, once it differs from after.
func (r *Runtime) Observe(ctx context.Context, after uint64) (runtimes.Observation, error) {
	for {
		r.mu.Lock()
		if r.version != after {
			o := r.observation()
			r.mu.Unlock()
			return o, nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return runtimes.Observation{}, ctx.Err()
		case <-changed:
		}
	}
}

func (r *Runtime) observation() runtimes.Observation {
	o := runtimes.Observation{Version: r.version}
	for uid, p := range r.pods {
		o.Sandboxes = append(o.Sandboxes, runtimes.SandboxObserved{UID: uid, Key: p.sandbox.Key, IP: p.ip})
		for _, c := range p.containers {
			o.Containers = append(o.Containers, c.ContainerObserved)
		}
	}
	slices.SortFunc(o.Sandboxes, func(a, b runtimes.SandboxObserved) int { return a.UID.Compare(b.UID) })
	slices.SortFunc(o.Containers, func(a, b runtimes.ContainerObserved) int {
		if c := a.UID.Compare(b.UID); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return o
}

// Exec refuses: no process is there.
func (r *Runtime) Exec(context.Context, state.UID, string, runtimes.Exec) (int, error) {
	return 0, errExec
}

var errExec = fmt.Errorf("the node is simulated, nothing runs in its containers: exec on a real node: %w", runtimes.ErrUnsupported)

// Probe succeeds while the container runs and no fault says otherwise.
func (r *Runtime) Probe(ctx context.Context, uid state.UID, container, kind string, _ *corev1.Probe) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	p := r.pods[uid]
	var s *simContainer
	if p != nil {
		s = p.containers[container]
	}
	if s == nil || !s.Running {
		r.mu.Unlock()
		return fmt.Errorf("container %s does not run: %w", container, runtimes.ErrNotFound)
	}
	key, image := p.sandbox.Key, s.spec.Image.Name
	r.mu.Unlock()
	fault := Unhealthy
	if kind == "readiness" {
		fault = Unready
	}
	return r.err(fault, key, container, image)
}
