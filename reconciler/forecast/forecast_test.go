package forecast_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// live is a machine that ran for a while, with its volatile parts, and agents
// that do as they are told: each answers every assignment, in the order that
// the machine gave them out.
type live struct {
	t         rapid.TB
	m         *reconciler.Machine
	now       state.Instant
	wake      state.Instant
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
	images    map[string]state.Image
	numbers   map[state.NodeName]uint64
	todo      map[state.NodeName]state.Assignment
	records   []*state.Record
	commits   int
}

func (l *live) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := l.manifests[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no manifest %s", d.Short())
}

func (l *live) Template(d state.Digest) (*state.Template, error) {
	if t := l.templates[d]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("no template %s", d.Short())
}

func newLive(t rapid.TB) *live {
	l := &live{
		t: t, now: state.Instant{Mono: time.Hour, Wall: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC).UnixNano()},
		manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{}, images: map[string]state.Image{},
		numbers: map[state.NodeName]uint64{}, todo: map[state.NodeName]state.Assignment{},
	}
	l.m = reconciler.New(l)
	l.take(l.m.Start(l.now, state.DigestOf([]byte("live")), "test"))
	return l
}

func (l *live) step(events ...state.Event) { l.take(l.m.Step(l.now, events)) }

func (l *live) take(out reconciler.Output) {
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			l.manifests[b.Digest] = b.Manifest
			continue
		}
		t, err := state.ParseTemplate(b.Template)
		if err != nil {
			l.t.Fatal(err)
		}
		l.templates[b.Digest] = t
	}
	l.records = append(l.records, out.Records...)
	l.wake = out.Wake
	for _, a := range out.Assignments {
		l.todo[a.Node] = a
	}
	var looked []state.Event
	for _, e := range out.Effects {
		if x, ok := e.(*state.LookUp); ok {
			im, ok := l.images[x.Image]
			if !ok {
				im = image(x.Image)
			}
			looked = append(looked, &state.ImageLooked{App: x.App, Manifest: x.Manifest, Image: im})
		}
	}
	if len(looked) > 0 {
		l.step(looked...)
	}
}

// image is an index with both OSes.
func image(name string) state.Image {
	return state.Image{Name: name, Index: state.DigestOf([]byte(name)), Platforms: []state.Platform{
		{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name + "l")), Size: 100 << 20},
		{OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.1", Digest: state.DigestOf([]byte(name + "w")), Size: 2 << 30},
	}}
}

// images are all that a manifest names, as a registry would answer.
func images(m *state.Manifest) map[string]state.Image {
	out := map[string]state.Image{}
	for _, name := range forecast.ImageNames(m) {
		out[name] = image(name)
	}
	return out
}

func (l *live) join(name state.NodeName, facts state.NodeFacts) {
	l.step(&state.NodeHello{Node: name, Facts: facts, BootID: "boot", Incarnation: 7})
	l.step(&state.Reported{Report: state.Report{Node: name, Epoch: l.m.State().Nodes[name].Epoch, BootID: "boot", Incarnation: 7, Number: 1, Full: true}})
	l.numbers[name] = 1
}

// settle lets agents answer and time go by until everything has come to rest.
func (l *live) settle() {
	for range 2000 {
		if len(l.todo) > 0 {
			l.answer()
			continue
		}
		if !l.waits() {
			return
		}
		l.now = l.now.Add(max(l.wake.Mono-l.now.Mono, time.Millisecond))
		var events []state.Event
		for _, name := range slices.Sorted(maps.Keys(l.numbers)) {
			events = append(events, &state.Renewed{Node: name})
		}
		l.step(events...)
	}
	l.t.Fatal("the world does not come to rest")
}

func (l *live) waits() bool {
	for _, w := range l.m.State().Workloads {
		if !w.Complete && !w.IsStalled && len(w.Holds) == 0 && w.Ref.Kind != "Job" {
			return !l.wake.IsZero()
		}
	}
	return false
}

func (l *live) answer() {
	var events []state.Event
	for _, name := range slices.Sorted(maps.Keys(l.todo)) {
		a, n := l.todo[name], l.m.State().Nodes[name]
		l.numbers[name]++
		r := state.Report{Node: name, Epoch: n.Epoch, BootID: n.BootID, Incarnation: n.Incarnation, Number: l.numbers[name], Applied: a.Generation}
		for _, p := range a.Pods {
			switch {
			case p.Stop:
				r.Gone = append(r.Gone, p.UID)
			default:
				r.Pods = append(r.Pods, state.PodStatus{UID: p.UID, Phase: state.Running, Ready: true})
			}
		}
		events = append(events, &state.Reported{Report: r})
	}
	clear(l.todo)
	l.step(events...)
}

// text is a manifest of Kubernetes YAML, decoded as production decodes it.
func text(t rapid.TB, app state.AppName, yaml string) *state.Manifest {
	m := &state.Manifest{App: app}
	at := state.Origin{Path: "test.yaml"}
	values, problems := manifest.Parse(at, []byte(yaml))
	dec := manifest.NewDecoder(manifest.Options{})
	for _, v := range values {
		d, more := dec.Decode(v, func(manifest.Path, *manifest.Value) state.Origin { return at })
		if problems = append(problems, more...); d.Body == nil {
			continue
		}
		digest, err := manifest.VariantDigest(d.Body, nil)
		if err != nil {
			t.Fatal(err)
		}
		os := state.AnyOS
		for _, known := range []state.OS{state.Linux, state.Windows} {
			if v.Find("metadata").Find("annotations").Str("os") == string(known) {
				os = known
			}
		}
		variant := state.Variant{OS: os, Body: d.Body, Digest: digest, Origin: at}
		if old := m.Find(d.Ref); old != nil {
			old.Variants = append(old.Variants, variant)
			continue
		}
		m.Objects = append(m.Objects, &state.Object{Ref: d.Ref, Variants: []state.Variant{variant}})
	}
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems[0], yaml)
	}
	slices.SortFunc(m.Objects, func(a, b *state.Object) int { return a.Ref.Compare(b.Ref) })
	m.Digest = manifest.Digest(m.Objects)
	return m
}

func (l *live) revision() state.Revision {
	l.commits++
	return state.Revision(fmt.Sprintf("main@sha1:%040d", l.commits))
}

// moves are the placements and stops of records, in order, as people see them.
func moves(s *state.State, records []*state.Record, names map[state.UID]string) []string {
	var out []string
	for _, r := range records {
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			names[state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)] = f.Pod.String()
			out = append(out, fmt.Sprintf("%s on %s %s", f.Pod, f.Node, f.Isolation))
		case *state.PodStopping:
			out = append(out, fmt.Sprintf("stop %s (%s)", names[f.UID], f.Why))
		case *state.Held:
			out = append(out, fmt.Sprintf("held %s %d %s %d", f.Object, f.Code, f.OS, f.Count))
		}
	}
	return out
}

// podNames are the pods that there are.
func podNames(s *state.State) map[state.UID]string {
	out := map[state.UID]string{}
	for uid, p := range s.Pods {
		out[uid] = p.Key.String()
	}
	return out
}

// TestForecastIsWhatHappens is the law of `tandem plan`: the same commit, applied
// afterwards, leads to the same placements, stops and holds.
func TestForecastIsWhatHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLive(t)
		drawNodes(t, l)
		d := &drawer{t: t}
		for range rapid.IntRange(1, 4).Draw(t, "commits before") {
			d.edit()
			l.step(&state.Rendered{App: state.RootApp, Revision: l.revision(), Manifest: text(t, state.RootApp, d.yaml())})
			for range rapid.IntRange(0, 3).Draw(t, "answers") {
				if len(l.todo) > 0 {
					l.answer()
				}
			}
			if rapid.Bool().Draw(t, "settles") {
				l.settle()
			}
		}
		l.settle()
		if rapid.IntRange(0, 4).Draw(t, "cordon") == 0 {
			l.step(&state.Command{Verb: state.CmdCordon, Object: state.Ref{Kind: "Node", Name: "n0"}})
		}
		d.edit()
		next, rev := text(t, state.RootApp, d.yaml()), l.revision()
		before := l.m.State()
		sum := fmt.Sprintf("%+v", *before.Snapshot())
		got, err := forecast.Run(before, &forecast.Commit{App: state.Application{Name: state.RootApp}, Revision: rev, Manifest: next, Images: images(next)})
		if err != nil {
			t.Fatal(err)
		}
		if now := fmt.Sprintf("%+v", *before.Snapshot()); now != sum {
			t.Fatal("the forecast changed the state that it was given")
		}
		if !got.Rest {
			t.Fatal("the forecast did not come to rest")
		}
		names := podNames(before)
		seen := len(l.records)
		l.step(&state.Rendered{App: state.RootApp, Revision: rev, Manifest: next})
		l.settle()
		// The forecast is of a controller that started just then: its records
		// have other numbers, which pods' UIDs are made of, so pods go by name.
		want := moves(l.m.State(), l.records[seen:], maps.Clone(names))
		if diff := cmp.Diff(want, moves(got.State, got.Records, names)); diff != "" {
			t.Fatalf("what happened (-) is not what was forecast (+):\n%s\n%s", diff, d.yaml())
		}
		if diff := cmp.Diff(where(l.m.State()), where(got.State)); diff != "" {
			t.Fatalf("where pods are (-) is not where they were forecast (+):\n%s", diff)
		}
	})
}

func where(s *state.State) map[string]string {
	out := map[string]string{}
	for _, p := range s.Pods {
		out[p.Key.String()] = string(p.Node)
	}
	return out
}

func drawNodes(t *rapid.T, l *live) {
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		f := state.NodeFacts{
			OS: state.Linux, Arch: "amd64", Labels: map[string]string{"zone": fmt.Sprint(i % 2)},
			Allocatable: state.Resources{
				MilliCPU: int64(rapid.IntRange(1, 8).Draw(t, "cpu")) * 500, Memory: int64(rapid.IntRange(1, 8).Draw(t, "memory")) << 30, Ephemeral: 100 << 30, Pods: 20,
			},
		}
		if rapid.IntRange(0, 2).Draw(t, "os") == 0 {
			f.OS, f.OSVersion, f.Isolations = state.Windows, "10.0.20348.1", []state.Isolation{state.Process, state.HyperV}
		}
		l.join(state.NodeName(fmt.Sprintf("n%d", i)), f)
	}
}

// drawer writes texts, each a change of the one before.
type drawer struct {
	t     *rapid.T
	specs []drawn
	count int
}

type drawn struct {
	kind, name string
	os         string
	replicas   int
	version    int
	cpu        int
	settles    int
	priority   bool
	apart      bool
	spread     bool
}

func (d *drawer) edit() {
	for range rapid.IntRange(1, 3).Draw(d.t, "edits") {
		if len(d.specs) == 0 || rapid.IntRange(0, 2).Draw(d.t, "add") == 0 {
			d.count++
			d.specs = append(d.specs, drawn{
				kind: rapid.SampledFrom([]string{"Deployment", "Deployment", "StatefulSet", "DaemonSet"}).Draw(d.t, "kind"), name: fmt.Sprintf("w%d", d.count),
				os: rapid.SampledFrom([]string{"", "linux", "windows"}).Draw(d.t, "os"), replicas: rapid.IntRange(0, 6).Draw(d.t, "replicas"),
				cpu: rapid.IntRange(0, 6).Draw(d.t, "cpu") * 100, settles: rapid.IntRange(0, 1).Draw(d.t, "settles") * 30,
				priority: rapid.IntRange(0, 3).Draw(d.t, "priority") == 0, apart: rapid.IntRange(0, 3).Draw(d.t, "apart") == 0, spread: rapid.IntRange(0, 3).Draw(d.t, "spread") == 0,
			})
			continue
		}
		i := rapid.IntRange(0, len(d.specs)-1).Draw(d.t, "which")
		switch rapid.IntRange(0, 3).Draw(d.t, "what") {
		case 0:
			d.specs[i].replicas = rapid.IntRange(0, 6).Draw(d.t, "replicas")
		case 1:
			d.specs[i].cpu = rapid.IntRange(0, 6).Draw(d.t, "cpu") * 100
		case 2:
			if len(d.specs) > 1 {
				d.specs = slices.Delete(d.specs, i, i+1)
			}
		default:
			d.specs[i].version++
		}
	}
}

func (d *drawer) yaml() string {
	var b strings.Builder
	b.WriteString("apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n")
	for _, s := range d.specs {
		fmt.Fprintf(&b, "---\napiVersion: apps/v1\nkind: %s\nmetadata: {name: %s}\nspec:\n  selector: {matchLabels: {app: %s}}\n", s.kind, s.name, s.name)
		if s.kind != "DaemonSet" {
			fmt.Fprintf(&b, "  replicas: %d\n", s.replicas)
		}
		fmt.Fprintf(&b, "  minReadySeconds: %d\n  template:\n    metadata: {labels: {app: %s}}\n    spec:\n", s.settles, s.name)
		if s.os != "" {
			fmt.Fprintf(&b, "      os: {name: %s}\n", s.os)
		}
		if s.priority {
			b.WriteString("      priorityClassName: high\n")
		}
		if s.apart {
			fmt.Fprintf(&b, "      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: %s}}}]}}\n", s.name)
		}
		if s.spread {
			fmt.Fprintf(&b, "      topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %s}}}]\n", s.name)
		}
		fmt.Fprintf(&b, "      containers: [{name: main, image: 'test.example/%s:v%d', resources: {requests: {cpu: %dm, memory: 64Mi}}}]\n", s.name, s.version, s.cpu)
	}
	return b.String()
}
