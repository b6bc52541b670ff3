package state

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TerminationGrace is how long a pod may take to stop; Kubernetes's default is 30 s.
func TerminationGrace(spec *corev1.PodSpec) time.Duration {
	if spec.TerminationGracePeriodSeconds != nil {
		return time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// Apply folds one record. The rules are frozen: a log that any released version
// wrote folds to the same state for ever. It fails only where the log is
// damaged, is not in order, or names a blob that isn't there.
func (s *State) Apply(r *Record) error {
	if r.Seq != s.Seq+1 {
		return fmt.Errorf("record %d follows record %d", r.Seq, s.Seq)
	}
	if err := s.apply(r); err != nil {
		return fmt.Errorf("record %d (%s): %w", r.Seq, r.Fact.Kind(), err)
	}
	s.trials(r, s.At)
	s.Seq, s.At = r.Seq, r.At
	return nil
}

func (s *State) apply(r *Record) error {
	switch f := r.Fact.(type) {
	case *LogStarted:
		s.LogID = f.ID
	case *ControllerStarted:
		s.Started, s.Stopped = r.At, false
	case *ControllerStopped:
		s.Stopped = true
		for _, n := range s.Nodes {
			n.Parked = true
		}
	case *NodeJoined, *NodeChanged, *NodeReady, *NodeLost, *NodeSuspect, *NodeCordoned, *NodeRemoved:
		return s.applyNode(r)
	case *AppQuarantined, *AppDeclared, *AppRemoved, *RevisionRejected, *RevisionApplied, *RevisionSeen, *Converged, *Degraded, *SourceLost, *SourceBack, *ObjectGone, *AppSuspended:
		return s.applyApp(r)
	case *ImageResolved:
		im := f.Image
		s.Images[ImageKey{App: r.App, Manifest: f.Manifest, Name: im.Name}] = &im
	case *Revised, *RolledOut, *Stalled, *Commanded, *Scaled:
		return s.applyWorkload(r)
	case *PodCounted, *JobMoved:
		return s.applyJob(r)
	case *CronFired, *JobDropped:
		return s.applyCron(r)
	case *PodPlaced, *PodStopping, *PodGone, *PodObserved, *PodFlapping, *PodSettled:
		return s.applyPod(r)
	case *NodeRanged, *ServiceAddressed, *RoutingChosen:
		return s.applyNetwork(r)
	case *ClaimBound, *ClaimDropped, *VolumeGone, *ClaimResized:
		return s.applyClaim(r)
	case *PipelineDeclared, *PipelineRemoved, *CandidateReviewed, *PromotionRequested, *PromotionVoted, *PromotionStarted, *PromotionEnded,
		*StageSuspended, *CheckReported:
		return s.applyPromotion(r)
	case *AccessDeclared:
		s.Access = &f.Access
	case *AccessRemoved:
		s.Access = nil
	case *DeploymentNoted:
		return s.noted(r, f)
	case *Held:
		s.hold(r, f)
	case *Released:
		s.release(f)
	case *Decided, *ClockStepped:
		// They explain; they change nothing.
	default:
		return fmt.Errorf("this version does not know the fact")
	}
	return nil
}

func (s *State) applyNode(r *Record) error {
	switch f := r.Fact.(type) {
	case *NodeJoined:
		old := s.Nodes[f.Node]
		n := &Node{Name: f.Node, Facts: f.Facts, BootID: f.BootID, Joined: r.At, Duty: Duty{Tainted: r.At}, Epoch: 1, Index: s.NodeCount, Pods: map[UID]*Pod{}, Claims: map[Ref]*Claim{}}
		if old != nil {
			return fmt.Errorf("node %s joined twice", f.Node)
		}
		s.NodeCount++
		n.Epoch = uint64(r.Seq)
		s.Nodes[f.Node] = n
		s.facts++
		s.returned(n)
	case *NodeChanged:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		before := n.Facts.Taints
		n.Facts = f.Facts
		s.facts++
		s.duty(r, before)
	case *NodeReady:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Ready, n.Parked, n.ReadyChange, n.Silent = true, f.Parked, r.At, 0
		n.BootID, n.Incarnation = f.BootID, f.Incarnation
		for _, p := range n.Pods {
			p.Lost = false
		}
	case *NodeLost:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Ready, n.ReadyChange = false, r.At
		for _, p := range n.Pods {
			// Ready and Reason stay as its agent last said: where the same session
			// goes on, nobody says it again.
			p.Lost, p.Changed = true, r.Seq
		}
	case *NodeSuspect:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Silent = f.Silent
	case *NodeCordoned:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Cordoned = f.On
		s.duty(r, nil)
	case *NodeRemoved:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		if len(n.Pods) > 0 {
			return fmt.Errorf("node %s is removed while it has %d pods", f.Node, len(n.Pods))
		}
		delete(s.Nodes, f.Node)
		s.facts++
	}
	return nil
}

func (s *State) applyApp(r *Record) error {
	switch f := r.Fact.(type) {
	case *AppDeclared:
		name := f.Application.Name
		a := s.Apps[name]
		if a == nil {
			a = &App{}
			s.Apps[name] = a
		}
		s.redeclared(r, &a.Spec, &f.Application)
		a.Spec, a.Declared, a.Removed = f.Application, r.At, false
		return nil
	case *AppRemoved:
		if a := s.Apps[f.Name]; a != nil {
			a.Removed = true
		}
		return s.change(r, f.Name, nil, f.Changes)
	case *ObjectGone:
		return s.gone(f.Ref)
	}
	a := s.Apps[r.App]
	if a == nil {
		return fmt.Errorf("application %q is not declared", r.App)
	}
	switch f := r.Fact.(type) {
	case *RevisionRejected:
		a.Rejected = &Rejection{Revision: f.Revision, Commit: f.Commit, Problems: f.Problems, Detail: f.Detail, At: r.At, Conflicts: f.Conflicts, Fixed: f.Fixed}
	case *RevisionSeen:
		a.Revision, a.Commit, a.Rejected = f.Revision, f.Commit, nil
	case *RevisionApplied:
		return s.applyRevision(r, a, f)
	case *AppSuspended:
		a.Suspended = Suspend{On: f.On, Until: f.Until}
	case *Converged:
		a.Converged, a.ConvergedAt = true, r.At
		s.reached(a)
	case *AppQuarantined:
		a.Failed = FailedRevision{Revision: f.Revision, Manifest: f.Manifest, Workload: f.Workload, At: r.At, Good: f.Good}
	case *Degraded:
		a.Converged = false
	case *SourceLost:
		a.SourceLost, a.SourceSince, a.SourceText = true, r.At, f.Detail
	case *SourceBack:
		a.SourceLost, a.SourceSince, a.SourceText = false, r.At, Text{}
	}
	return nil
}

func (s *State) applyRevision(r *Record, a *App, f *RevisionApplied) error {
	m, err := s.blobs.Manifest(f.Manifest)
	if err != nil {
		return err
	}
	a.Revision, a.Commit, a.Rejected = f.Revision, f.Commit, nil
	a.Changed, a.ChangedRev = f.Commit, f.Revision
	if a.Manifest != f.Manifest && a.Manifest != a.Good.Manifest {
		s.forgetImages(a, a.Manifest)
	}
	if !f.Restores && a.Manifest != f.Manifest {
		a.Failed = FailedRevision{}
		s.forgetImages(a, f.Manifest) // another commit asks anew
	}
	a.Manifest, a.AppliedAt, a.AppliedSeq, a.Converged = f.Manifest, r.At, r.Seq, false
	return s.change(r, a.Spec.Name, m, f.Changes)
}

// change does to the inventory what a record says of each object.
func (s *State) change(r *Record, app AppName, m *Manifest, changes []Change) error {
	byRef := map[Ref]*Object{}
	if m != nil {
		for _, o := range m.Objects {
			byRef[o.Ref] = o
		}
	}
	for i := range changes {
		c := &changes[i]
		switch c.Verb {
		case Create, Update, Adopt:
			o := byRef[c.Ref]
			if o == nil {
				return fmt.Errorf("%s %s: not in the manifest", c.Verb, c.Ref)
			}
			s.own(r, app, m.Digest, o)
		case Delete:
			if w := s.Workloads[c.Ref]; w != nil {
				w.Deleting, w.Since, w.Complete = true, r.At, false
				for _, child := range w.Children() {
					child.Deleting, child.Since, child.Complete = true, r.At, false
				}
			} else {
				s.forget(c.Ref)
			}
		case Retire:
			if o := s.Objects[c.Ref]; o != nil {
				o.Retired, o.Changed = true, r.Seq
			}
		case Keep:
			if o := s.Objects[c.Ref]; o != nil {
				o.Kept, o.Changed = true, r.Seq
			}
		}
	}
	s.finish(app)
	return nil
}

// own puts an object into the inventory, or gives it new content.
func (s *State) own(r *Record, app AppName, manifest Digest, o *Object) {
	owned := s.Objects[o.Ref]
	if owned == nil {
		owned = &Owned{Created: r.At}
		s.Objects[o.Ref] = owned
	}
	owned.Object, owned.App, owned.Manifest, owned.Changed = o, app, manifest, r.Seq
	owned.Retired, owned.Kept = false, false
	if isRule(o.Ref.Kind) {
		s.Rules[o.Ref] = owned
	}
	switch {
	case IsWorkload(o.Ref.Kind):
		s.ownWorkload(r, owned)
	case o.Ref.Kind == "ConfigMap" || o.Ref.Kind == "Secret":
		s.bumpUsers(o.Ref)
	}
}

// isRule says whether objects of the kind say how pods of others are treated.
func isRule(kind string) bool { return kind == "PriorityClass" || kind == "PodDisruptionBudget" }

func (s *State) index(w *Workload) {
	if w.Ref.Kind == "DaemonSet" {
		s.Daemons[w.Ref] = w
	}
}

func (s *State) ownWorkload(r *Record, owned *Owned) {
	ref := owned.Object.Ref
	w := s.Workloads[ref]
	if w == nil {
		w = &Workload{Ref: ref, Created: r.At, Holds: map[string]*Hold{}}
		switch ref.Kind {
		case "Job":
			w.Job = &Job{}
		case "CronJob":
			w.Cron = &Cron{Since: r.At.Wall}
		}
		s.Workloads[ref] = w
	}
	s.index(w)
	w.App, w.Owned, w.Deleting = owned.App, owned, false
	w.Since, w.Progress, w.Complete, w.IsStalled = r.At, r.At, false, false
	old := w.Variants
	w.Variants = nil
	for i := range owned.Object.Variants {
		v := variantOf(&owned.Object.Variants[i])
		j := slices.IndexFunc(old, func(o *WorkloadVariant) bool { return o.OS == v.OS })
		if j < 0 && len(old) == 1 && len(owned.Object.Variants) == 1 {
			j = 0 // the one variant changed its OS
		}
		if j >= 0 {
			v.Update, v.Current, v.History = old[j].Update, old[j].Current, old[j].History
			v.Scaled = old[j].Scaled
		} else {
			v.Scaled = v.Replicas
		}
		w.Variants = append(w.Variants, v)
	}
}

// TemplateOf is the pod template of a workload's object; nil where it has none.
func TemplateOf(b Body) *corev1.PodTemplateSpec { return variantOf(&Variant{Body: b}).Spec }

// variantOf reads the parts of a workload that are said per variant.
func variantOf(v *Variant) *WorkloadVariant {
	out := &WorkloadVariant{OS: v.OS}
	switch b := v.Body.(type) {
	case *appsv1.Deployment:
		out.Replicas, out.Spec = replicas(b.Spec.Replicas), &b.Spec.Template
	case *appsv1.StatefulSet:
		out.Replicas, out.Spec = replicas(b.Spec.Replicas), withClaims(b)
		if b.Spec.Ordinals != nil {
			out.Start = b.Spec.Ordinals.Start
		}
	case *appsv1.DaemonSet:
		out.Spec = &b.Spec.Template // its nodes say how many
	case *batchv1.Job:
		out.Replicas, out.Spec = replicas(b.Spec.Parallelism), &b.Spec.Template
	case *batchv1.CronJob:
		out.Spec = &b.Spec.JobTemplate.Spec.Template // its Jobs have the pods
	case *corev1.Pod:
		out.Replicas = 1
		out.Spec = &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: b.Labels, Annotations: b.Annotations}, Spec: b.Spec,
		}
	}
	return out
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// bumpUsers makes the nodes whose pods name a ConfigMap or Secret see its new content.
func (s *State) bumpUsers(config Ref) {
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if p.Key.Namespace == config.Namespace && p.Template.Names(config) {
				n.Generation++
				break
			}
		}
	}
}

// gone forgets an object, and its application with the last object of a
// removed one.
func (s *State) gone(ref Ref) error {
	if w := s.Workloads[ref]; w != nil && w.Parent != nil {
		s.forget(ref)
		return nil
	}
	o := s.Objects[ref]
	if o == nil {
		return fmt.Errorf("there is no %s", ref)
	}
	s.forget(ref)
	s.finish(o.App)
	return nil
}

// finish forgets a removed application that owns nothing any more.
func (s *State) finish(name AppName) {
	if a := s.Apps[name]; a == nil || !a.Removed {
		return
	}
	for _, o := range s.Objects {
		if o.App == name && !o.Kept {
			return
		}
	}
	delete(s.Apps, name)
}

func (s *State) forget(ref Ref) {
	delete(s.Objects, ref)
	delete(s.Rules, ref)
	delete(s.Daemons, ref)
	delete(s.Services, ref)
	if w := s.Workloads[ref]; w != nil {
		for id := range w.Holds {
			delete(s.Holds, id)
		}
		if w.Parent != nil {
			if cron := s.Workloads[w.Parent.CronJob]; cron != nil {
				delete(cron.jobs, ref)
			}
		}
		delete(s.Workloads, ref)
	}
}

func (s *State) applyWorkload(r *Record) error {
	switch f := r.Fact.(type) {
	case *Revised:
		return s.applyRevised(r, f)
	case *RolledOut:
		w, err := s.workload(f.Workload)
		if err != nil {
			return err
		}
		w.Complete, w.IsStalled, w.Progress = true, false, r.At
		for _, v := range w.Variants {
			v.Scaled = v.Replicas
			if !f.Partial {
				v.Current = v.Update
			}
			if f.Keep > 0 {
				w.trim(v, int(f.Keep))
			}
		}
	case *Scaled:
		return s.applyScaled(f)
	case *Stalled:
		w, err := s.workload(f.Workload)
		if err != nil {
			return err
		}
		w.IsStalled = true
	case *Commanded:
		s.duty(r, nil)
		if f.Verb == CmdRestart {
			if w := s.Workloads[f.Object]; w != nil {
				w.Restart, w.Since, w.Progress, w.Complete, w.IsStalled = r.Seq, r.At, r.At, false, false
			}
		}
	}
	return nil
}

// maxHistory is Kubernetes's default revisionHistoryLimit and the newest one: of
// logs that don't say how many.
const maxHistory = 11

func (s *State) applyRevised(r *Record, f *Revised) error {
	w, err := s.workload(f.Workload)
	if err != nil {
		return err
	}
	v := w.Variant(f.OS)
	if v == nil {
		return fmt.Errorf("%s has no variant %q", f.Workload, f.OS)
	}
	t, err := s.blobs.Template(f.Template)
	if err != nil {
		return err
	}
	v.History = slices.DeleteFunc(slices.Clone(v.History), func(h TemplateRevision) bool { return h.Template.Digest == t.Digest })
	v.History = append(v.History, TemplateRevision{Template: t, Number: f.Number, Created: r.At})
	if f.Keep > 0 {
		w.trim(v, int(f.Keep))
	} else if len(v.History) > maxHistory {
		v.History = v.History[len(v.History)-maxHistory:]
	}
	if w.Job != nil && v.Update != nil {
		w.Job = &Job{} // other pods are another run
	}
	v.Update, v.Scaled = t, v.Replicas
	if v.Current == nil {
		v.Current = t
	}
	w.Revision = max(w.Revision, f.Number)
	w.Since, w.Progress, w.Complete, w.IsStalled = r.At, r.At, false, false
	return nil
}

func (s *State) applyPod(r *Record) error {
	if f, ok := r.Fact.(*PodPlaced); ok {
		return s.place(r, f)
	}
	var uid UID
	switch f := r.Fact.(type) {
	case *PodStopping:
		uid = f.UID
	case *PodGone:
		uid = f.UID
	case *PodObserved:
		uid = f.UID
	case *PodFlapping:
		uid = f.UID
	case *PodSettled:
		uid = f.UID
	}
	p := s.Pods[uid]
	if p == nil {
		return fmt.Errorf("there is no pod %s", uid)
	}
	p.Changed = r.Seq
	n := s.Nodes[p.Node]
	switch f := r.Fact.(type) {
	case *PodStopping:
		n.Yielding -= p.yields()
		p.Stopping, p.StopWhy, p.StopAt = true, f.Why, r.At
		n.Yielding += p.yields()
		n.Generation++
	case *PodGone:
		if w := s.Workloads[p.Workload]; w != nil && w.Ref.Kind == "Pod" && p.Ended() && !p.Stopping {
			w.Finished = Finished{p.Template.Digest, p.Phase == Failed}
		}
		s.removePod(p, n)
	case *PodObserved:
		if f.Ready && !p.Ready {
			p.ReadySince = r.At
			if w := s.Workloads[p.Workload]; w != nil {
				w.Progress = r.At
			}
		}
		n.Used = n.Used.Sub(p.Charge())
		p.Phase, p.Ready, p.Reason, p.Detail, p.Containers, p.Reported = f.Phase, f.Ready, f.Reason, f.Detail, f.Containers, true
		n.Used = n.Used.Add(p.Charge()) // nothing, once it ended
		if p.Phase != Pending {
			s.begin(p)
		}
		p.IP, _ = netip.ParseAddr(f.IP)
		before := p.Restarts
		p.Restarts = 0
		for i := range f.Containers {
			p.Restarts += f.Containers[i].Restarts
		}
		if p.Restarts > before {
			s.soakAgain(r)
		}
	case *PodFlapping:
		p.Flapping, p.Ready, p.Reason = true, false, ReasonFlapping
	case *PodSettled:
		p.Flapping = false
	}
	return nil
}

func (s *State) place(r *Record, f *PodPlaced) error {
	w, err := s.workload(f.Workload)
	if err != nil {
		return err
	}
	n, err := s.node(f.Node)
	if err != nil {
		return err
	}
	t, err := s.template(w, f.Template)
	if err != nil {
		return err
	}
	n.Generation++
	p := &Pod{
		Key: f.Pod, UID: NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name), Workload: f.Workload, OS: f.OS, Ordinal: f.Ordinal,
		Template: t, Node: f.Node, Isolation: f.Isolation, Placed: r.At, PlacedSeq: r.Seq, PlacedGen: n.Generation,
		Phase: Pending, Reason: ReasonContainerCreating, Changed: r.Seq, Loss: f.Loss,
	}
	s.Pods[p.UID], s.ByName[p.Key] = p, p
	w.Pods = append(w.Pods, p)
	w.Affine += t.affine()
	w.Serial = max(w.Serial, f.Serial)
	n.Pods[p.UID] = p
	n.Used = n.Used.Add(Charge(t.Requests, f.Isolation))
	return nil
}

// template finds a template among those that the workload has, before it asks
// for the blob.
func (s *State) template(w *Workload, d Digest) (*Template, error) {
	for _, v := range w.Variants {
		if v.Update != nil && v.Update.Digest == d {
			return v.Update, nil
		}
		if v.Current != nil && v.Current.Digest == d {
			return v.Current, nil
		}
	}
	return s.blobs.Template(d)
}

func (s *State) removePod(p *Pod, n *Node) {
	delete(s.Pods, p.UID)
	if s.ByName[p.Key] == p {
		delete(s.ByName, p.Key)
	}
	if w := s.Workloads[p.Workload]; w != nil {
		if i := slices.Index(w.Pods, p); i >= 0 {
			w.Pods = slices.Delete(w.Pods, i, i+1)
			w.Affine -= p.Template.affine()
		}
	}
	delete(n.Pods, p.UID)
	n.Used = n.Used.Sub(p.Charge())
	n.Yielding -= p.yields()
	n.Generation++
}

func (s *State) hold(r *Record, f *Held) {
	h := &Hold{Held: *f, App: r.App, Since: r.At, Seq: r.Seq}
	if old := s.Holds[f.ID]; old != nil {
		h.Since, h.Approved = old.Since, old.Approved
	}
	s.Holds[f.ID] = h
	if w := s.Workloads[f.Object]; w != nil {
		w.Holds[f.ID] = h
	}
}

func (s *State) release(f *Released) {
	if f.Approved {
		if h := s.Holds[f.ID]; h != nil {
			h.Approved = true
		}
		return
	}
	delete(s.Holds, f.ID)
	if w := s.Workloads[f.Object]; w != nil {
		delete(w.Holds, f.ID)
	}
}

func (s *State) node(name NodeName) (*Node, error) {
	if n := s.Nodes[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

func (s *State) workload(ref Ref) (*Workload, error) {
	if w := s.Workloads[ref]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("there is no workload %s", ref)
}
