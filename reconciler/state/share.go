package state

import (
	"fmt"
	"slices"
)

// KindScaled is the number of Scaled.
const KindScaled Kind = 80

// Scaled says that a Deployment was scaled in the midst of a rollout, and the
// pods that this adds or takes were shared out over its revisions.
type Scaled struct {
	Workload Ref   `json:"workload" pb:"1"`
	OS       OS    `json:"os,omitempty" pb:"2"`
	Replicas int32 `json:"replicas" pb:"3"`
}

// Kind implements Fact.
func (*Scaled) Kind() Kind { return KindScaled }

func (s *State) applyScaled(f *Scaled) error {
	w, err := s.workload(f.Workload)
	if err != nil {
		return err
	}
	v := w.Variant(f.OS)
	if v == nil {
		return fmt.Errorf("%s has no variant %q", f.Workload, f.OS)
	}
	v.Scaled = f.Replicas
	return nil
}

// trim drops the oldest revisions of a variant that no pod is made from, until
// there are no more than keep.
func (w *Workload) trim(v *WorkloadVariant, keep int) {
	over := len(v.History) - keep
	if over <= 0 {
		return
	}
	newest := v.History[len(v.History)-1].Template
	v.History = slices.DeleteFunc(slices.Clone(v.History), func(h TemplateRevision) bool {
		used := h.Template == newest || slices.ContainsFunc(w.Pods, func(p *Pod) bool {
			return !p.Stopping && p.Template.Digest == h.Template.Digest
		})
		if over <= 0 || used {
			return false
		}
		over--
		return true
	})
}
