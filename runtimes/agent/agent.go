package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/bootclock"
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// Config is what an agent is: its name, its place, its runtime and its way to
// the controller.
type Config struct {
	Node state.NodeName
	Dir  string // its own: assignment, volumes, logs
	// Volatile is a directory in memory, for Secrets; empty: they aren't kept,
	// and an agent that starts waits for the controller to send them.
	Volatile string
	Runtime  runtimes.Runtime
	Link     Link

	BootID   string            // empty: the operating system's
	Version  string            // of this program
	Address  string            // that the node is reached at, for people
	Labels   map[string]string // added to the node's own
	Taints   []state.Taint
	Resolv   string  // file with the lines of resolv.conf for pods that use the host's; empty: /etc/resolv.conf
	Network  Network // nil: Services have no addresses on this node
	Parallel int     // calls of the runtime at once; 0: 8
	// Fencer ends identities in time when the agent can't; nil: this node takes
	// none that would have to.
	Fencer *fencer.Guard
	Meter  Meter // nil: nobody counts
	Logger *slog.Logger
}

// An Agent makes one node's assignment true. Run runs it once.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	facts state.NodeFacts
	store store
	saved *step.Saved
	note  note

	outputs *outputs
	machine *step.Machine // only the loop of Run touches it
	kept    lease.Keeper  // as saved; likewise
	told    fence.Word    // likewise

	fencerHeard chan struct{} // closed when it is known whether there is a fencer
	fencerKnown func()

	noteMu sync.Mutex // held while the note is changed and written; taken before mu

	mu      sync.Mutex // guards the rest
	inbox   []step.Event
	outbox  *outbox // of the open session
	peer    *sessionPeer
	applied *state.Assignment
	every   time.Duration // between renewals
	sooner  chan struct{} // hints that every is shorter than it was
	running map[state.UID]*podWork
	status  map[state.UID]state.PodStatus // as last reported
	news    chan struct{}                 // closed at the next report
	hint    chan struct{}

	open          []state.UID   // identities, as the fencer last said
	unfencedSince time.Duration // the boot clock; 0: there is a fencer
}

// New opens an agent's directory and describes its machine.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if err := lease.Check(); err != nil {
		return nil, err
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 8
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noMeter{}
	}
	if cfg.BootID == "" {
		id, err := bootclock.ID()
		if err != nil {
			return nil, fmt.Errorf("find the boot ID of this machine: %w", err)
		}
		cfg.BootID = id
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger.With(slog.String("node", string(cfg.Node))), store: store{cfg.Dir, cfg.Volatile}, running: map[state.UID]*podWork{},
		status: map[state.UID]state.PodStatus{}, news: make(chan struct{}), hint: make(chan struct{}, 1), sooner: make(chan struct{}, 1), fencerHeard: make(chan struct{}),
	}
	a.fencerKnown = sync.OnceFunc(func() { close(a.fencerHeard) })
	a.outputs = &outputs{agent: a, lives: map[lifeKey]*life{}}
	facts, err := cfg.Runtime.Describe(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe node %s: %w", cfg.Node, err)
	}
	a.facts = a.describe(facts)
	if err := a.begin(); err != nil {
		return nil, fmt.Errorf("agent of node %s: %w", cfg.Node, err)
	}
	return a, nil
}

func (a *Agent) describe(f state.NodeFacts) state.NodeFacts {
	if len(a.cfg.Labels) > 0 {
		labels := map[string]string{}
		for _, from := range []map[string]string{f.Labels, a.cfg.Labels} {
			maps.Copy(labels, from)
		}
		f.Labels = labels
	}
	f.Taints = append(slices.Clip(f.Taints), a.cfg.Taints...)
	f.Agent = a.cfg.Version
	f.Fences, f.Unfenced = a.cfg.Fencer != nil, a.cfg.Fencer != nil
	if a.cfg.Address != "" {
		f.Address = a.cfg.Address
	}
	return f
}

// begin reads what a former process left and counts this one.
func (a *Agent) begin() error {
	for _, dir := range []string{a.cfg.Dir, a.podsDir(), a.logsDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var err error
	if a.note, err = a.store.note(); err != nil {
		return err
	}
	if a.saved, err = a.store.load(); err != nil {
		return err
	}
	a.note.Incarnation++
	if err := a.store.saveNote(a.note); err != nil {
		return err
	}
	a.machine = step.New(step.Config{Node: a.cfg.Node, Facts: &a.facts, BootID: a.cfg.BootID, Incarnation: a.note.Incarnation, Parked: a.note.Parked == a.cfg.BootID, Fenced: a.cfg.Fencer != nil}, a.saved)
	a.kept, a.every = a.machine.Lease(), a.machine.RenewEvery()
	a.applied = a.machine.Applied()
	return nil
}

func (a *Agent) podsDir() string { return filepath.Join(a.cfg.Dir, "pods") }
func (a *Agent) logsDir() string { return filepath.Join(a.cfg.Dir, "logs") }

// Facts are what the agent says of its machine.
func (a *Agent) Facts() state.NodeFacts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.facts
}

// now is the time by the clock that goes on while the machine sleeps: leases and
// back-off go by it (decision 7).
func now() state.Instant {
	return state.Instant{Mono: bootclock.Now(), Wall: time.Now().UnixNano()}
}

func (a *Agent) post(events ...step.Event) {
	a.mu.Lock()
	a.inbox = append(a.inbox, events...)
	a.mu.Unlock()
	select {
	case a.hint <- struct{}{}:
	default:
	}
}

// Run makes assignments true until ctx ends. What runs on the node goes on.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	w := &worker{agent: a, all: &all, slots: make(chan struct{}, a.cfg.Parallel), boxes: make(chan struct{}, a.cfg.Parallel), pulls: make(chan struct{}, 4)}
	a.outputs.run(ctx, &all)
	a.keepImages(a.machine.Applied())
	if a.cfg.Fencer != nil {
		a.guard() // before it is started, so that it knows at once
		all.Go(func() { a.cfg.Fencer.Run(ctx, func(h fencer.Health) { a.fenced(ctx, h) }) })
	}
	all.Go(func() { a.observe(ctx) })
	all.Go(func() { a.connect(ctx) })
	all.Go(func() { a.measure(ctx) })
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	swept := false
	for {
		a.mu.Lock()
		events := a.inbox
		a.inbox = nil
		a.mu.Unlock()
		before := a.machine.Applied()
		now := now()
		out := a.machine.Step(now, events...)
		a.persist(ctx, before, out.Report != nil)
		a.guard()
		for i := range out.Actions {
			w.do(ctx, out.Actions[i])
		}
		if out.Report != nil {
			a.remember(out.Report)
			a.report(ctx, out.Report)
			swept = swept || a.sweep(ctx)
		}
		wait := time.Hour
		if !out.Wake.IsZero() {
			wait = max(out.Wake.Mono-now.Mono, 0)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.hint:
		case <-timer.C:
		}
	}
}

// persist keeps what a later process needs. A failure is no reason to stop: the
// controller sends the assignment again.
func (a *Agent) persist(ctx context.Context, before *state.Assignment, changed bool) {
	now := a.machine.Applied()
	if now != before {
		a.mu.Lock()
		a.applied = now
		a.mu.Unlock()
		a.keepImages(now)
		if err := a.store.saveAssignment(now); err != nil {
			a.log.LogAttrs(ctx, slog.LevelWarn, "kept no copy of the assignment", slog.Any("err", err))
		}
	}
	granted := a.machine.Lease()
	if changed || now != before || granted != a.kept {
		if err := a.store.savePods(a.machine.Save()); err != nil {
			a.log.LogAttrs(ctx, slog.LevelWarn, "kept no copy of the pods' state", slog.Any("err", err)) // a later process ends identities earlier
		}
		a.kept = granted
		a.renewEvery(a.machine.RenewEvery())
	}
}

// renewEvery sets how often the lease is renewed. When that is more often than
// before, the next renewal leaves at once: by the time that was set for it, the
// lease of a pod that needs the shorter time would have lapsed.
func (a *Agent) renewEvery(every time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if every < a.every {
		select {
		case a.sooner <- struct{}{}:
		default:
		}
	}
	a.every = every
}

// remember keeps what people ask for between reports.
func (a *Agent) remember(r *state.Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Full {
		clear(a.status)
	}
	for i := range r.Pods {
		a.status[r.Pods[i].UID] = r.Pods[i]
	}
	for _, uid := range r.Gone {
		delete(a.status, uid)
	}
	close(a.news)
	a.news = make(chan struct{})
}

func (a *Agent) report(ctx context.Context, r *state.Report) {
	a.mu.Lock()
	out := a.outbox
	a.mu.Unlock()
	if out != nil && !out.put(r) { // without a session: the next one begins with a full one
		a.log.LogAttrs(ctx, slog.LevelDebug, "lost a report: the controller takes none")
	}
}

// observe feeds what exists into the machine, for as long as the agent runs.
func (a *Agent) observe(ctx context.Context) {
	var after uint64
	for ctx.Err() == nil {
		o, err := a.cfg.Runtime.Observe(ctx, after)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			a.cfg.Meter.Unobserved()
			a.log.LogAttrs(ctx, slog.LevelWarn, "the runtime did not say what exists", slog.Any("err", err))
			after = 0
			pause(ctx, time.Second)
			continue
		}
		after = o.Version
		a.outputs.observed(ctx, &o)
		a.post(a.withMessages(seen(&o)))
	}
}

func seen(o *runtimes.Observation) *step.Observed {
	e := &step.Observed{Whole: true}
	for i := range o.Sandboxes {
		s := &o.Sandboxes[i]
		e.Sandboxes = append(e.Sandboxes, step.Sandbox{UID: s.UID, Key: s.Key, IP: s.IP})
	}
	for i := range o.Containers {
		c := &o.Containers[i]
		e.Containers = append(e.Containers, step.Container{
			UID: c.UID, Name: c.Name, Attempt: c.Attempt, Running: c.Running, ExitCode: c.ExitCode, OOMKilled: c.OOMKilled,
			Started: wall(c.StartedAt), Finished: wall(c.FinishedAt), Error: c.Error,
		})
	}
	return e
}

func wall(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// ReconnectMost is the longest wait between two attempts to reach the
// controller: with the lease's constants it decides how long an outage may be.
const ReconnectMost = time.Second

// connect keeps a session open.
func (a *Agent) connect(ctx context.Context) {
	a.awaitFencer(ctx)
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		started := time.Now()
		err := a.converse(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errFacts) {
			continue
		}
		a.cfg.Meter.Lost(err)
		if time.Since(started) > 10*time.Second {
			wait = 50 * time.Millisecond
		}
		level := slog.LevelWarn
		if errors.Is(err, runtimes.ErrRejected) {
			level = slog.LevelError
		}
		a.log.LogAttrs(ctx, level, "lost the controller", slog.Any("err", err))
		pause(ctx, wait/2+rand.N(wait/2+1))
		wait = min(2*wait, ReconnectMost)
	}
}

// converse is one session, from hello to its loss.
func (a *Agent) converse(ctx context.Context) error {
	p := &sessionPeer{Agent: a, lost: make(chan error, 1)}
	a.mu.Lock()
	hello := Hello{
		Node: a.cfg.Node, Facts: a.facts, BootID: a.cfg.BootID, Incarnation: a.note.Incarnation, Head: a.note.Head,
	}
	if a.applied != nil {
		hello.Epoch, hello.Generation = a.applied.Epoch, a.applied.Generation
	}
	a.mu.Unlock()
	s, err := a.cfg.Link.Open(ctx, hello, p)
	if err != nil {
		return err
	}
	out := newOutbox()
	var sender sync.WaitGroup
	defer sender.Wait()
	defer s.Close() // which lets go of a report that is being sent
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	welcome := s.Welcome()
	if err := welcome.follows(hello.Head); err != nil {
		return err
	}
	a.mu.Lock()
	a.outbox, a.peer = out, p
	changed := a.facts.Unfenced != hello.Facts.Unfenced // meanwhile: nobody told this session
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.outbox, a.peer = nil, nil
		a.mu.Unlock()
	}()
	if changed {
		return errFacts
	}
	err = a.keepNote(func(n *note) {
		if !welcome.Head.Log.IsZero() {
			n.Head = welcome.Head
		}
		n.Parked = "" // this controller counts from what it hears of us
	})
	if err != nil {
		return err
	}
	sender.Go(func() { a.deliver(ctx, s, out, p) })
	a.post(&step.Connected{})
	a.cfg.Meter.Reached()
	a.log.LogAttrs(ctx, slog.LevelInfo, "reached the controller")
	renew := time.NewTimer(0)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.lost:
			return err
		case <-a.sooner:
			renew.Reset(0)
		case <-renew.C:
			if err := s.Renew(ctx, now().Mono); err != nil {
				return err
			}
			a.mu.Lock()
			every := min(welcome.Renew, a.every)
			a.mu.Unlock()
			renew.Reset(max(every, 10*time.Millisecond))
		}
	}
}

// A sessionPeer is the agent as one session knows it.
type sessionPeer struct {
	*Agent
	lost chan error
}

// keepNote changes the note and writes it, one after the other: a lease without
// end may come while the note of its session is being written.
func (a *Agent) keepNote(change func(*note)) error {
	a.noteMu.Lock()
	defer a.noteMu.Unlock()
	a.mu.Lock()
	change(&a.note)
	keep := a.note
	a.mu.Unlock()
	return a.store.saveNote(keep)
}

// Assign hands over the newest assignment.
func (p *sessionPeer) Assign(a *state.Assignment) { p.post(&step.Assigned{Assignment: a}) }

// Grant hands over a lease. One without end is noted first: the agent may be
// stopped together with its controller.
func (p *sessionPeer) Grant(g state.Grant) {
	if g.Endless {
		if err := p.keepNote(func(n *note) { n.Parked = p.cfg.BootID }); err != nil {
			p.log.LogAttrs(context.Background(), slog.LevelWarn, "kept no note of a lease without end", slog.Any("err", err))
			return
		}
	}
	p.post(&step.Granted{Grant: g})
}

// Resync asks for a full report.
func (p *sessionPeer) Resync() { p.post(&step.Connected{}) }

// Lost says that the session has ended.
func (p *sessionPeer) Lost(err error) {
	select {
	case p.lost <- err:
	default:
	}
}
