package report

import (
	"fmt"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Rejected prints what is wrong with a commit: what its render found, or what
// only shows against what is there.
func Rejected(s *state.State, r *state.Rejection, words Words) string {
	var out []string
	for _, f := range r.Fixed {
		fix := fmt.Sprintf("change it back; or give the %s another name; or take it out in one commit, and put it back in the next (claims that are kept are found again)", f.Object.Kind)
		if f.Object.Kind == state.ClaimKind {
			fix = "change it back, or make another claim and copy the data"
		}
		out = append(out, "error: "+fixedText(f)+"\n  fix: "+fix)
	}
	for _, ref := range r.Conflicts {
		if o := s.Objects[ref]; o != nil {
			out = append(out, fmt.Sprintf("error: %s belongs to Application %s\n  fix: remove it from one of them", ref, o.App))
		}
	}
	if len(out) == 0 {
		return words(r.Detail)
	}
	return strings.Join(out, "\n")
}

func fixedText(f state.Fixed) string {
	if strings.HasSuffix(f.Field, ".storage") {
		return fmt.Sprintf("%s: %s: asks for less than the volume was made for", f.Object, f.Field)
	}
	return fmt.Sprintf("%s: %s: can't be changed while it exists", f.Object, f.Field)
}

// failedText says what a revision that failed waits for.
func failedText(h *state.Held) string {
	rev := func(i int) string {
		if i >= len(h.Params) {
			return "a revision"
		}
		return state.Revision(h.Params[i]).Short()
	}
	if h.Code == state.HoldRestore {
		return rev(0) + " failed; to restore " + rev(1) + " waits for a person, as there is data"
	}
	if len(h.Params) > 1 && h.Params[0] != h.Params[1] {
		return rev(0) + " renders what failed as " + rev(1) + ", which is quarantined; " + rev(2) + " runs"
	}
	return rev(0) + " failed and is quarantined; " + rev(2) + " runs again"
}
