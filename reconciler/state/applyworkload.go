package state

import (
	"fmt"
	"slices"
)

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
		s.applySession(r)
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

func (s *State) workload(ref Ref) (*Workload, error) {
	if w := s.Workloads[ref]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("there is no workload %s", ref)
}
