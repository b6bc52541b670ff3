package simulated

import (
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// FleetOptions make a Fleet.
type FleetOptions struct {
	Latency Latency
	// Delays makes probes wait for their initialDelaySeconds: otherwise a pod
	// without faults is ready as soon as it runs.
	Delays  bool
	Workers int // goroutines; 0: as many as cores
	Logger  *slog.Logger
}

// A Fleet is many simulated nodes. Each is a step machine, some maps and a
// place in a timer heap; a few workers drive them all.
type Fleet struct {
	Faults

	opts   FleetOptions
	shards []*shard
	start  time.Time
	boot   string
}

// A shard is the nodes of one worker.
type shard struct {
	fleet *Fleet
	hint  chan struct{}

	mu    sync.Mutex // guards inbox of all its nodes, and queue
	queue []*node

	run    sync.Mutex // held while nodes are driven; guards all else of them
	nodes  map[state.NodeName]*node
	timers timers
}

// NewFleet is a fleet without nodes.
func NewFleet(opts FleetOptions) *Fleet {
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{opts: opts, start: time.Now()}
	f.boot = fmt.Sprintf("simulated-%d", f.start.UnixNano())
	for range opts.Workers {
		f.shards = append(f.shards, &shard{fleet: f, hint: make(chan struct{}, 1), nodes: map[state.NodeName]*node{}})
	}
	return f
}

func (f *Fleet) shard(name state.NodeName) *shard {
	h := fnv.New32a()
	h.Write([]byte(name))
	return f.shards[h.Sum32()%uint32(len(f.shards))]
}

// Add makes a node; its agent connects through link as soon as the fleet runs.
func (f *Fleet) Add(name state.NodeName, facts state.NodeFacts, link agent.Link) {
	facts.Simulated = true
	s := f.shard(name)
	n := &node{shard: s, name: name, facts: facts, link: link, incarnation: uint64(f.start.UnixNano()), sims: map[simKey]*sim{}}
	n.machine = step.New(step.Config{Node: name, Facts: &n.facts, BootID: f.boot, Incarnation: n.incarnation}, nil)
	s.run.Lock()
	s.nodes[name] = n
	s.run.Unlock()
	n.post(func(in *inbox) { in.events = append(in.events, &step.Observed{Whole: true}) })
}

// Lose cuts a node off until Return; what it runs goes on.
func (f *Fleet) Lose(name state.NodeName) { f.cut(name, true) }

// Return lets a lost node connect again.
func (f *Fleet) Return(name state.NodeName) { f.cut(name, false) }

func (f *Fleet) cut(name state.NodeName, cut bool) {
	s := f.shard(name)
	s.run.Lock()
	n := s.nodes[name]
	s.run.Unlock()
	if n != nil {
		n.post(func(in *inbox) { in.cut = &cut })
	}
}

// Kill ends a container of a node as if somebody had killed its process.
func (f *Fleet) Kill(name state.NodeName, uid state.UID, container string, code int32) {
	s := f.shard(name)
	s.run.Lock()
	defer s.run.Unlock()
	if n := s.nodes[name]; n != nil {
		n.post(func(in *inbox) { in.kills = append(in.kills, kill{simKey{uid, container}, code}) })
	}
}

// Inject adds a fault to all nodes; what already runs is probed again.
func (f *Fleet) Inject(x Fault) {
	f.Faults.Inject(x)
	f.reprobe()
}

// Heal removes all faults; what already runs is probed again.
func (f *Fleet) Heal() {
	f.Faults.Heal()
	f.reprobe()
}

func (f *Fleet) reprobe() {
	for _, s := range f.shards {
		s.run.Lock()
		for _, n := range s.nodes {
			n.post(func(in *inbox) { in.reprobe = true })
		}
		s.run.Unlock()
	}
}

// Run drives the nodes until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, s := range f.shards {
		all.Go(func() { s.work(ctx) })
	}
	all.Wait()
	return ctx.Err()
}

func (s *shard) wake() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}

func (s *shard) work(ctx context.Context) {
	var opening sync.WaitGroup
	defer opening.Wait()
	slots := make(chan struct{}, 32)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		s.run.Lock()
		for _, n := range queue {
			n.drive(ctx, &opening, slots)
		}
		now := s.fleet.now()
		for ctx.Err() == nil && len(s.timers) > 0 && s.timers[0].due <= now.Mono {
			n := s.timers[0]
			n.drive(ctx, &opening, slots)
			n.schedule()
		}
		for _, n := range queue {
			n.schedule()
		}
		next := time.Hour
		if len(s.timers) > 0 {
			next = s.timers[0].due - s.fleet.now().Mono
		}
		s.run.Unlock()
		timer.Reset(max(next, 0))
		select {
		case <-ctx.Done():
			s.close()
			return
		case <-s.hint:
		case <-timer.C:
		}
	}
}

func (s *shard) close() {
	s.run.Lock()
	defer s.run.Unlock()
	for _, n := range s.nodes {
		if n.session != nil {
			n.session.Close()
			n.session = nil
		}
	}
}

// now is the fleet's clock: steady time since it was made.
func (f *Fleet) now() state.Instant {
	t := time.Now()
	return state.Instant{Mono: t.Sub(f.start) + 1, Wall: t.UnixNano()}
}

// timers is a heap of nodes by when they are due.
type timers []*node

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].place, t[j].place = i+1, j+1
}

func (t *timers) Push(x any) {
	n := x.(*node)
	*t = append(*t, n)
	n.place = len(*t)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	n := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	n.place = 0
	return n
}

// schedule puts the node where its next due time belongs.
func (n *node) schedule() {
	due := n.next()
	switch {
	case due == 0 && n.place > 0:
		heap.Remove(&n.shard.timers, n.place-1)
	case due == 0:
	case n.place > 0:
		n.due = due
		heap.Fix(&n.shard.timers, n.place-1)
	default:
		n.due = due
		heap.Push(&n.shard.timers, n)
	}
}
