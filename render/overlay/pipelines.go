package overlay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// pipelines are those of both renders, each once.
func (m *merger) pipelines() []state.Pipeline {
	all := slices.Clone(m.a.pipelines)
	if m.b != nil {
		all = append(all, m.b.pipelines...)
	}
	slices.SortStableFunc(all, func(a, b state.Pipeline) int { return strings.Compare(string(a.Name), string(b.Name)) })
	var out []state.Pipeline
	for _, p := range all {
		if n := len(out); n == 0 || out[n-1].Name != p.Name {
			out = append(out, p)
		} else if out[n-1].At != p.At {
			m.problems = append(m.problems, state.Problem{
				Object: state.Ref{Kind: "Pipeline", Name: string(p.Name)}, At: p.At, Cause: fmt.Sprintf("is there twice; the first is at %s", out[n-1].At), Remedy: "remove one of them",
			})
		}
	}
	return out
}
