package overlay

import (
	"fmt"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// declaredAccess is an Access and the name that it is written under.
type declaredAccess struct {
	ref state.Ref
	state.Access
}

// access is that of either render; who may do what is said in one place alone.
func (m *merger) access() *state.Access {
	all := slices.Clone(m.a.access)
	if m.b != nil {
		all = append(all, m.b.access...)
	}
	if len(all) == 0 {
		return nil
	}
	for _, a := range all[1:] {
		if a.At != all[0].At {
			m.problems = append(m.problems, state.Problem{
				Object: a.ref, At: a.At, Cause: fmt.Sprintf("is a second Access; the first is at %s", all[0].At), Remedy: "write all of it in one",
			})
		}
	}
	return &all[0].Access
}
