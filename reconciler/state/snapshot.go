package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// A Snapshot is a State as values that can be written: equal states give equal
// snapshots. It is a cache of the fold; the log alone counts.
type Snapshot struct {
	LogID     Digest         `pb:"1"`
	Seq       Seq            `pb:"2"`
	At        Instant        `pb:"3"`
	Started   Instant        `pb:"4"`
	Stopped   bool           `pb:"5"`
	NodeCount uint32         `pb:"6"`
	Apps      []SnapApp      `pb:"7"`
	Objects   []SnapObject   `pb:"8"`
	Workloads []SnapWorkload `pb:"9"`
	Nodes     []SnapNode     `pb:"10"`
	Pods      []SnapPod      `pb:"11"`
	Holds     []SnapHold     `pb:"12"`
	Images    []SnapImage    `pb:"13"`
	Services  []SnapService  `pb:"24"`
	Routing   Routing        `pb:"110"`

	Claims []Claim `pb:"70"`

	Lines          []Line      `pb:"20"`
	Promotions     []Promotion `pb:"21"`
	PromotionCount uint64      `pb:"22"`

	Access *Access `pb:"115"`

	Sessions []Session `pb:"175"`
}

// SnapApp is an App.
type SnapApp struct {
	Spec         Application      `pb:"1"`
	Declared     Instant          `pb:"2"`
	Removed      bool             `pb:"3"`
	Revision     Revision         `pb:"4"`
	Commit       Commit           `pb:"5"`
	Manifest     Digest           `pb:"6"`
	Changed      Commit           `pb:"7"`
	ChangedRev   Revision         `pb:"8"`
	AppliedAt    Instant          `pb:"9"`
	AppliedSeq   Seq              `pb:"10"`
	Rejected     *Rejection       `pb:"11"`
	Converged    bool             `pb:"12"`
	ConvergedAt  Instant          `pb:"13"`
	SourceLost   bool             `pb:"14"`
	SourceSince  Instant          `pb:"15"`
	SourceText   Text             `pb:"16"`
	Suspended    Suspend          `pb:"17"`
	Good         Good             `pb:"70"`
	Failed       FailedRevision   `pb:"71"`
	FailedBefore []FailedRevision `pb:"140"`
	Noted        string           `pb:"115"`
}

// SnapObject is an Owned; its content is found in its manifest.
type SnapObject struct {
	Ref      Ref     `pb:"1"`
	App      AppName `pb:"2"`
	Manifest Digest  `pb:"3"`
	Retired  bool    `pb:"4"`
	Kept     bool    `pb:"5"`
	Created  Instant `pb:"6"`
	Changed  Seq     `pb:"7"`
}

// SnapWorkload is a Workload without what its object says.
type SnapWorkload struct {
	Ref      Ref           `pb:"1"`
	Deleting bool          `pb:"2"`
	Variants []SnapVariant `pb:"3"`
	Serial   uint64        `pb:"4"`
	Revision int64         `pb:"5"`
	Created  Instant       `pb:"6"`
	Since    Instant       `pb:"7"`
	Progress Instant       `pb:"8"`
	Complete bool          `pb:"9"`
	Stalled  bool          `pb:"10"`
	Restart  Seq           `pb:"11"`
	Job      *Job          `pb:"12"`
	Cron     *Cron         `pb:"13"`
	Parent   *Fired        `pb:"14"` // its object is made from its CronJob's
	App      AppName       `pb:"15"` // with Parent, as the next
	Changed  Seq           `pb:"16"`
	Finished Finished      `pb:"80"`
}

// SnapVariant is a WorkloadVariant's templates.
type SnapVariant struct {
	OS      OS           `pb:"1"`
	Update  Digest       `pb:"2"`
	Current Digest       `pb:"3"`
	History []SnapRevise `pb:"4"`
	Scaled  int32        `pb:"80"`
}

// SnapRevise is a TemplateRevision.
type SnapRevise struct {
	Template Digest  `pb:"1"`
	Number   int64   `pb:"2"`
	Created  Instant `pb:"3"`
}

// SnapNode is a Node without its pods.
type SnapNode struct {
	Name        NodeName      `pb:"1"`
	Facts       NodeFacts     `pb:"2"`
	Index       uint32        `pb:"3"`
	Epoch       uint64        `pb:"4"`
	BootID      string        `pb:"5"`
	Incarnation uint64        `pb:"6"`
	Ready       bool          `pb:"7"`
	ReadyChange Instant       `pb:"8"`
	Cordoned    bool          `pb:"9"`
	Parked      bool          `pb:"10"`
	Joined      Instant       `pb:"11"`
	Generation  uint64        `pb:"12"`
	PodRange    string        `pb:"13"`
	Silent      time.Duration `pb:"14"`
	Draining    bool          `pb:"20"`
	Changed     Seq           `pb:"21"`
	Tainted     Instant       `pb:"22"`
}

// SnapPod is a Pod.
type SnapPod struct {
	Key        PodKey            `pb:"1"`
	UID        UID               `pb:"2"`
	Workload   Ref               `pb:"3"`
	OS         OS                `pb:"4"`
	Ordinal    int32             `pb:"5"`
	Template   Digest            `pb:"6"`
	Node       NodeName          `pb:"7"`
	Isolation  Isolation         `pb:"8"`
	Placed     Instant           `pb:"9"`
	PlacedSeq  Seq               `pb:"10"`
	PlacedGen  uint64            `pb:"11"`
	Phase      PodPhase          `pb:"12"`
	Ready      bool              `pb:"13"`
	ReadySince Instant           `pb:"14"`
	Reported   bool              `pb:"15"`
	Flapping   bool              `pb:"16"`
	Stopping   bool              `pb:"17"`
	StopWhy    StopReason        `pb:"18"`
	StopAt     Instant           `pb:"19"`
	Lost       bool              `pb:"20"`
	Reason     PodReason         `pb:"21"`
	Detail     Text              `pb:"22"`
	IP         string            `pb:"23"`
	Containers []ContainerStatus `pb:"24"`
	Changed    Seq               `pb:"25"`
	Counted    bool              `pb:"26"`
	Loss       lease.Class       `pb:"27"`
	StopGrace  time.Duration     `pb:"225"`
}

// SnapHold is a Hold.
type SnapHold struct {
	Held     Held    `pb:"1"`
	App      AppName `pb:"2"`
	Since    Instant `pb:"3"`
	Seq      Seq     `pb:"4"`
	Approved bool    `pb:"5"`
}

// SnapImage is an image's meaning in its scope.
type SnapImage struct {
	App      AppName `pb:"1"`
	Manifest Digest  `pb:"2"`
	Image    Image   `pb:"3"`
}

// SnapService is a ServiceAddress.
type SnapService struct {
	Service Ref        `pb:"1"`
	IP      string     `pb:"2"`
	Ports   []NodePort `pb:"3"`
}

// Snapshot captures the state.
func (s *State) Snapshot() *Snapshot {
	out := &Snapshot{LogID: s.LogID, Seq: s.Seq, At: s.At, Started: s.Started, Stopped: s.Stopped, NodeCount: s.NodeCount, Routing: s.Routing}
	for _, a := range s.SortedApps() {
		out.Apps = append(out.Apps, SnapApp(*a))
	}
	for _, o := range s.Objects {
		out.Objects = append(out.Objects, SnapObject{o.Object.Ref, o.App, o.Manifest, o.Retired, o.Kept, o.Created, o.Changed})
	}
	slices.SortFunc(out.Objects, func(a, b SnapObject) int { return a.Ref.Compare(b.Ref) })
	for _, w := range s.SortedWorkloads() {
		out.Workloads = append(out.Workloads, snapWorkload(w))
	}
	for _, n := range s.SortedNodes() {
		out.Nodes = append(out.Nodes, SnapNode{
			n.Name, n.Facts, n.Index, n.Epoch, n.BootID, n.Incarnation, n.Ready, n.ReadyChange, n.Cordoned, n.Parked, n.Joined, n.Generation,
			n.PodRange, n.Silent, n.Duty.Draining, n.Duty.Changed, n.Duty.Tainted,
		})
	}
	for _, p := range s.Pods {
		out.Pods = append(out.Pods, snapPod(p))
	}
	slices.SortFunc(out.Pods, func(a, b SnapPod) int { return cmp.Compare(a.PlacedSeq, b.PlacedSeq) })
	for _, h := range s.Holds {
		out.Holds = append(out.Holds, SnapHold{h.Held, h.App, h.Since, h.Seq, h.Approved})
	}
	slices.SortFunc(out.Holds, func(a, b SnapHold) int { return cmp.Compare(a.Held.ID, b.Held.ID) })
	for k, im := range s.Images {
		out.Images = append(out.Images, SnapImage{k.App, k.Manifest, *im})
	}
	slices.SortFunc(out.Images, func(a, b SnapImage) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Image.Name, b.Image.Name), slices.Compare(a.Manifest[:], b.Manifest[:]))
	})
	for ref, a := range s.Services {
		out.Services = append(out.Services, SnapService{ref, addrText(a.IP), a.Ports})
	}
	slices.SortFunc(out.Services, func(a, b SnapService) int { return a.Service.Compare(b.Service) })
	for _, c := range s.SortedClaims() {
		out.Claims = append(out.Claims, *c)
	}
	s.snapPromotion(out)
	for _, x := range s.SortedSessions() {
		out.Sessions = append(out.Sessions, *x)
	}
	out.Access = s.Access
	return out
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func snapWorkload(w *Workload) SnapWorkload {
	out := SnapWorkload{
		Ref: w.Ref, Deleting: w.Deleting, Serial: w.Serial, Revision: w.Revision, Created: w.Created, Since: w.Since,
		Progress: w.Progress, Complete: w.Complete, Stalled: w.IsStalled, Restart: w.Restart, Parent: w.Parent, Finished: w.Finished,
	}
	if w.Job != nil {
		job := *w.Job
		out.Job = &job
	}
	if w.Cron != nil {
		cron := *w.Cron
		out.Cron = &cron
	}
	if w.Parent != nil {
		out.App, out.Changed = w.App, w.Owned.Changed
	}
	for _, v := range w.Variants {
		sv := SnapVariant{OS: v.OS, Scaled: v.Scaled}
		if v.Update != nil {
			sv.Update = v.Update.Digest
		}
		if v.Current != nil {
			sv.Current = v.Current.Digest
		}
		for _, h := range v.History {
			sv.History = append(sv.History, SnapRevise{h.Template.Digest, h.Number, h.Created})
		}
		out.Variants = append(out.Variants, sv)
	}
	return out
}

func snapPod(p *Pod) SnapPod {
	return SnapPod{
		p.Key, p.UID, p.Workload, p.OS, p.Ordinal, p.Template.Digest, p.Node, p.Isolation, p.Placed, p.PlacedSeq, p.PlacedGen,
		p.Phase, p.Ready, p.ReadySince, p.Reported, p.Flapping, p.Stopping, p.StopWhy, p.StopAt, p.Lost, p.Reason, p.Detail, addrText(p.IP),
		p.Containers, p.Changed, p.Counted, p.Loss, p.StopGrace,
	}
}

// Restore is the state that a snapshot captured.
func Restore(snap *Snapshot, blobs Blobs) (*State, error) {
	s := New(blobs)
	s.LogID, s.Seq, s.At, s.Started, s.Stopped, s.NodeCount, s.Routing = snap.LogID, snap.Seq, snap.At, snap.Started, snap.Stopped, snap.NodeCount, snap.Routing
	for _, a := range snap.Apps {
		app := App(a)
		s.Apps[a.Spec.Name] = &app
	}
	for _, n := range snap.Nodes {
		node := &Node{
			Name: n.Name, Facts: n.Facts, Index: n.Index, Epoch: n.Epoch, BootID: n.BootID, Incarnation: n.Incarnation, Ready: n.Ready,
			ReadyChange: n.ReadyChange, Cordoned: n.Cordoned, Parked: n.Parked, Joined: n.Joined, Generation: n.Generation, PodRange: n.PodRange, Silent: n.Silent, Pods: map[UID]*Pod{}, Claims: map[Ref]*Claim{},
			Duty: Duty{Draining: n.Draining, Changed: n.Changed, Tainted: n.Tainted},
		}
		s.Nodes[n.Name] = node
		s.watch(node)
	}
	for _, im := range snap.Images {
		image := im.Image
		s.resolve(ImageKey{im.App, im.Manifest, image.Name}, &image)
	}
	for _, a := range snap.Services {
		ip, _ := netip.ParseAddr(a.IP)
		s.Services[a.Service] = &ServiceAddress{IP: ip, Ports: a.Ports}
	}
	for _, c := range snap.Claims {
		s.keep(&c)
	}
	s.restorePromotion(snap)
	for i := range snap.Sessions {
		x := snap.Sessions[i]
		s.Sessions[x.Seq] = &x
	}
	s.Access = snap.Access
	r := &restorer{State: s, manifests: map[Digest]map[Ref]*Object{}, templates: map[Digest]*Template{}}
	for _, step := range []func(*Snapshot) error{r.objects, r.workloads, r.pods, r.holds} {
		if err := step(snap); err != nil {
			return nil, fmt.Errorf("restore snapshot of record %d: %w", snap.Seq, err)
		}
	}
	return s, nil
}

// restorer finds each blob once.
type restorer struct {
	*State
	manifests map[Digest]map[Ref]*Object
	templates map[Digest]*Template
}

func (r *restorer) template(d Digest) (*Template, error) {
	if t := r.templates[d]; t != nil || d.IsZero() {
		return t, nil
	}
	t, err := r.blobs.Template(d)
	r.templates[d] = t
	return t, err
}

func (r *restorer) object(manifest Digest, ref Ref) (*Object, error) {
	if r.manifests[manifest] == nil {
		m, err := r.blobs.Manifest(manifest)
		if err != nil {
			return nil, err
		}
		byRef := map[Ref]*Object{}
		for _, object := range m.Objects {
			byRef[object.Ref] = object
		}
		r.manifests[manifest] = byRef
	}
	object := r.manifests[manifest][ref]
	if object == nil {
		return nil, fmt.Errorf("%s is not in manifest %s", ref, manifest.Short())
	}
	return object, nil
}

func (r *restorer) objects(snap *Snapshot) error {
	for _, o := range snap.Objects {
		object, err := r.object(o.Manifest, o.Ref)
		if err != nil {
			return err
		}
		owned := &Owned{
			Object: object, App: o.App, Manifest: o.Manifest, Kept: o.Kept, Created: o.Created, Changed: o.Changed,
		}
		r.Objects[o.Ref] = owned
		r.enter(owned)
		r.gives(object, 1)
		r.retire(owned, o.Retired)
		if isRule(o.Ref.Kind) {
			r.Rules[o.Ref] = owned
		}
	}
	return nil
}

func (r *restorer) workloads(snap *Snapshot) error {
	for _, sw := range snap.Workloads {
		owned := r.Objects[sw.Ref]
		if sw.Parent != nil {
			from, err := r.object(sw.Parent.Manifest, sw.Parent.CronJob)
			if err != nil {
				return err
			}
			owned = jobOf(&Owned{Object: from, App: sw.App, Manifest: sw.Parent.Manifest}, sw.Ref, sw.Parent)
			owned.Created, owned.Changed = sw.Created, sw.Changed
		}
		if owned == nil {
			return fmt.Errorf("%s has no object", sw.Ref)
		}
		w := &Workload{
			Ref: sw.Ref, App: owned.App, Owned: owned, Deleting: sw.Deleting, Serial: sw.Serial, Revision: sw.Revision, Created: sw.Created,
			Since: sw.Since, Progress: sw.Progress, Complete: sw.Complete, IsStalled: sw.Stalled, Restart: sw.Restart, Holds: map[string]*Hold{},
		}
		if len(owned.Object.Variants) != len(sw.Variants) {
			return fmt.Errorf("%s has %d variants, its object %d", sw.Ref, len(sw.Variants), len(owned.Object.Variants))
		}
		for i, sv := range sw.Variants {
			v := variantOf(&owned.Object.Variants[i])
			v.Scaled = sv.Scaled
			var err error
			if v.Update, err = r.template(sv.Update); err != nil {
				return err
			}
			if v.Current, err = r.template(sv.Current); err != nil {
				return err
			}
			for _, h := range sv.History {
				t, err := r.template(h.Template)
				if err != nil {
					return err
				}
				v.History = append(v.History, TemplateRevision{t, h.Number, h.Created})
			}
			w.Variants = append(w.Variants, v)
		}
		w.Job, w.Cron, w.Parent = copied(sw.Job), copied(sw.Cron), sw.Parent
		w.Finished = sw.Finished
		r.Enroll(w)
		r.adopt(w)
	}
	return nil
}

// copied keeps what the fold changes apart from the snapshot.
func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func (r *restorer) pods(snap *Snapshot) error {
	for i := range snap.Pods {
		sp := &snap.Pods[i]
		t, err := r.template(sp.Template)
		if err != nil {
			return err
		}
		n, w := r.Nodes[sp.Node], r.Workloads[sp.Workload]
		if n == nil || w == nil {
			return fmt.Errorf("pod %s has no node or no workload", sp.Key)
		}
		p := &Pod{
			Key: sp.Key, UID: sp.UID, Workload: sp.Workload, OS: sp.OS, Ordinal: sp.Ordinal, Template: t, Node: sp.Node, Isolation: sp.Isolation,
			Placed: sp.Placed, PlacedSeq: sp.PlacedSeq, PlacedGen: sp.PlacedGen, Phase: sp.Phase, Ready: sp.Ready, ReadySince: sp.ReadySince,
			Reported: sp.Reported, Flapping: sp.Flapping, Stopping: sp.Stopping, StopWhy: sp.StopWhy, StopAt: sp.StopAt, Lost: sp.Lost,
			Reason: sp.Reason, Detail: sp.Detail, Containers: sp.Containers, Changed: sp.Changed, Counted: sp.Counted, Loss: sp.Loss,
			StopGrace: sp.StopGrace,
		}
		p.IP, _ = netip.ParseAddr(sp.IP)
		for j := range p.Containers {
			p.Restarts += p.Containers[j].Restarts
		}
		r.Pods[p.UID], r.ByName[p.Key] = p, p
		w.Pods = append(w.Pods, p)
		r.leans(w, t, 1)
		n.Pods[p.UID] = p
		r.uses(p, n, 1)
		n.Used = n.Used.Add(p.Charge())
		n.Yielding += p.yields()
	}
	return nil
}

func (r *restorer) holds(snap *Snapshot) error {
	for i := range snap.Holds {
		sh := &snap.Holds[i]
		h := &Hold{Held: sh.Held, App: sh.App, Since: sh.Since, Seq: sh.Seq, Approved: sh.Approved}
		r.Holds[h.ID] = h
		if w := r.Workloads[h.Object]; w != nil {
			w.Holds[h.ID] = h
		}
	}
	return nil
}
