package act_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// A boundary is all that a controller can do to the world, written down as it
// happens. It outlives the controllers.
type boundary struct {
	mu     sync.Mutex
	starts map[state.UID]bool // pods that a node was told to run
	stops  map[state.UID]bool // and to stop
	pushes map[string]bool    // promotions whose branch was moved
	notes  map[string]bool    // commits that a repository was told of
	execs  map[state.Seq]bool // sessions in pods, by the record that allowed them
	branch string             // where prod is
}

func newBoundary() *boundary {
	return &boundary{
		starts: map[state.UID]bool{}, stops: map[state.UID]bool{}, pushes: map[string]bool{}, notes: map[string]bool{}, execs: map[state.Seq]bool{},
		branch: commitOf(1),
	}
}

func commitOf(n int) string { return fmt.Sprintf("%040d", n) }

// edge is the boundary as one controller knows it.
type edge struct {
	*agent.Hub
	b    *boundary
	tell func(commit string) // where prod's branch is; under b.mu, so that no older word comes after it
}

// Assign implements act.Nodes.
func (e edge) Assign(a state.Assignment) {
	e.b.mu.Lock()
	for _, p := range a.Pods {
		e.b.starts[p.UID] = true
		if p.Stop {
			e.b.stops[p.UID] = true
		}
	}
	e.b.mu.Unlock()
	e.Hub.Assign(a)
}

// Review implements act.Promoter: nothing is wrong with any commit.
func (e edge) Review(context.Context, *state.ReviewWanted) *state.Reviewed {
	return &state.Reviewed{Commits: 1, Forward: true}
}

// Push implements act.Promoter.
func (e edge) Push(_ context.Context, p *state.Push) *state.Pushed {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	e.b.pushes[p.ID] = true
	switch e.b.branch {
	case p.Old, p.New:
		e.b.branch = p.New
		e.tell(p.New)
		return &state.Pushed{Outcome: state.PromotionDone, Found: p.New}
	default:
		return &state.Pushed{Outcome: state.PromotionConflict, Found: e.b.branch}
	}
}

// Note implements act.Promoter.
func (e edge) Note(_ context.Context, n *state.NoteWanted) *state.Noted {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	e.b.notes[n.Commit] = true
	return &state.Noted{Outcome: state.NoteWritten, Found: n.Commit}
}

// of is the manifest of web for an application, in a namespace of its own.
func of(app state.AppName, replicas int32) *state.Manifest {
	m := web(replicas)
	m.App = app
	o := m.Objects[0]
	o.Ref.Namespace = string(app)
	o.Variants[0].Body.(*appsv1.Deployment).Namespace = string(app)
	m.Digest = manifest.Digest(m.Objects)
	return m
}

// busy is one process of a controller that does all that one can do: it syncs a
// commit, promotes it, and obeys a person; it ends when all that is done, or the disk
// fails. With last nothing is asked, and all that is open comes to its end.
func busy(t *testing.T, disk *historytest.Disk, b *boundary, round int, last bool) (ops int, err error) {
	t.Helper()
	defer func() { ops = disk.Ops() }()
	logger := slog.New(slog.DiscardHandler)
	store, err := history.Open("data", history.Options{Disk: disk})
	if err != nil {
		return 0, err
	}
	blobs, err := store.OpenBlobs()
	if err != nil {
		return 0, err
	}
	secrets, err := store.OpenSecrets()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c *act.Controller
	var p *person
	e := edge{agent.NewHub(agent.HubConfig{Submit: func(ev ...state.Event) { c.Submit(ev...) }, Logger: logger}), b, func(commit string) { p.push("prod", commit, 1) }}
	c, err = act.New(ctx, act.Config{
		Log: store, Library: act.NewLibrary(shelf{blobs}, codec{secrets}), Texts: store.Texts(), Nodes: e, Images: images{},
		LogID: store.ID(), Version: "test", Logger: logger,
	})
	if err != nil {
		return 0, err
	}
	c.Promote(e)
	run, stop := context.WithCancel(ctx)
	defer stop()
	p = &person{c: c, b: b, ctx: run, round: round}
	fleet := simulated.NewFleet(simulated.FleetOptions{Logger: logger})
	size := state.Resources{MilliCPU: 64_000, Memory: 64 << 30, Ephemeral: 1 << 40, Pods: 200}
	for _, name := range []state.NodeName{"linux-1", "linux-2"} {
		fleet.Add(name, state.NodeFacts{OS: state.Linux, Arch: "amd64", Capacity: size, Allocatable: size}, e.Link())
	}
	fleetCtx, stopFleet := context.WithCancel(ctx)
	var nodes sync.WaitGroup
	nodes.Go(func() { _ = fleet.Run(fleetCtx) })
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	asked := make(chan error, 1)
	go func() { asked <- p.day(last) }()
	var ended error
	select {
	case err := <-asked:
		stopFleet()
		nodes.Wait()
		stop()
		ended = errors.Join(err, <-done)
	case ended = <-done:
		stop()
		<-asked //nolint:errcheck // why the controller ended counts
		stopFleet()
		nodes.Wait()
	}
	return 0, ended
}

// person is who commits and asks.
type person struct {
	c     *act.Controller
	b     *boundary
	ctx   context.Context
	round int
}

// until waits for a state at the watermark.
func (p *person) until(holds func(*state.State) bool) error {
	for {
		var seq state.Seq
		there := false
		p.c.View(func(s *state.State) { seq, there = s.Seq, holds(s) })
		if there {
			return nil
		}
		select {
		case <-p.ctx.Done():
			return fmt.Errorf("%w: %s", p.ctx.Err(), p.stands())
		case <-p.c.Changed(seq):
		}
	}
}

// stands is what a day that doesn't end waits for.
func (p *person) stands() string {
	out := ""
	p.c.View(func(s *state.State) {
		for _, a := range s.SortedApps() {
			out += fmt.Sprintf("%s at %s converged %t; ", a.Spec.Name, a.Revision, a.Converged)
		}
		for _, x := range s.SortedPromotions() {
			out += fmt.Sprintf("%s open, of %s, begun %t; ", x.ID, x.Commit.Hash, x.Started != nil)
		}
		for _, l := range s.SortedLines() {
			for _, u := range l.Stages {
				out += fmt.Sprintf("%s heads at %s; ", u.Name, u.Head.Hash)
			}
		}
		for id, h := range s.Holds {
			out += fmt.Sprintf("%s holds %s, code %d; ", id, h.Object, h.Code)
		}
		for _, n := range s.SortedNodes() {
			out += fmt.Sprintf("%s ready %t cordoned %t; ", n.Name, n.Ready, n.Cordoned)
		}
		for _, x := range s.SortedPods() {
			out += fmt.Sprintf("%s on %s ready %t stopping %t; ", x.Key, x.Node, x.Ready, x.Stopping)
		}
	})
	return out
}

func (p *person) do(c *state.Command) (state.Reply, error) {
	c.Actor, c.Reason = p.c.Person("eva"), p.c.Text("a reason")
	return p.c.Do(p.ctx, c)
}

func (p *person) root(replicas int32) {
	p.c.Submit(&state.RootRendered{
		Revision: state.Revision("main@sha1:" + commitOf(replicasOf(p.round))), Manifest: web(replicas),
		Apps: []state.Application{
			{Name: "dev", Source: state.AppSource{Ref: "dev"}, Notes: "tandem/dev"}, {Name: "prod", Source: state.AppSource{Ref: "prod"}},
		},
		Pipelines: []state.Pipeline{{Name: "shop", Stages: []state.Stage{
			{Name: "dev", App: "dev"}, {Name: "prod", App: "prod", After: []string{"dev"}, Auto: true},
		}}},
	})
}

func replicasOf(round int) int { return 1 + round%3 }

func (p *person) push(app state.AppName, hash string, n int) {
	p.c.Submit(&state.Rendered{
		App: app, Revision: state.Revision(string(app) + "@sha1:" + hash), Commit: state.Commit{Hash: hash, Tree: "tree-" + hash}, Manifest: of(app, int32(n)), //nolint:gosec // small
	})
}

// day is what a person and the branches do in one controller's life.
func (p *person) day(last bool) error {
	nodes := func(s *state.State) bool {
		return len(s.Nodes) == 2 && s.Nodes["linux-1"].Ready && s.Nodes["linux-2"].Ready
	}
	if err := p.until(nodes); err != nil {
		return err
	}
	n := replicasOf(p.round)
	p.root(int32(n)) //nolint:gosec // small
	if err := p.until(func(s *state.State) bool { return s.Apps["prod"] != nil }); err != nil {
		return err
	}
	// The controller before may have died between the two of a pair.
	for _, c := range []*state.Command{
		{Verb: state.CmdUncordon, Object: state.Ref{Kind: "Node", Name: "linux-1"}},
		{Verb: state.CmdResume, Object: state.Ref{Kind: "Application", Name: "dev"}},
	} {
		if _, err := p.do(c); err != nil {
			return err
		}
	}
	p.b.mu.Lock()
	p.push("prod", p.b.branch, 1)
	p.b.mu.Unlock()
	dev := commitOf(2 + p.round)
	p.push("dev", dev, n)
	settled := func(s *state.State) bool {
		for _, app := range []state.AppName{state.RootApp, "dev", "prod"} {
			if a := s.Apps[app]; a == nil || !a.Converged {
				return false
			}
		}
		return s.Apps["dev"].Commit.Hash == dev
	}
	if err := p.until(func(s *state.State) bool {
		return settled(s) && len(s.Promotions) == 0 && s.Apps["prod"].Commit.Hash == dev
	}); err != nil {
		return err
	}
	if last {
		return p.until(func(s *state.State) bool { return quiet(s) && s.Apps["dev"].Noted == dev })
	}
	return p.asks(settled)
}

// quiet says that no pod is on its way in or out.
func quiet(s *state.State) bool {
	for _, p := range s.Pods {
		if p.Stopping || !p.Ready {
			return false
		}
	}
	return true
}

// asks is all that a person can ask for that leads to something.
func (p *person) asks(settled func(*state.State) bool) error {
	var victim *state.Pod
	p.c.View(func(s *state.State) {
		for _, x := range s.SortedPods() {
			if x.Workload.Namespace == "default" && x.Ready && !x.Stopping {
				victim = x
			}
		}
	})
	if victim == nil {
		return nil
	}
	pod := state.Ref{Kind: "Pod", Namespace: victim.Key.Namespace, Name: victim.Key.Name}
	for _, verb := range []state.CommandVerb{state.CmdExec, state.CmdPortForward} {
		r, err := p.do(&state.Command{Verb: verb, Object: pod, Detail: p.c.Text("web: date")})
		if err != nil {
			return err
		}
		p.b.mu.Lock()
		p.b.execs[r.Seq] = true // the command runs
		p.b.mu.Unlock()
		if verb == state.CmdExec {
			p.c.Submit(&state.SessionOver{Session: r.Seq, Outcome: state.SessionDone, Code: 3})
		} // the connection is open when the controller ends
	}
	workload := state.Ref{Kind: "Deployment", Namespace: "dev", Name: "web"}
	for _, c := range []*state.Command{
		{Verb: state.CmdDeletePod, Object: pod},
		{Verb: state.CmdRestart, Object: workload},
		{Verb: state.CmdCordon, Object: state.Ref{Kind: "Node", Name: "linux-1"}},
		{Verb: state.CmdUncordon, Object: state.Ref{Kind: "Node", Name: "linux-1"}},
		{Verb: state.CmdSuspend, Object: state.Ref{Kind: "Application", Name: "dev"}},
		{Verb: state.CmdResume, Object: state.Ref{Kind: "Application", Name: "dev"}},
	} {
		if _, err := p.do(c); err != nil {
			return err
		}
	}
	return p.until(func(s *state.State) bool { return settled(s) && quiet(s) })
}

// Whatever a controller does to the world (run and stop pods, move branches, write
// notes, let people into pods) has its intent in the log that survives, wherever the
// disk fails or the machine loses power; and once a controller could end its work,
// each intent has its outcome.
func TestNoActionWithoutItsRecords(t *testing.T) {
	t.Parallel()
	disk, b := historytest.NewDisk(), newBoundary()
	broken := errors.New("input/output error")
	rounds, hits := 24, 0
	if testing.Short() {
		rounds = 8
	}
	for round := range rounds {
		at := 4 + round*7
		f := historytest.Fault{At: at, Short: round%2 == 0}
		if round%3 > 0 {
			f.Err = broken // else the machine loses power there
		}
		disk.Inject(f)
		ops, err := busy(t, disk, b, round, false)
		if ops >= at {
			hits++
		} else if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		disk = disk.Crash(nil)
		intents(t, round, disk, b)
	}
	if hits < rounds/3 {
		t.Errorf("the disk failed only %d times of %d", hits, rounds)
	}
	for _, last := range []bool{false, true} { // all of it at peace, and what was left open
		disk.Inject(historytest.Fault{})
		if _, err := busy(t, disk, b, rounds, last); err != nil {
			t.Fatalf("at peace: %v", err)
		}
		disk = disk.Crash(nil)
	}
	kinds := outcomes(t, intents(t, rounds, disk, b))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.starts) == 0 || len(b.stops) == 0 || len(b.pushes) == 0 || len(b.notes) == 0 || len(b.execs) == 0 {
		t.Errorf("the world saw too little: %d pods, %d stops, %d pushes, %d notes, %d sessions", len(b.starts), len(b.stops), len(b.pushes), len(b.notes), len(b.execs))
	}
	t.Logf("%d failures; %d pods run, %d stopped, %d branches moved, %d notes, %d sessions; records %v", hits, len(b.starts), len(b.stops), len(b.pushes), len(b.notes), len(b.execs), kinds)
}

// intents holds what left against the log that survived, and returns that.
func intents(t *testing.T, round int, disk *historytest.Disk, b *boundary) []*state.Record {
	t.Helper()
	store, err := history.Open("data", history.Options{Disk: disk})
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer store.Close()
	var log []*state.Record
	placed, stopping, pushed, noted, allowed := map[state.UID]bool{}, map[state.UID]bool{}, map[string]bool{}, map[string]bool{}, map[state.Seq]bool{}
	for r, err := range store.Read(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, r)
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			placed[state.NewUID(store.ID(), r.Seq, f.Pod.Namespace, f.Pod.Name)] = true
		case *state.PodStopping:
			stopping[f.UID] = true
		case *state.PromotionStarted:
			pushed[f.ID] = true
		case *state.RevisionApplied:
			noted[f.Commit.Hash] = true
		case *state.RevisionSeen:
			noted[f.Commit.Hash] = true
		case *state.RevisionsSeen:
			noted[f.Commit.Hash] = true
		case *state.Commanded:
			allowed[r.Seq] = f.Verb.IsSession() && !r.Actor.IsZero()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	missing(t, round, "a pod was run", b.starts, placed)
	missing(t, round, "a pod was stopped", b.stops, stopping)
	missing(t, round, "a branch was moved", b.pushes, pushed)
	missing(t, round, "a note was written", b.notes, noted)
	missing(t, round, "somebody was in a pod", b.execs, allowed)
	return log
}

func missing[K comparable](t *testing.T, round int, what string, did, recorded map[K]bool) {
	t.Helper()
	for k := range did {
		if !recorded[k] {
			t.Errorf("round %d: %s, %v, without a record", round, what, k)
		}
	}
}

// outcomes says which intents of a whole log have none, and counts the records.
func outcomes(t *testing.T, log []*state.Record) map[string]int {
	t.Helper()
	open := map[string]state.Seq{}
	var id state.Digest
	kinds := map[string]int{}
	begin := func(key string, r *state.Record) { open[key] = r.Seq }
	for _, r := range log {
		kinds[r.Fact.Kind().String()]++
		switch f := r.Fact.(type) {
		case *state.LogStarted:
			id = f.ID
		case *state.PodPlaced:
			begin("run "+state.NewUID(id, r.Seq, f.Pod.Namespace, f.Pod.Name).String(), r)
		case *state.PodObserved:
			delete(open, "run "+f.UID.String())
		case *state.PodStopping:
			begin("stop "+f.UID.String(), r)
		case *state.PodGone:
			delete(open, "run "+f.UID.String())
			delete(open, "stop "+f.UID.String())
		case *state.PromotionRequested:
			begin("promote "+f.ID, r)
		case *state.PromotionStarted:
			begin("push "+f.ID, r)
		case *state.PromotionEnded:
			delete(open, "promote "+f.ID)
			delete(open, "push "+f.ID)
		case *state.RevisionApplied:
			begin("sync "+string(r.App), r)
		case *state.Converged:
			delete(open, "sync "+string(r.App))
		case *state.Revised:
			begin("roll out "+f.Workload.String(), r)
		case *state.RolledOut:
			delete(open, "roll out "+f.Workload.String())
		case *state.Held:
			begin("hold "+f.ID, r)
		case *state.Released:
			delete(open, "hold "+f.ID)
		case *state.NodeLost:
			begin("lost "+string(f.Node), r)
		case *state.NodeReady:
			delete(open, "lost "+string(f.Node))
		case *state.Commanded:
			if r.Actor.IsZero() || f.Reason.IsZero() {
				t.Errorf("record %d: nobody asked, or for no reason", r.Seq)
			}
			begin(fmt.Sprintf("asked %d", r.Seq), r)
			if f.Verb == state.CmdUncordon || f.Verb == state.CmdCordon || f.Verb == state.CmdDeletePod || f.Verb == state.CmdRestart {
				delete(open, fmt.Sprintf("asked %d", r.Seq)) // what it makes happen says it; none where it was so
			}
		case *state.SessionEnded:
			if r.Cause != f.Session {
				t.Errorf("record %d: the session of record %d has cause %d", r.Seq, f.Session, r.Cause)
			}
		}
		delete(open, fmt.Sprintf("asked %d", r.Cause))
	}
	for what, seq := range open {
		t.Errorf("record %d: %s has no outcome", seq, what)
	}
	wanted := []state.Kind{state.KindSessionEnded, state.KindPromotionEnded, state.KindDeploymentNoted, state.KindPodGone, state.KindNodeCordoned, state.KindAppSuspended}
	for _, k := range wanted {
		if kinds[k.String()] == 0 {
			t.Errorf("there is no %s in the log: the test walks too little", k)
		}
	}
	if !slices.ContainsFunc(log, func(r *state.Record) bool {
		f, ok := r.Fact.(*state.SessionEnded)
		return ok && f.Outcome == state.SessionLost
	}) {
		t.Error("no session was lost with its controller")
	}
	return kinds
}
