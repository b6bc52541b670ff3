package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/metrics"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/render/worker"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
	"github.com/tandem-gitops/tandem/sources/git"
)

// Options say what a process follows, where it keeps its data, and which nodes
// it brings along.
type Options struct {
	Data  string
	Where string // a directory, a repository or a URL; empty: nothing is followed
	Ref   string
	Path  string // of the root, in Where
	// Credentials are who we are to each Git host.
	Credentials git.Credentials
	Images      []string
	Mirrors     map[string][]string // of registries, by host
	Simulate    map[state.OS]int
	Node        state.NodeName // this machine as a node; empty: it isn't one
	Fencer      []string       // program of the node's fencer, with its first arguments
	Keeper      []string       // Windows: program that keeps a container's log, likewise
	Listen      string         // of the API; empty: DefaultListen
	Interval    time.Duration  // between looks at a remote repository; 0: the default
	Version     string
	Routing     state.Routing // between nodes; zero: as it was
	Renders     []string      // program of the workers that render, with its first arguments; empty: this process renders, as in tests
	Logger      *slog.Logger
}

// DefaultListen is where the API, the agents' streams and the metrics are.
const DefaultListen = "127.0.0.1:7443"

// A Server is a controller with all that belongs to it.
type Server struct {
	Controller *act.Controller
	Hub        *agent.Hub
	Data       *Data
	Kind       string // what Where turned out to be
	opts       Options
	images     lookup
	feeds      *act.Feeds
	origins    *origins
	renders    *worker.Pool
	fleet      *simulated.Fleet
	api        *api
	meter      *metrics.Controller
	node       *localNode
	downMu     sync.Mutex
	down       bool // a person asked to take everything down
	ending     chan struct{}
}

// Open puts a server together. Nothing runs yet but, where this machine is to
// be a node, its containerd.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{opts: o, ending: make(chan struct{}), meter: metrics.NewController(o.Version)}
	if o.Listen == "" {
		s.opts.Listen = DefaultListen
	}
	data, err := OpenData(o.Data, false)
	if err != nil {
		return nil, err
	}
	s.Data = data
	if err := s.assemble(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) assemble(ctx context.Context) error {
	o := &s.opts
	store := images.New(images.Options{Dirs: o.Images, Mirrors: o.Mirrors, Logger: o.Logger})
	s.images = lookup{store, o.patience()}
	s.Hub = agent.NewHub(agent.HubConfig{
		Proof:  s.proof,
		Submit: func(e ...state.Event) { s.Controller.Submit(s.worded(e)...) },
		Head:   s.head, Version: o.Version, Logger: o.Logger,
	})
	var err error
	s.Controller, err = act.New(ctx, act.Config{
		Log: s.Data.Store, Library: s.Data.Library, Texts: s.Data.Store.Texts(), Snapshots: snapshots{s.Data.Store},
		Nodes: s.Hub, Images: s.images, LogID: s.Data.Store.ID(), Version: o.Version, Routing: o.Routing, Logger: o.Logger,
		Committed: s.committed, Defaults: manifest.DefaultTemplate, Meter: s.meter,
	})
	if err != nil {
		return fmt.Errorf("read data directory %s: %w", o.Data, err)
	}
	if o.Where != "" {
		if len(o.Renders) == 0 {
			return fmt.Errorf("follow %s: no program was given that renders run in", o.Where)
		}
		origins, err := newOrigins(o)
		if err != nil {
			return err
		}
		s.Kind, s.origins = origins.kind, origins
		origins.checkpoint = s.Data.Store.Checkpoint
		keys, err := AgeKeys(filepath.Join(o.Data, "age.key"))
		if err != nil {
			return err
		}
		s.feeds = act.NewFeeds(s.Controller, origins, s.renderer(keys), o.Path, o.Logger)
		s.Controller.Promote(s.feeds)
	}
	if s.api, err = newAPI(s); err != nil {
		return err
	}
	s.watch()
	if len(o.Simulate) > 0 {
		s.simulate()
	}
	if o.Node != "" {
		s.api.opening.now("takes over what runs on this machine")
		if s.node, err = openNode(ctx, s, store); err != nil {
			return err
		}
	}
	return nil
}

// watch has the metrics say what the parts know.
func (s *Server) watch() {
	v := metrics.Views{State: s.Controller.View, Sessions: s.Hub.Sessions, LogSize: s.Data.Store.Size, Certificates: s.api.ends}
	if s.feeds != nil {
		v.Sources = s.feeds.Looks
	}
	s.meter.Watch(v)
}

// renderer renders in workers, or in this process where no program is given.
func (s *Server) renderer(keys *sops.Keys) render.Renderer {
	if len(s.opts.Renders) == 0 {
		return overlay.New(overlay.Options{Tokens: s.Data.Secrets, Keys: keys})
	}
	s.renders = worker.New(worker.Options{Command: s.opts.Renders, Tokens: s.Data.Secrets, Keys: keys, Logger: s.opts.Logger})
	return s.renders
}

// patience is how long an image look-up may take. Where every node is
// simulated it decides nothing, so nobody waits long for it.
func (o *Options) patience() time.Duration {
	if o.Node == "" && len(o.Simulate) > 0 {
		return 3 * time.Second
	}
	return 30 * time.Second
}

// Run serves until ctx ends, cleanly, or something fails.
func (s *Server) Run(ctx context.Context) error {
	// Asked to end, the controller stops first, cleanly: it leaves this node's
	// and the others' leases for ever. Where a part fails or all is taken down,
	// the parts that talk to it end before it does.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	controller, last := context.WithCancel(context.WithoutCancel(ctx))
	defer last()
	var all, core sync.WaitGroup
	errs := make(chan error, 8)
	begin := func(wg *sync.WaitGroup, ctx context.Context, name string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs <- fmt.Errorf("%s: %w", name, err)
			}
			stop()
		})
	}
	begin(&core, controller, "controller", s.Controller.Run)
	begin(&all, inner, "API", s.api.run)
	if s.feeds != nil {
		begin(&all, inner, "sources", func(ctx context.Context) error { s.feeds.Run(ctx); return nil })
	}
	if s.fleet != nil {
		begin(&all, inner, "simulated nodes", s.fleet.Run)
	}
	all.Go(func() { s.forgetSimulated(inner) })
	if s.node != nil {
		begin(&all, inner, "this node", s.node.run)
	}
	begin(&all, inner, "down", s.waitDown)
	select {
	case <-ctx.Done():
		last()
		core.Wait()
		stop()
	case <-inner.Done():
	}
	all.Wait()
	last()
	core.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// takeDown notes that a person asked to take everything down.
func (s *Server) takeDown() {
	s.downMu.Lock()
	defer s.downMu.Unlock()
	if !s.down {
		s.down = true
		close(s.ending)
	}
}

// TakenDown says whether the server ended because a person asked for it.
func (s *Server) TakenDown() bool {
	s.downMu.Lock()
	defer s.downMu.Unlock()
	return s.down
}

// waitDown returns when everything was asked to go, and has gone.
func (s *Server) waitDown(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ending:
	}
	for {
		var seq state.Seq
		left := 0
		s.Controller.View(func(st *state.State) { seq, left = st.Seq, len(st.Pods) })
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Controller.Changed(seq):
		}
	}
}

// Looked says whether every source was looked at since the start.
func (s *Server) Looked() bool { return s.feeds == nil || s.feeds.Looked() }

// Close lets go of what Open took. Pods of this machine run on, unless a person
// asked to take everything down: then nothing of it stays.
func (s *Server) Close() error {
	var err error
	switch {
	case s.node == nil:
	case s.TakenDown():
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = s.node.machine.Shutdown(ctx)
	default:
		err = s.node.close()
	}
	if s.api != nil {
		err = errors.Join(err, s.api.close())
	}
	if s.renders != nil {
		err = errors.Join(err, s.renders.Close())
	}
	return errors.Join(err, s.Data.Close())
}

// Address is where the API is.
func (s *Server) Address() string { return s.api.address() }

// Kubeconfig is the path of the file that kubectl needs.
func (s *Server) Kubeconfig() string { return filepath.Join(s.opts.Data, "kubeconfig") }

// head is what agents are told of the log.
func (s *Server) head() agent.Head {
	h := s.Data.Store.Head()
	return agent.Head{Log: s.Data.Store.ID(), Size: uint64(h.Seq), Root: h.Root}
}

// proof shows agents that the log only grew since they last saw it.
func (s *Server) proof(earlier, later uint64) ([]state.Digest, error) {
	hashes, err := s.Data.Store.Consistency(state.Seq(earlier), state.Seq(later))
	if err != nil {
		return nil, err
	}
	out := make([]state.Digest, len(hashes))
	for i, h := range hashes {
		out[i] = state.Digest(h)
	}
	return out, nil
}

// worded puts what agents say in words beside the log, before it enters the machine.
func (s *Server) worded(events []state.Event) []state.Event {
	for _, e := range events {
		if r, ok := e.(*state.Reported); ok {
			for i := range r.Report.Pods {
				p := &r.Report.Pods[i]
				if p.Message != "" && p.Detail.IsZero() {
					p.Detail = s.Controller.Text(p.Message)
				}
				s.lastWords(p)
			}
		}
	}
	return events
}

// lastWords puts those of a pod's containers beside the log. The containers may
// be an agent's of this process: they are copied.
func (s *Server) lastWords(p *state.PodStatus) {
	if p.Words == nil || len(p.Words) != len(p.Containers) {
		return
	}
	p.Containers = slices.Clone(p.Containers)
	for i, text := range p.Words {
		if text != "" {
			p.Containers[i].LastSaid = s.Controller.Text(text)
		}
	}
}

// committed acts on records that ask the shell for something.
func (s *Server) committed(records []*state.Record) {
	for _, r := range records {
		switch f := r.Fact.(type) {
		case *state.Commanded:
			if f.Verb == state.CmdSync && s.feeds != nil {
				s.feeds.Hint(state.AppName(f.Object.Name))
			}
			if f.Verb == state.CmdDown {
				s.takeDown()
			}
		case *state.NodeRemoved:
			s.Hub.Forget(f.Node)
		}
	}
}

// simulate makes the nodes that --simulate names.
func (s *Server) simulate() {
	s.fleet = simulated.NewFleet(simulated.FleetOptions{
		Latency: simulated.Latency{Pull: 200 * time.Millisecond, Sandbox: 20 * time.Millisecond, Start: 300 * time.Millisecond, Stop: 100 * time.Millisecond},
		Logger:  s.opts.Logger,
	})
	for _, os := range []state.OS{state.Linux, state.Windows} {
		for i := range s.opts.Simulate[os] {
			s.fleet.Add(simulatedName(os, i), simulatedFacts(os), s.Hub.Link())
		}
	}
}

// forgetSimulated removes the simulated nodes of an earlier process that this
// one doesn't bring along: their pods ended with it.
func (s *Server) forgetSimulated(ctx context.Context) {
	var gone []string
	s.Controller.View(func(st *state.State) {
		for _, n := range st.SortedNodes() {
			if n.Facts.Simulated && !s.simulates(n.Name) {
				gone = append(gone, string(n.Name))
			}
		}
	})
	for _, name := range gone {
		_, err := s.Controller.Do(ctx, &state.Command{
			Verb: state.CmdRemoveNode, Object: state.Ref{Kind: "Node", Name: name}, Reason: s.Controller.Text("simulated nodes end with their process"),
		})
		if err != nil {
			return // the process is ending
		}
	}
}

func (s *Server) simulates(name state.NodeName) bool {
	for os, n := range s.opts.Simulate {
		for i := range n {
			if name == simulatedName(os, i) {
				return true
			}
		}
	}
	return false
}

func simulatedName(os state.OS, i int) state.NodeName {
	return state.NodeName(fmt.Sprintf("%s-%d", os, i+1))
}

func simulatedFacts(os state.OS) state.NodeFacts {
	size := state.Resources{MilliCPU: 8000, Memory: 16 << 30, Ephemeral: 100 << 30, Pods: 110}
	f := state.NodeFacts{OS: os, Arch: "amd64", Capacity: size, Allocatable: size, Runtime: "simulated://1", Simulated: true}
	switch os {
	case state.Windows:
		f.OSVersion, f.OSImage = "10.0.20348.2113", "Windows Server 2022 (simulated)"
		f.Isolations = []state.Isolation{state.Process, state.HyperV}
	case state.Linux, state.AnyOS:
		f.OSImage = "Linux (simulated)"
	}
	return f
}

// look says what an image name means, for plans.
func (s *Server) look(ctx context.Context, name string, secrets []*state.Object) state.Image {
	return s.images.Look(ctx, name, secrets)
}

// lookup answers the machine's question what an image name means.
type lookup struct {
	store *images.Store
	limit time.Duration
}

// Look implements act.Images.
func (l lookup) Look(ctx context.Context, name string, secrets []*state.Object) state.Image {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	im, err := l.store.With(report.PullCredentials(secrets)).Look(ctx, name)
	if err != nil {
		im.Name, im.Assumed = name, true
		if im.Failure == 0 {
			im.Failure = state.LookupUnavailable
		}
		im.Platforms = nil
	}
	return im
}
