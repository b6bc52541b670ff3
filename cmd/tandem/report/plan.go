package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// A Plan is what a commit would lead to.
type Plan struct {
	App      state.AppName  `json:"application"`
	From     state.Revision `json:"from,omitempty"`
	To       string         `json:"to"`
	At       state.Seq      `json:"at"` // the record that it was planned against
	Changes  []PlanChange   `json:"changes"`
	Same     int            `json:"same"`              // objects that stay as they are
	Refused  []string       `json:"refused,omitempty"` // why nothing of it would be applied
	Images   []PlanImage    `json:"images,omitempty"`  // that changed workloads would run
	Rollouts []PlanRollout  `json:"rollouts"`          // in the order in which they begin
	Pods     []PlanPod      `json:"pods"`              // that would be placed, in order
	Stops    []PlanStop     `json:"stops"`             // pods that would be stopped, in order
	Nodes    []PlanNode     `json:"nodes"`             // whose pods change
	CPUCaps  []CPUCap       `json:"cpuCaps,omitempty"` // what Windows makes of the limits of pods that would be placed
	Held     []PlanHold     `json:"held"`              // what would not go on by itself
	Notes    []string       `json:"notes,omitempty"`
}

// Changed says whether the commit would change anything.
func (p *Plan) Changed() bool { return len(p.Changes) > 0 || len(p.Refused) > 0 }

// A PlanChange is what would become of one object.
type PlanChange struct {
	Ref    state.Ref   `json:"ref"`
	Verb   string      `json:"verb"` // create, update, delete, retire, adopt, keep
	At     string      `json:"at,omitempty"`
	Fields []PlanField `json:"fields,omitempty"`
}

// A PlanImage is an image name and what it means.
type PlanImage struct {
	Name      string   `json:"name"`
	Digest    string   `json:"digest,omitempty"`
	Platforms []string `json:"platforms,omitempty"`
	Failure   string   `json:"failure,omitempty"` // it could not be looked up
}

// A PlanRollout is what one workload goes through.
type PlanRollout struct {
	Workload state.Ref `json:"workload"`
	Linux    int       `json:"linux"` // pods that would be started
	Windows  int       `json:"windows"`
	Stopped  int       `json:"stopped"`
	Rounds   int       `json:"rounds"` // of waiting until pods are ready or gone
	Budget   string    `json:"budget,omitempty"`
	Order    []string  `json:"order,omitempty"` // of a StatefulSet's pods
}

// A PlanPod is a pod that would be placed.
type PlanPod struct {
	Pod       string          `json:"pod"`
	Workload  state.Ref       `json:"workload"`
	Node      state.NodeName  `json:"node"`
	OS        state.OS        `json:"os"`
	Isolation state.Isolation `json:"isolation,omitempty"`
	Round     int             `json:"round"` // counted from 1; all of a round go together
}

// A PlanStop is a pod that would be stopped.
type PlanStop struct {
	Pod      string         `json:"pod"`
	Workload state.Ref      `json:"workload"`
	Node     state.NodeName `json:"node"`
	Why      string         `json:"why"`
	Round    int            `json:"round"`
}

// A PlanNode is a node whose pods would change.
type PlanNode struct {
	Name  state.NodeName  `json:"name"`
	OS    state.OS        `json:"os"`
	Plus  int             `json:"plus"`
	Minus int             `json:"minus"`
	Pods  int             `json:"pods"` // at the end
	Used  state.Resources `json:"used"`
	Of    state.Resources `json:"of"`
}

// A PlanHold is something that the commit wants and that would not come.
type PlanHold struct {
	Object state.Ref `json:"object"`
	OS     state.OS  `json:"os,omitempty"`
	Pods   int32     `json:"pods,omitempty"`
	Text   string    `json:"text"`
	Nodes  []string  `json:"nodes,omitempty"` // each node's reason
	Fits   []string  `json:"fits,omitempty"`  // what would make it fit; each by itself
	Fix    string    `json:"fix,omitempty"`
	Before bool      `json:"before,omitempty"` // it is held already
}

// ephemeral makes tokens that are compared within one plan.
type ephemeral struct{}

// Token implements manifest.Tokens.
func (ephemeral) Token(v []byte) string {
	sum := sha256.Sum256(v)
	return hex.EncodeToString(sum[:])
}

// Manifest is the request's manifest. What is as the state has it already is the
// state's own object: its digest was made with a key that only the controller
// has. blind: the state's Secrets have no values to compare.
func (r *PlanRequest) Manifest(s *state.State, blind bool) (m *state.Manifest, unseen []state.Ref, err error) {
	m = &state.Manifest{App: r.App.Name, Pairs: r.Pairs}
	for i := range r.Objects {
		want := &r.Objects[i]
		o := &state.Object{Ref: want.Ref}
		for _, v := range want.Variants {
			body, err := manifest.DecodeBody(want.Ref.Kind, v.Body)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", want.Ref, err)
			}
			digest, err := manifest.VariantDigest(body, ephemeral{})
			if err != nil {
				return nil, nil, err
			}
			o.Variants = append(o.Variants, state.Variant{OS: v.OS, Body: body, Digest: digest, Origin: v.Origin})
		}
		if len(o.Variants) == 0 {
			return nil, nil, fmt.Errorf("%s: it has no variant", want.Ref)
		}
		if have := s.Objects[want.Ref]; have != nil {
			same, err := sameObject(have.Object, o)
			if err != nil {
				return nil, nil, err
			}
			if !same && blind && sameKeys(have.Object, o) {
				same = true
				unseen = append(unseen, want.Ref)
			}
			if same {
				o = have.Object
			}
		}
		m.Objects = append(m.Objects, o)
	}
	slices.SortFunc(m.Objects, func(a, b *state.Object) int { return a.Ref.Compare(b.Ref) })
	for i := range m.Objects[:max(0, len(m.Objects)-1)] {
		if m.Objects[i].Ref == m.Objects[i+1].Ref {
			return nil, nil, fmt.Errorf("%s is there twice", m.Objects[i].Ref)
		}
	}
	m.Digest = manifest.Digest(m.Objects)
	if a := s.Apps[r.App.Name]; a != nil && unchanged(s, m) {
		m.Digest = a.Manifest
	}
	return m, unseen, nil
}

// unchanged says whether a manifest is all that its application has.
func unchanged(s *state.State, m *state.Manifest) bool {
	n := 0
	for _, o := range s.Objects {
		if o.App == m.App && !o.Retired && !o.Kept {
			n++
		}
	}
	for _, o := range m.Objects {
		if have := s.Objects[o.Ref]; have == nil || have.Object != o || have.App != m.App || have.Retired || have.Kept {
			return false
		}
		if w := s.Workloads[o.Ref]; w != nil && w.Deleting {
			return false
		}
	}
	return n == len(m.Objects)
}

func sameObject(have, want *state.Object) (bool, error) {
	if len(have.Variants) != len(want.Variants) {
		return false, nil
	}
	for i := range have.Variants {
		d, err := manifest.VariantDigest(have.Variants[i].Body, ephemeral{})
		if err != nil {
			return false, err
		}
		if d != want.Variants[i].Digest || have.Variants[i].OS != want.Variants[i].OS {
			return false, nil
		}
	}
	return true, nil
}

// sameKeys says whether two Secrets may be the same as far as their keys say.
func sameKeys(have, want *state.Object) bool {
	a, okA := have.First().(*corev1.Secret)
	b, okB := want.First().(*corev1.Secret)
	return okA && okB && a.Type == b.Type && maps.EqualFunc(a.Data, b.Data, func(_, _ []byte) bool { return true }) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

// NewPlan steps the machine on a copy of a state and says what comes of it.
// images are what names mean, where they were looked up. blind: the state has no
// values of Secrets.
func NewPlan(base *forecast.Base, r *PlanRequest, images map[string]state.Image, blind bool) (*Plan, error) {
	before, err := state.Restore(base.Snapshot(), base.Blobs())
	if err != nil {
		return nil, err
	}
	m, unseen, err := r.Manifest(before, blind)
	if err != nil {
		return nil, err
	}
	f, err := base.Run(&forecast.Commit{App: r.App, Revision: state.Revision(r.Revision), Manifest: m, Images: images, Defaults: manifest.DefaultTemplate})
	if err != nil {
		return nil, err
	}
	p := &Plan{
		App: r.App.Name, To: r.Revision, At: before.Seq, Changes: []PlanChange{}, Rollouts: []PlanRollout{}, Pods: []PlanPod{}, Stops: []PlanStop{},
		Nodes: []PlanNode{}, Held: []PlanHold{}, Notes: slices.Clone(r.Warnings),
	}
	if a := before.Apps[r.App.Name]; a != nil {
		p.From = a.Revision
	}
	b := &planner{Plan: p, before: before, after: f.State, request: r, manifest: m, forecast: f}
	if err := b.changes(); err != nil {
		return nil, err
	}
	b.moves()
	b.caps()
	b.nodes()
	b.images()
	b.holds()
	for _, ref := range unseen {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: its values are not compared, an inventory holds none", ref))
	}
	if !f.Rest {
		p.Notes = append(p.Notes, "the rollout was not followed to its end: it takes too many steps, or hours")
	}
	return p, nil
}

// A planner puts a Plan together.
type planner struct {
	*Plan
	before, after *state.State
	request       *PlanRequest
	manifest      *state.Manifest
	forecast      *forecast.Result
}

// changes are what the machine recorded that it would apply.
func (b *planner) changes() error {
	var changes []state.Change
	for _, r := range b.forecast.Records {
		switch f := r.Fact.(type) {
		case *state.RevisionApplied:
			if r.App == b.App {
				changes = append(changes, f.Changes...)
			}
		case *state.RevisionRejected:
			for _, x := range f.Fixed {
				b.Refused = append(b.Refused, fixedText(x))
			}
			for _, ref := range f.Conflicts {
				b.Refused = append(b.Refused, fmt.Sprintf("%s belongs to Application %s", ref, b.before.Objects[ref].App))
			}
		case *state.Held:
			if f.Object.Kind == "Application" && f.Code == state.HoldSuspended {
				b.Refused = append(b.Refused, "the application is suspended")
			}
		}
	}
	byRef := map[state.Ref]*PlanObject{}
	for i := range b.request.Objects {
		byRef[b.request.Objects[i].Ref] = &b.request.Objects[i]
	}
	for _, c := range changes {
		out := PlanChange{Ref: c.Ref, Verb: c.Verb.String()}
		want, have := byRef[c.Ref], b.before.Objects[c.Ref]
		var err error
		switch {
		case want == nil:
		case have == nil:
			out.Fields = created(want)
		default:
			out.Fields, err = compare(have.Object, want)
		}
		if err != nil {
			return err
		}
		if want != nil && want.Variants[0].Origin.Path != "" {
			at := want.Variants[0].Origin
			at.Revision = ""
			out.At = at.String()
		}
		b.Changes = append(b.Changes, out)
	}
	slices.SortFunc(b.Changes, func(x, y PlanChange) int { return x.Ref.Compare(y.Ref) })
	b.Same = len(b.request.Objects)
	for i := range b.Changes {
		if byRef[b.Changes[i].Ref] != nil {
			b.Same--
		}
	}
	if len(b.Refused) > 0 {
		b.Same = 0
	}
	return nil
}

// moves are the pods that are placed and stopped, round by round.
func (b *planner) moves() {
	type life struct {
		name     string
		workload state.Ref
		node     state.NodeName
	}
	lives := map[state.UID]life{}
	for uid, p := range b.before.Pods {
		lives[uid] = life{p.Key.Name, p.Workload, p.Node}
	}
	at := map[state.Ref]int{}
	rounds := map[state.Ref]map[int]bool{}
	rollout := func(ref state.Ref, round int) *PlanRollout {
		if rounds[ref] == nil {
			rounds[ref] = map[int]bool{}
			at[ref] = len(b.Rollouts)
			out := PlanRollout{Workload: ref}
			if w := b.after.Workloads[ref]; w != nil {
				out.Budget = budget(w)
			}
			b.Rollouts = append(b.Rollouts, out)
		}
		rounds[ref][round] = true
		return &b.Rollouts[at[ref]]
	}
	round := 0
	for i, r := range b.forecast.Records {
		for round < len(b.forecast.Rounds) && b.forecast.Rounds[round] <= i {
			round++
		}
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			lives[state.NewUID(b.after.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)] = life{f.Pod.Name, f.Workload, f.Node}
			b.Pods = append(b.Pods, PlanPod{Pod: f.Pod.Name, Workload: f.Workload, Node: f.Node, OS: f.OS, Isolation: f.Isolation, Round: round})
			o := rollout(f.Workload, round)
			if f.OS == state.Windows {
				o.Windows++
			} else {
				o.Linux++
			}
			if f.Workload.Kind == "StatefulSet" {
				o.Order = append(o.Order, f.Pod.Name)
			}
		case *state.PodStopping:
			l := lives[f.UID]
			b.Stops = append(b.Stops, PlanStop{Pod: l.name, Workload: l.workload, Node: l.node, Why: f.Why.String(), Round: round})
			rollout(l.workload, round).Stopped++
		}
	}
	for i := range b.Rollouts {
		b.Rollouts[i].Rounds = len(rounds[b.Rollouts[i].Workload])
	}
}

// caps are of the pods that would be placed and are there at the end.
func (b *planner) caps() {
	var pods []*state.Pod
	for i := range b.Pods {
		p := &b.Pods[i]
		if there := b.after.ByName[state.PodKey{Namespace: p.Workload.Namespace, Name: p.Pod}]; there != nil {
			pods = append(pods, there)
		}
	}
	b.CPUCaps = cpuCaps(b.after, pods)
}

// nodes are those whose pods change.
func (b *planner) nodes() {
	rows := map[state.NodeName]*PlanNode{}
	row := func(name state.NodeName) *PlanNode {
		if rows[name] == nil {
			rows[name] = &PlanNode{Name: name}
			if n := b.after.Nodes[name]; n != nil {
				rows[name].OS, rows[name].Pods, rows[name].Used, rows[name].Of = n.Facts.OS, len(n.Pods), n.Used, n.Facts.Allocatable
			}
		}
		return rows[name]
	}
	for i := range b.Pods {
		row(b.Pods[i].Node).Plus++
	}
	for i := range b.Stops {
		row(b.Stops[i].Node).Minus++
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		b.Nodes = append(b.Nodes, *rows[name])
	}
}

// images are what the changed workloads would run.
func (b *planner) images() {
	names := map[string]bool{}
	for i := range b.Changes {
		o := b.manifest.Find(b.Changes[i].Ref)
		if o == nil {
			continue
		}
		for _, name := range forecast.ImageNames(&state.Manifest{Objects: []*state.Object{o}}) {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out := PlanImage{Name: name}
		switch im := forecast.Known(b.after, b.App, name); {
		case im == nil:
			continue // nothing of it was applied
		case im.Assumed:
			out.Failure = cmp.Or(im.Failure.String(), "no answer")
		default:
			out.Digest, out.Platforms = im.Index.String(), Platforms(im)
		}
		b.Images = append(b.Images, out)
	}
}

// Platforms are an image's, for people: "linux/amd64", "windows/amd64 10.0.20348".
func Platforms(im *state.Image) []string {
	var out []string
	for i := range im.Platforms {
		p := &im.Platforms[i]
		name := string(p.OS) + "/" + p.Arch
		if p.OSVersion != "" {
			parts := strings.SplitN(p.OSVersion, ".", 4)
			name += " " + strings.Join(parts[:min(3, len(parts))], ".")
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// holds are what is held at the end: of the application, and of others whose
// pods had to give way.
func (b *planner) holds() {
	decided := map[state.Seq]*state.Decided{}
	for _, r := range b.forecast.Records {
		if f, ok := r.Fact.(*state.Decided); ok {
			decided[r.Seq] = f
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.after.Holds)) {
		h := b.after.Holds[id]
		old := b.before.Holds[id]
		if h.Code == state.HoldPredecessor || h.Code == state.HoldSuspended || h.App != b.App && old != nil && old.Count == h.Count {
			continue
		}
		out := PlanHold{Object: h.Object, OS: h.OS, Pods: h.Count, Text: HoldText(&h.Held), Fix: holdFix(&h.Held), Before: old != nil}
		if w := b.after.Workloads[h.Object]; w != nil {
			if f := decided[h.Decided]; f != nil {
				out.Nodes = nodeReasons(b.after, f)
				if t, err := b.after.Template(f.Template); err == nil {
					out.Fits = schedule.Remedy(b.after, t, f.Groups)
				}
			}
		}
		b.Held = append(b.Held, out)
	}
}
