package state

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
		s.apps++
		return nil
	case *AppRemoved:
		if a := s.Apps[f.Name]; a != nil {
			a.Removed = true
			s.apps++
		}
		return s.change(r, f.Name, nil, f.Changes)
	case *ObjectGone:
		return s.gone(f.Ref)
	case *RevisionsSeen:
		for _, name := range f.Apps {
			a := s.Apps[name]
			if a == nil {
				return fmt.Errorf("application %q is not declared", name)
			}
			a.Revision, a.Commit, a.Rejected = f.Revision, f.Commit, nil
		}
		return nil
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
		a.shelve(f.Manifest)
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
		a.shelve(f.Manifest)
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
				if o := s.Objects[c.Ref]; o != nil && givesSecrets(o.Object) {
					s.bumpUsers(c.Ref)
				}
				s.forget(c.Ref)
			}
		case Retire:
			if o := s.Objects[c.Ref]; o != nil {
				s.retire(o, true)
				o.Changed = r.Seq
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
	switch {
	case owned == nil:
		owned = &Owned{Created: r.At, App: app}
		s.Objects[o.Ref] = owned
		s.enter(owned)
	case owned.App != app:
		s.leave(owned)
		owned.App = app
		s.enter(owned)
	}
	before := owned.Object
	owned.Object, owned.Manifest, owned.Changed, owned.Kept = o, manifest, r.Seq, false
	s.retire(owned, false)
	if isRule(o.Ref.Kind) {
		s.Rules[o.Ref] = owned
	}
	s.gives(before, -1)
	s.gives(o, 1)
	switch {
	case IsWorkload(o.Ref.Kind):
		s.ownWorkload(r, owned)
	case o.Ref.Kind == "ConfigMap" || o.Ref.Kind == "Secret" || givesSecrets(before) || givesSecrets(o):
		s.bumpUsers(o.Ref)
	}
}

// givesSecrets says whether an object is a ServiceAccount with pull Secrets.
func givesSecrets(o *Object) bool { return len(AccountSecrets(o, AnyOS)) > 0 }

// isRule says whether objects of the kind say how pods of others are treated.
func isRule(kind string) bool { return kind == "PriorityClass" || kind == "PodDisruptionBudget" }

func (s *State) ownWorkload(r *Record, owned *Owned) {
	ref := owned.Object.Ref
	w := s.Workloads[ref]
	if w == nil {
		w = &Workload{Ref: ref, App: owned.App, Created: r.At, Holds: map[string]*Hold{}}
		switch ref.Kind {
		case "Job":
			w.Job = &Job{}
		case "CronJob":
			w.Cron = &Cron{Since: r.At.Wall}
		}
		s.Enroll(w)
	} else if w.App != owned.App {
		s.part(w)
		w.App = owned.App
		s.join(w)
	}
	w.Owned, w.Deleting = owned, false
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

// bumpUsers makes the nodes whose pods use a ConfigMap, Secret or ServiceAccount
// see its new content.
func (s *State) bumpUsers(config Ref) {
	for n := range s.nodesOf(config) {
		n.Generation++
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
	if slices.ContainsFunc(s.Inventory(name).Objects, func(o *Owned) bool { return !o.Kept }) {
		return
	}
	delete(s.Apps, name)
	s.apps++
}

func (s *State) forget(ref Ref) {
	if o := s.Objects[ref]; o != nil {
		s.retire(o, false)
		s.leave(o)
		s.gives(o.Object, -1)
		delete(s.Objects, ref)
	}
	delete(s.Rules, ref)
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
		s.part(w)
		delete(s.Workloads, ref)
	}
}
