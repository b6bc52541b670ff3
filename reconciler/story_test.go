package reconciler_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// TestStories plays each file of testdata: one story a file. What the commands
// do is listed in testdata/README.md.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		s := newStory()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.command(t, d) })
	})
}

// story is a machine, a clock and agents that do as they are told.
type story struct {
	m       *reconciler.Machine
	now     state.Instant
	out     strings.Builder
	commits int
	apps    []state.Application
	lines   []state.Pipeline
	wake    state.Instant
	number  uint64
	agents  map[state.NodeName]*agentDouble
	missing map[string]bool // images that can't be looked up
	only    map[string]state.OS
	shelf   *shelf
	log     []*state.Record
	network *state.Network
	ranges  reconciler.Ranges        // zero: the story is not about addresses
	routing state.Routing            // that the next start chooses
	tips    map[state.AppName]string // of the branches, by their hash
}

// agentDouble reports what its assignment leads to.
type agentDouble struct {
	lost    bool
	facts   state.NodeFacts
	newest  state.Assignment
	applied uint64 // generation that its reports follow
	pods    map[state.UID]state.PodStatus
}

// shelf keeps blobs as a controller's library does.
type shelf struct {
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
}

func (s *shelf) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := s.manifests[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no manifest %s", d.Short())
}

func (s *shelf) Template(d state.Digest) (*state.Template, error) {
	if t := s.templates[d]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("no template %s", d.Short())
}

func newStory() *story {
	s := &story{
		shelf:  &shelf{map[state.Digest]*state.Manifest{}, map[state.Digest]*state.Template{}},
		now:    state.Instant{Wall: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC).UnixNano()},
		agents: map[state.NodeName]*agentDouble{}, missing: map[string]bool{}, only: map[string]state.OS{}, tips: map[state.AppName]string{},
	}
	s.m = reconciler.New(s.shelf)
	s.m.Defaults(manifest.DefaultTemplate)
	s.m.Address(s.ranges)
	s.take(s.m.Start(s.now, state.DigestOf([]byte("story")), "test"))
	s.out.Reset()
	return s
}

func (s *story) command(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	s.out.Reset()
	switch d.Cmd {
	case "node":
		s.node(t, d)
	case "commit":
		s.commit(t, d)
	case "settle":
		s.settle()
	case "agents": // one round of reports
		s.round(d.HasArg("only"), argNames(d))
	case "unready", "ready", "dies", "fails", "ends", "restarts":
		s.status(t, d)
	case "lose":
		s.agents[state.NodeName(d.CmdArgs[0].Key)].lost = true
	case "return":
		name := state.NodeName(d.CmdArgs[0].Key)
		s.agents[name].lost = false
		s.hello(name)
	case "pass":
		s.pass(t, d)
	case "sleep": // time goes by, and nobody calls the machine
		took, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		s.now = s.now.Add(took)
		var events []state.Event
		for _, name := range s.names() {
			events = append(events, &state.Renewed{Node: name})
		}
		s.step(events...)
	case "do":
		s.do(t, d)
	case "image":
		s.image(d)
	case "restart-controller":
		s.tear(t, d)
		s.restart(t)
	case "declare":
		s.declare(t, d)
	case "reject":
		s.commits++
		s.step(&state.Rendered{App: appArg(d), Revision: s.revision(), Problems: []state.Problem{{}}})
	case "source":
		s.step(&state.SourceStatus{App: appArg(d), OK: d.HasArg("back")})
	case "flap":
		s.flap(t, d)
	case "fail-all", "unready-one", "ends-all":
		s.someOf(t, d)
	case "assigned", "objects", "count", "history", "reasons":
		s.show(d)
	case "token": // what became of it is told by the shell
		s.token(t, d)
	case "stop-controller":
		s.step(&state.Stop{})
	case "pods":
		s.pods()
	case "claims":
		s.claims()
	case "holds":
		s.holds()
	case "addresses":
		s.ranges = reconciler.DefaultRanges()
		s.m.Address(s.ranges)
	case "routing":
		s.routing, _ = state.ParseRouting(argNames(d)[0])
		s.restart(t)
		s.routing = 0
	case "network":
		s.printNetwork()
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	if err := s.m.Check(); err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	s.replays(t, d)
	if s.out.Len() == 0 {
		return "ok\n"
	}
	return s.out.String()
}

func argNames(d *datadriven.TestData) []string {
	var names []string
	for _, a := range d.CmdArgs {
		names = append(names, a.Key)
	}
	return names
}

func (s *story) step(events ...state.Event) {
	s.take(s.m.Step(s.now, events))
}

// take prints the records of a step and answers what it asks for.
func (s *story) take(out reconciler.Output) {
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			s.shelf.manifests[b.Digest] = b.Manifest
			continue
		}
		tpl, err := state.ParseTemplate(b.Template)
		if err != nil {
			panic(err)
		}
		s.shelf.templates[b.Digest] = tpl
	}
	s.log = append(s.log, out.Records...)
	for _, r := range out.Records {
		if line := s.line(r); line != "" {
			fmt.Fprintln(&s.out, line)
		}
	}
	s.wake = out.Wake
	if out.Network != nil {
		s.network = out.Network
	}
	for _, a := range out.Assignments {
		if agent := s.agents[a.Node]; agent != nil && !agent.lost {
			agent.newest = a
		}
	}
	for _, e := range out.Effects {
		switch e := e.(type) {
		case *state.LookUp:
			s.step(&state.ImageLooked{App: e.App, Manifest: e.Manifest, Image: s.lookUp(e.Image)})
		case *state.ReviewWanted: // one commit, of which nothing is wrong
			s.step(&state.Reviewed{Pipeline: e.Pipeline, Stage: e.Stage, From: e.From, To: e.To, Commits: 1, Forward: true})
		case *state.Push:
			s.step(s.push(e))
		}
	}
}

// push moves a stage's branch, unless it is elsewhere than was thought.
func (s *story) push(e *state.Push) *state.Pushed {
	p := s.m.State().Promotions[e.ID]
	stage, _ := s.m.State().Lines[p.Pipeline].Stage(p.Stage)
	if at := s.tips[stage.App]; at != e.Old {
		return &state.Pushed{ID: e.ID, Outcome: state.PromotionConflict, Found: at, Grown: true}
	}
	s.tips[stage.App] = e.New
	return &state.Pushed{ID: e.ID, Outcome: state.PromotionDone, Found: e.New}
}

// lookUp is a registry that has every image for both OSes, but as `image` says.
func (s *story) lookUp(name string) state.Image {
	if s.missing[name] {
		return state.Image{Name: name, Assumed: true, Failure: state.LookupNotFound}
	}
	im := state.Image{Name: name, Index: state.DigestOf([]byte(name))}
	if os := s.only[name]; os != state.Windows {
		im.Platforms = append(im.Platforms, state.Platform{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name + "l"))})
	}
	if os := s.only[name]; os != state.Linux {
		im.Platforms = append(im.Platforms, state.Platform{OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.1", Digest: state.DigestOf([]byte(name + "w"))})
	}
	return im
}

func (s *story) image(d *datadriven.TestData) {
	name := d.CmdArgs[0].Key
	delete(s.missing, name)
	delete(s.only, name)
	switch {
	case d.HasArg("missing"):
		s.missing[name] = true
	case d.HasArg("linux"):
		s.only[name] = state.Linux
	case d.HasArg("windows"):
		s.only[name] = state.Windows
	}
}

func (s *story) node(t *testing.T, d *datadriven.TestData) {
	name := state.NodeName(d.CmdArgs[0].Key)
	facts := state.NodeFacts{
		OS: state.Linux, Arch: "amd64", Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 110},
	}
	if d.HasArg("windows") {
		facts.OS, facts.OSVersion, facts.Isolations = state.Windows, "10.0.20348.1", []state.Isolation{state.Process}
	}
	facts.Simulated, facts.Fences = d.HasArg("simulated"), d.HasArg("fences")
	facts.Unfenced = d.HasArg("unfenced")
	if d.HasArg("pods") {
		d.ScanArgs(t, "pods", &facts.Allocatable.Pods)
	}
	for _, arg := range d.CmdArgs {
		for _, val := range arg.Vals {
			s.fact(&facts, arg.Key, val)
		}
	}
	if old := s.agents[name]; old != nil {
		old.facts = facts
		s.step(&state.NodeHello{Node: name, Facts: facts, BootID: "boot", Incarnation: 1})
		return
	}
	s.agents[name] = &agentDouble{facts: facts, pods: map[state.UID]state.PodStatus{}}
	s.hello(name)
}

// fact reads label=KEY:VALUE, taint=KEY:EFFECT, build=10.0.26100.1 and cpu=MILLI.
func (s *story) fact(facts *state.NodeFacts, key, val string) {
	name, rest, _ := strings.Cut(val, ":")
	switch key {
	case "label":
		if facts.Labels == nil {
			facts.Labels = map[string]string{}
		}
		facts.Labels[name] = rest
	case "taint":
		facts.Taints = append(facts.Taints, state.Taint{Key: name, Effect: rest})
	case "build":
		facts.OSVersion = val
	case "cpu":
		_, _ = fmt.Sscan(val, &facts.Allocatable.MilliCPU)
	}
}

func (s *story) hello(name state.NodeName) {
	s.step(&state.NodeHello{Node: name, Facts: s.agents[name].facts, BootID: "boot", Incarnation: 1})
	s.report(name, true, nil)
}

// commit is a root whose plain objects are the command's input.
func (s *story) commit(t *testing.T, d *datadriven.TestData) {
	if !d.HasArg("same") { // as the commit before
		s.commits++
	}
	m := &state.Manifest{App: state.RootApp}
	dec := manifest.NewDecoder(manifest.Options{})
	at := state.Origin{Path: "story.yaml"}
	values, problems := manifest.Parse(at, []byte(d.Input))
	for _, v := range values {
		decoded, more := dec.Decode(v, func(manifest.Path, *manifest.Value) state.Origin { return at })
		problems = append(problems, more...)
		if decoded.Body == nil {
			continue
		}
		if d.HasArg("older") {
			older(decoded.Body)
		}
		digest, err := manifest.VariantDigest(decoded.Body, nil)
		if err != nil {
			t.Fatal(err)
		}
		variant := state.Variant{Body: decoded.Body, Digest: digest, OS: osOf(decoded.Body)}
		if old := m.Find(decoded.Ref); old != nil {
			old.Variants = append(old.Variants, variant)
			continue
		}
		m.Objects = append(m.Objects, &state.Object{Ref: decoded.Ref, Variants: []state.Variant{variant}})
	}
	for _, p := range problems {
		t.Fatalf("%s: %v", d.Pos, p)
	}
	slices.SortFunc(m.Objects, func(a, b *state.Object) int { return a.Ref.Compare(b.Ref) })
	m.Digest = manifest.Digest(m.Objects)
	if app := appArg(d); app != state.RootApp {
		m.App = app
		e := &state.Rendered{App: app, Revision: s.revision(), Manifest: m, Rewound: d.HasArg("rewound")}
		if d.HasArg("tree") { // a commit that can be promoted, by its tree's name
			d.ScanArgs(t, "tree", &e.Commit.Tree)
			e.Commit.Hash = "c-" + e.Commit.Tree
			s.tips[app] = e.Commit.Hash
		}
		s.step(e)
		return
	}
	s.step(&state.RootRendered{Revision: s.revision(), Manifest: m, Apps: s.apps, Rollout: state.DefaultRollout(), Pipelines: s.lines, Rewound: d.HasArg("rewound")})
}

// pass lets time go by: the machine is called whenever it asked to be.
func (s *story) pass(t *testing.T, d *datadriven.TestData) {
	took, err := time.ParseDuration(d.CmdArgs[0].Key)
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	end := s.now.Add(took)
	for s.now.Mono < end.Mono {
		next := min(end.Mono, s.now.Mono+10*time.Second)
		if !s.wake.IsZero() && s.wake.Mono > s.now.Mono {
			next = min(next, s.wake.Mono)
		}
		s.now = s.now.Add(next - s.now.Mono)
		var events []state.Event
		for _, name := range s.names() {
			if !s.agents[name].lost {
				events = append(events, &state.Renewed{Node: name, Sent: s.now.Mono})
			}
		}
		s.step(events...)
	}
}

func (s *story) names() []state.NodeName {
	var names []state.NodeName
	for name := range s.agents {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// settle lets agents report until nothing changes.
func (s *story) settle() {
	for range 500 {
		if !s.round(false, nil) {
			return
		}
	}
	fmt.Fprintln(&s.out, "does not settle")
}

// round lets every agent do what its assignment says, once. With only, just
// the named pods change.
func (s *story) round(only bool, pods []string) bool {
	before := s.m.State().Seq
	for _, name := range s.names() {
		a := s.agents[name]
		if a.lost {
			continue
		}
		var gone []state.UID
		changed := false
		assigned := slices.Clone(a.newest.Pods)
		slices.SortFunc(assigned, func(x, y *state.AssignedPod) int { return x.Key.Compare(y.Key) })
		for _, p := range assigned {
			if only && !slices.Contains(pods, p.Key.Name) {
				continue
			}
			old, known := a.pods[p.UID]
			switch {
			case p.Stop:
				delete(a.pods, p.UID)
				gone = append(gone, p.UID)
			case !known:
				broken := strings.Contains(p.Template.Spec.Spec.Containers[0].Image, "broken")
				a.pods[p.UID] = running(p, !broken, old.Restarts())
				changed = true
			}
		}
		a.applied = a.newest.Generation
		dropped := a.drops(only)
		if changed || len(gone)+len(dropped) > 0 {
			s.report(name, false, gone, dropped...)
		}
	}
	return s.m.State().Seq != before
}

func running(p *state.AssignedPod, ready bool, restarts int32) state.PodStatus {
	st := state.PodStatus{UID: p.UID, Phase: state.Running, Ready: ready, IP: "10.88.0.2"}
	if !ready {
		st.Reason = state.ReasonUnready
	}
	st.Containers = []state.ContainerStatus{{Name: p.Template.Spec.Spec.Containers[0].Name, State: state.ContainerRunning, Ready: ready, Restarts: restarts}}
	return st
}

// drops are the volumes that an assignment gives up: the agent deletes them.
func (a *agentDouble) drops(only bool) []state.UID {
	var out []state.UID
	for _, v := range a.newest.Volumes {
		if v.Drop && !only {
			out = append(out, v.UID)
		}
	}
	return out
}

func (s *story) report(name state.NodeName, full bool, gone []state.UID, dropped ...state.UID) {
	a, n := s.agents[name], s.m.State().Nodes[name]
	s.number++
	r := state.Report{
		Node: name, Epoch: n.Epoch, BootID: "boot", Incarnation: 1, Number: s.number, Applied: a.applied, Full: full, Gone: gone, Dropped: dropped,
	}
	for _, p := range a.pods {
		r.Pods = append(r.Pods, p)
	}
	slices.SortFunc(r.Pods, func(x, y state.PodStatus) int { return x.UID.Compare(y.UID) })
	s.step(&state.Reported{Report: r})
}

// status makes a pod ready or not, or ends it.
func (s *story) status(t *testing.T, d *datadriven.TestData) {
	for _, arg := range d.CmdArgs {
		if arg.Key == "code" || arg.Key == "times" {
			continue
		}
		p := s.pod(arg.Key)
		if p == nil {
			t.Fatalf("%s: there is no pod %s", d.Pos, arg.Key)
		}
		a := s.agents[p.Node]
		st := a.pods[p.UID]
		switch d.Cmd {
		case "ready", "unready":
			st.Ready = d.Cmd == "ready"
			st.Phase = state.Running
			st.Containers = []state.ContainerStatus{{Name: "main", State: state.ContainerRunning, Ready: st.Ready}}
		case "fails":
			st = state.PodStatus{UID: p.UID, Phase: state.Failed, Reason: state.ReasonEvicted, IP: st.IP}
		case "ends":
			code := 0
			d.MaybeScanArgs(t, "code", &code)
			st = ended(p, int32(code))
		case "restarts": // its container, on its node
			times := 0
			d.ScanArgs(t, "times", &times)
			st.Containers = slices.Clone(st.Containers)
			st.Containers[0].Restarts = int32(times)
		case "dies": // vanishes from its node
			delete(a.pods, p.UID)
			s.report(p.Node, true, nil)
			continue
		}
		st.UID = p.UID
		a.pods[p.UID] = st
		s.report(p.Node, false, nil)
	}
}

// pod finds a pod by the name that stories have for it.
func (s *story) pod(name string) *state.Pod {
	if of, nth, ok := strings.Cut(name, "@"); ok {
		return s.nth(of, nth)
	}
	for _, p := range s.m.State().SortedPods() {
		if s.name(p) == name {
			return p
		}
	}
	return nil
}

// nth is the nth pod that was ever placed of a workload, or of a Job's index.
func (s *story) nth(of, nth string) *state.Pod {
	n := 0
	judges := map[state.Ref]string{} // gates' Jobs go by their CronJob's name
	for _, r := range s.log {
		if f, ok := r.Fact.(*state.GateJobStarted); ok {
			judges[f.Job] = f.CronJob.Name
		}
		f, ok := r.Fact.(*state.PodPlaced)
		if !ok || of != f.Workload.Name && of != judges[f.Workload] && of != fmt.Sprintf("%s-%d", f.Workload.Name, f.Ordinal) {
			continue
		}
		if n++; fmt.Sprint(n) == nth {
			return s.m.State().Pods[state.NewUID(s.m.State().LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)]
		}
	}
	return nil
}

// ended is a pod whose container ended with a code for good.
func ended(p *state.Pod, code int32) state.PodStatus {
	st := state.PodStatus{UID: p.UID, Phase: state.Succeeded, Reason: state.ReasonCompleted}
	if code != 0 {
		st.Phase, st.Reason = state.Failed, state.ReasonError
	}
	st.Containers = []state.ContainerStatus{{
		Name: p.Template.Spec.Spec.Containers[0].Name, State: state.ContainerTerminated, ExitCode: code, Reason: st.Reason,
	}}
	return st
}

// do is what a person asks for.
func (s *story) do(t *testing.T, d *datadriven.TestData) {
	verbs := map[string]state.CommandVerb{
		"approve": state.CmdApprove, "cordon": state.CmdCordon, "uncordon": state.CmdUncordon, "delete": state.CmdDeletePod,
		"restart": state.CmdRestart, "remove-node": state.CmdRemoveNode, "down": state.CmdDown, "sync": state.CmdSync, "suspend": state.CmdSuspend, "resume": state.CmdResume,
		"drain": state.CmdDrain, "evict": state.CmdEvict, "delete-data": state.CmdDropClaim, "promote": state.CmdPromote, "reject": state.CmdReject,
		"make-token": state.CmdMakeToken, "revoke-token": state.CmdRevokeToken, "join": state.CmdJoin,
	}
	c := &state.Command{ID: 1, Verb: verbs[d.CmdArgs[0].Key], Actor: state.Text{1}}
	if len(d.CmdArgs) > 1 {
		kind, name, _ := strings.Cut(d.CmdArgs[1].Key, "/")
		c.Object, c.Hold = state.Ref{Kind: kind, Namespace: "default", Name: name}, kind
		if p := s.pod(name); kind == "Pod" && p != nil {
			c.Object.Name = p.Key.Name
		}
		if kind == "Node" {
			c.Object.Namespace = ""
		}
	}
	grace := ""
	d.MaybeScanArgs(t, "grace", &grace)
	if grace != "" {
		var err error
		if c.Grace, err = time.ParseDuration(grace); err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
	}
	out := s.m.Step(s.now, []state.Event{c})
	for _, e := range out.Effects {
		if r, ok := e.(*state.Reply); ok && r.Code != state.ReplyDone {
			fmt.Fprintf(&s.out, "refused: %d\n", r.Code)
		}
	}
	s.take(out)
}

// token tells what became of a join token, as what the last record asked for.
func (s *story) token(t *testing.T, d *datadriven.TestData) {
	outcomes := map[string]state.TokenOutcome{"made": state.TokenMade, "revoked": state.TokenRevoked, "used": state.TokenUsed, "failed": state.TokenFailed}
	args := argNames(d)
	if len(args) != 2 || outcomes[args[1]] == 0 {
		t.Fatalf("%s: want token ID OUTCOME", d.Pos)
	}
	last := s.log[len(s.log)-1]
	s.step(&state.JoinTokenTold{Cause: last.Seq, Actor: last.Actor, JoinTokenNoted: state.JoinTokenNoted{ID: args[0], Outcome: outcomes[args[1]]}})
	if r := s.log[len(s.log)-1]; r.Cause != last.Seq || r.Actor != last.Actor {
		t.Errorf("%s: the outcome has the cause %d, want %d, and another actor than the intent: %t", d.Pos, r.Cause, last.Seq, r.Actor != last.Actor)
	}
}

// tear takes the last records away, which a crash in the middle of a write does.
func (s *story) tear(t *testing.T, d *datadriven.TestData) {
	lost := 0
	d.MaybeScanArgs(t, "lost", &lost)
	for _, r := range s.log[len(s.log)-lost:] {
		fmt.Fprintf(&s.out, "lost: %s\n", cmp.Or(s.line(r), fmt.Sprintf("%T", r.Fact)))
	}
	s.log = s.log[:len(s.log)-lost]
}

// restart replays the log into another machine: the planner doesn't run.
func (s *story) restart(t *testing.T) {
	s.m = reconciler.New(s.shelf)
	s.m.Defaults(manifest.DefaultTemplate)
	s.m.Address(s.ranges)
	s.m.Route(s.routing)
	for _, r := range s.log {
		if err := s.m.Replay(r); err != nil {
			t.Fatal(err)
		}
	}
	s.take(s.m.Start(s.now, state.Digest{}, "test"))
	for _, name := range s.names() {
		if !s.agents[name].lost {
			s.hello(name)
		}
	}
}

func (s *story) pods() {
	for _, p := range s.m.State().SortedPods() {
		word := "not ready"
		switch {
		case p.Stopping:
			word = "stopping"
		case p.Ended():
			word = strings.ToLower(p.Phase.String())
		case p.Lost:
			word = "lost"
		case p.Ready:
			word = "ready"
		}
		fmt.Fprintf(&s.out, "%s %s %s %s\n", s.name(p), p.Node, p.Template.Spec.Spec.Containers[0].Image, word)
	}
}

func (s *story) holds() {
	var ids []string
	for id := range s.m.State().Holds {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		h := s.m.State().Holds[id]
		fmt.Fprintf(&s.out, "%s %s code=%d os=%s count=%d %v\n", id, h.Object, h.Code, h.OS, h.Count, h.Params)
	}
}

// name is a pod's name, with the derived parts of a Deployment's made short.
func (s *story) name(p *state.Pod) string {
	return alias(p.Workload, p.Key.Name, p.Ordinal, p.PlacedSeq)
}

func osOf(b state.Body) state.OS {
	w := &state.Object{Variants: []state.Variant{{Body: b}}}
	spec := podSpec(w)
	if spec == nil {
		return state.AnyOS
	}
	return manifest.TemplateOS(spec)
}
