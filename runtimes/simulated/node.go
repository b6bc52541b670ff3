package simulated

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A node of a fleet. Everything but in is guarded by shard.run.
type node struct {
	shard       *shard
	name        state.NodeName
	facts       state.NodeFacts
	link        agent.Link
	incarnation uint64

	machine *step.Machine
	wake    time.Duration // of the machine; 0: none
	session agent.Session
	calls   uint64 // sessions asked for: tells the loss of an old one from that of the newest
	opening bool
	cut     bool
	tries   int
	dial    time.Duration // not before
	renewal time.Duration // next; 0: no session
	every   time.Duration
	ip      uint32

	sims  map[simKey]*sim
	later []later // ascending by at

	due   time.Duration
	place int // in the heap, from 1

	queued bool // guarded by shard.mu, as in is
	in     inbox
}

// An inbox is what happened to a node since it was last driven.
type inbox struct {
	assignment *state.Assignment
	events     []step.Event
	session    agent.Session
	failed     error  // opening failed, or the session was lost
	call       uint64 // which
	reprobe    bool
	cut        *bool
	kills      []kill
}

type simKey struct {
	uid       state.UID
	container string
}

type kill struct {
	simKey
	code int32
}

// A sim is a container that runs.
type sim struct {
	key      state.PodKey
	image    string
	attempt  int32
	started  int64
	stubborn bool
	probes   [3]*corev1.Probe // that are asked for
}

type later struct {
	at  time.Duration
	do  func(now state.Instant) []step.Event
	uid state.UID
}

func (n *node) post(put func(*inbox)) {
	s := n.shard
	s.mu.Lock()
	put(&n.in)
	if !n.queued {
		n.queued = true
		s.queue = append(s.queue, n)
	}
	s.mu.Unlock()
	s.wake()
}

// Assign hands over the newest assignment.
func (n *node) Assign(a *state.Assignment) { n.post(func(in *inbox) { in.assignment = a }) }

// Resync asks for a full report.
func (n *node) Resync() { n.post(func(in *inbox) { in.events = append(in.events, &step.Connected{}) }) }

// A peer is the node as one session knows it.
type peer struct {
	*node
	call uint64
}

// Lost says that the session has ended.
func (p peer) Lost(err error) { p.post(func(in *inbox) { in.failed, in.call = err, p.call }) }

// drive brings the node up to now.
func (n *node) drive(ctx context.Context, opening *sync.WaitGroup, slots chan struct{}) {
	n.shard.mu.Lock()
	in := n.in
	n.in, n.queued = inbox{}, false
	n.shard.mu.Unlock()
	now := n.shard.fleet.now()
	events := n.hear(now, &in)
	if in.assignment != nil {
		events = append(events, &step.Assigned{Assignment: in.assignment})
	}
	events = append(events, in.events...)
	for _, k := range in.kills {
		events = append(events, n.exit(now, k.simKey, k.code)...)
	}
	if in.reprobe {
		events = append(events, n.reprobe()...)
	}
	for len(n.later) > 0 && n.later[0].at <= now.Mono {
		l := n.later[0]
		n.later = n.later[1:]
		events = append(events, l.do(now)...)
	}
	if len(events) > 0 || n.wake > 0 && n.wake <= now.Mono {
		n.decide(now, events)
	}
	n.speak(ctx, now)
	if n.session == nil && !n.opening && !n.cut && n.dial <= now.Mono && ctx.Err() == nil {
		n.opening = true
		n.calls++
		p := peer{n, n.calls}
		opening.Go(func() { p.open(ctx, slots) })
	}
}

// hear takes in what happened to the session.
func (n *node) hear(now state.Instant, in *inbox) []step.Event {
	if in.cut != nil {
		n.cut = *in.cut
		if n.cut && n.session != nil {
			n.hang(now)
		}
	}
	if in.failed != nil && in.call != n.calls {
		in.failed = nil
	}
	if in.failed != nil {
		n.opening = false
		n.tries++
		n.dial = now.Mono + min(time.Second, 50*time.Millisecond<<min(n.tries, 5))
		n.hang(now)
		n.shard.fleet.opts.Logger.LogAttrs(context.Background(), slog.LevelDebug, "lost the controller",
			slog.String("node", string(n.name)), slog.Any("err", in.failed))
	}
	if in.session == nil {
		return nil
	}
	n.opening, n.tries = false, 0
	if n.cut || in.failed != nil {
		go in.session.Close()
		return nil
	}
	n.session, n.every = in.session, in.session.Welcome().Renew
	// Renewals of all nodes are spread over the period.
	n.renewal = now.Mono + n.every/2 + time.Duration(uint64(now.Wall)%uint64(max(n.every/2, 1)))
	return []step.Event{&step.Connected{}}
}

func (n *node) hang(state.Instant) {
	if n.session != nil {
		go n.session.Close() // it may wait for a call of ours to end
		n.session = nil
	}
	n.renewal = 0
}

func (p peer) open(ctx context.Context, slots chan struct{}) {
	slots <- struct{}{}
	defer func() { <-slots }()
	hello := agent.Hello{Node: p.name, Facts: p.facts, BootID: p.shard.fleet.boot, Incarnation: p.incarnation}
	s, err := p.link.Open(ctx, hello, p)
	if err != nil {
		p.Lost(err)
		return
	}
	p.post(func(in *inbox) { in.session = s })
}

// decide runs the machine until it asks for nothing that is immediate.
func (n *node) decide(now state.Instant, events []step.Event) {
	for {
		actions, wake := n.machine.Decide(now, events...)
		n.wake = wake.Mono
		events = nil
		for i := range actions {
			events = append(events, n.act(now, &actions[i])...)
		}
		if len(events) == 0 {
			return
		}
	}
}

// speak sends the report and renews the lease.
func (n *node) speak(ctx context.Context, now state.Instant) {
	if n.session == nil {
		return
	}
	if r := n.machine.Report(); r != nil {
		if err := n.session.Report(ctx, r); err != nil {
			peer{n, n.calls}.Lost(err)
			return
		}
	}
	if n.renewal > 0 && n.renewal <= now.Mono {
		n.renewal = now.Mono + n.every
		if err := n.session.Renew(ctx, 0); err != nil {
			peer{n, n.calls}.Lost(err)
		}
	}
}

// next is when the node is due; 0: never.
func (n *node) next() time.Duration {
	due := n.wake
	earlier := func(t time.Duration) {
		if t > 0 && (due == 0 || t < due) {
			due = t
		}
	}
	earlier(n.renewal)
	if len(n.later) > 0 {
		earlier(n.later[0].at)
	}
	if n.session == nil && !n.opening && !n.cut {
		earlier(max(n.dial, 1))
	}
	return due
}

// after gives the events of do at once, or when d has passed.
func (n *node) after(now state.Instant, d time.Duration, uid state.UID, do func(state.Instant) []step.Event) []step.Event {
	if d <= 0 {
		return do(now)
	}
	l := later{at: now.Mono + d, do: do, uid: uid}
	i, _ := slices.BinarySearchFunc(n.later, l, func(a, b later) int {
		if a.at <= b.at {
			return -1
		}
		return 1
	})
	n.later = slices.Insert(n.later, i, l)
	return nil
}

func (n *node) act(now state.Instant, a *step.Action) []step.Event {
	f := n.shard.fleet
	answer := func(err error) []step.Event {
		d := &step.Done{ID: a.ID, UID: a.UID, Class: agent.ClassOf(err)}
		if err != nil {
			d.Text = err.Error()
		}
		return []step.Event{d}
	}
	switch a.Do {
	case step.Pull:
		id, uid, image, key := a.ID, a.UID, a.Image, a.Pod.Key
		return n.after(now, f.opts.Latency.Pull, uid, func(state.Instant) []step.Event {
			err := f.err(FailPull, key, "", image)
			d := &step.Done{ID: id, UID: uid, Class: agent.ClassOf(err)}
			if err != nil {
				d.Text = err.Error()
			}
			return []step.Event{d}
		})
	case step.MakeSandbox:
		n.ip++
		ip, id, uid, key := address(n.ip), a.ID, a.UID, a.Pod.Key
		return n.after(now, f.opts.Latency.Sandbox, uid, func(state.Instant) []step.Event {
			err := f.err(FailSandbox, key, "", "")
			d := &step.Done{ID: id, UID: uid, Class: agent.ClassOf(err), IP: ip}
			if err != nil {
				d.Text = err.Error()
			}
			return []step.Event{d}
		})
	case step.Run:
		x := *a
		return n.after(now, f.opts.Latency.Start, a.UID, func(now state.Instant) []step.Event { return n.runs(now, &x) })
	case step.Stop:
		return n.stop(now, a)
	case step.Remove:
		for k := range n.sims {
			if k.uid == a.UID {
				delete(n.sims, k)
			}
		}
		n.later = slices.DeleteFunc(n.later, func(l later) bool { return l.uid == a.UID })
		return answer(nil)
	case step.StartProbe:
		return n.probe(now, a)
	case step.StopProbe:
		if s := n.sims[simKey{a.UID, a.Container}]; s != nil {
			s.probes[a.Probe] = nil
		}
		return nil
	case step.Cancel:
		return nil
	case step.Prepare:
		return answer(nil)
	default:
		return answer(fmt.Errorf("action %s: %w", a.Do, runtimes.ErrUnsupported))
	}
}

func specOf(a *step.Action) *corev1.Container {
	spec := &a.Pod.Template.Spec.Spec
	for i := range spec.InitContainers {
		if spec.InitContainers[i].Name == a.Container {
			return &spec.InitContainers[i]
		}
	}
	for i := range spec.Containers {
		if spec.Containers[i].Name == a.Container {
			return &spec.Containers[i]
		}
	}
	return nil
}

func (n *node) runs(now state.Instant, a *step.Action) []step.Event {
	f, key := n.shard.fleet, a.Pod.Key
	if err := f.err(FailStart, key, a.Container, a.Image); err != nil {
		return []step.Event{&step.Done{ID: a.ID, UID: a.UID, Class: agent.ClassOf(err), Text: err.Error()}}
	}
	k := simKey{a.UID, a.Container}
	s := &sim{key: key, image: a.Image, attempt: a.Attempt, started: now.Wall}
	n.sims[k] = s
	if _, ok := f.hit(Hang, key, a.Container, a.Image); ok {
		s.stubborn = true
	}
	events := []step.Event{
		&step.Done{ID: a.ID, UID: a.UID, Class: step.OK},
		&step.Observed{Containers: []step.Container{{UID: a.UID, Name: a.Container, Attempt: a.Attempt, Running: true, Started: now.Wall}}},
	}
	spec := specOf(a)
	ends := a.Init && !state.Sidecar(spec)
	x, crash := f.hit(Crash, key, a.Container, a.Image)
	if !ends && !crash {
		return events
	}
	return append(events, n.after(now, x.After, a.UID, func(now state.Instant) []step.Event {
		if n.sims[k] != s {
			return nil
		}
		return n.exit(now, k, x.Code)
	})...)
}

func (n *node) exit(now state.Instant, k simKey, code int32) []step.Event {
	s := n.sims[k]
	if s == nil {
		return nil
	}
	delete(n.sims, k)
	return []step.Event{&step.Observed{Containers: []step.Container{{
		UID: k.uid, Name: k.container, Attempt: s.attempt, ExitCode: code, Started: s.started, Finished: now.Wall,
	}}}}
}

func (n *node) stop(now state.Instant, a *step.Action) []step.Event {
	k, id := simKey{a.UID, a.Container}, a.ID
	d, code := min(n.shard.fleet.opts.Latency.Stop, a.Grace), int32(143)
	if s := n.sims[k]; s != nil && s.stubborn {
		d, code = a.Grace, 137
	}
	return n.after(now, d, a.UID, func(now state.Instant) []step.Event {
		return append(n.exit(now, k, code), &step.Done{ID: id, UID: k.uid, Class: step.OK})
	})
}

func (n *node) probe(now state.Instant, a *step.Action) []step.Event {
	k := simKey{a.UID, a.Container}
	s, spec := n.sims[k], specOf(a)
	if s == nil || spec == nil {
		return nil
	}
	p := [...]*corev1.Probe{spec.StartupProbe, spec.LivenessProbe, spec.ReadinessProbe}[a.Probe]
	s.probes[a.Probe] = p
	kind, delay := a.Probe, time.Duration(0)
	if n.shard.fleet.opts.Delays {
		delay = time.Duration(p.InitialDelaySeconds) * time.Second
	}
	return n.after(now, delay, a.UID, func(state.Instant) []step.Event {
		if n.sims[k] != s || s.probes[kind] == nil {
			return nil
		}
		return n.result(k, s, kind)
	})
}

// result is a probe's as often as its threshold asks: nothing changes until a
// fault does, so it needn't be told again.
func (n *node) result(k simKey, s *sim, kind step.Probe) []step.Event {
	fault := Unhealthy
	if kind == step.Readiness {
		fault = Unready
	}
	err := n.shard.fleet.err(fault, s.key, k.container, s.image)
	p := s.probes[kind]
	e := &step.Probed{UID: k.uid, Container: k.container, Attempt: s.attempt, Probe: kind, OK: err == nil, Times: max(p.SuccessThreshold, 1)}
	if err != nil {
		e.Text, e.Times = err.Error(), max(p.FailureThreshold, 3)
	}
	return []step.Event{e}
}

func (n *node) reprobe() []step.Event {
	var events []step.Event
	for k, s := range n.sims {
		for kind := range s.probes {
			if s.probes[kind] != nil {
				events = append(events, n.result(k, s, step.Probe(kind))...)
			}
		}
	}
	return events
}

// Logs says what is simulated. Followed, it ends with the request.
func (n *node) Logs(ctx context.Context, r agent.LogRequest) (io.ReadCloser, error) {
	n.shard.run.Lock()
	s := n.sims[simKey{r.UID, r.Container}]
	n.shard.run.Unlock()
	if s == nil {
		return nil, fmt.Errorf("container %s does not run on node %s: %w", r.Container, n.name, runtimes.ErrNotFound)
	}
	text := line(s.key, r.Container, s.image, s.attempt) + "\n"
	if r.Previous || r.Tail < 0 || r.Since > s.started {
		text = ""
	}
	if r.Times && text != "" {
		text = time.Unix(0, s.started).UTC().Format(time.RFC3339Nano) + " " + text
	}
	if !r.Follow {
		return io.NopCloser(strings.NewReader(text)), nil
	}
	out, in := io.Pipe()
	go func() {
		_, err := io.WriteString(in, text)
		if err == nil {
			<-ctx.Done()
		}
		in.CloseWithError(io.EOF)
	}()
	return out, nil
}

// Exec refuses: no process is there.
func (n *node) Exec(context.Context, agent.ExecRequest) (int, error) { return 0, errExec }

// PortForward refuses: nothing listens.
func (n *node) PortForward(_ context.Context, _ state.UID, _ uint16, conn io.ReadWriteCloser) error {
	return errors.Join(conn.Close(), fmt.Errorf("node %s is simulated, nothing listens in its pods: %w", n.name, runtimes.ErrUnsupported))
}
