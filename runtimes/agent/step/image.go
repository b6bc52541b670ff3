package step

import (
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ImageDigest is the manifest that an image name of a template means on a node.
// False: the name was not resolved, or has nothing for this operating system,
// architecture and Windows build.
func ImageDigest(t *state.Template, name string, facts *state.NodeFacts) (state.Digest, bool) {
	im, ok := t.Image(name)
	if !ok {
		return state.Digest{}, false
	}
	var found state.Digest
	best := ""
	for i := range im.Platforms {
		f := &im.Platforms[i]
		if f.OS != facts.OS || f.Arch != "" && facts.Arch != "" && f.Arch != facts.Arch {
			continue
		}
		// Of several Windows builds the node's own is meant, then the newest
		// below it; the scheduler has already refused what can't run here.
		exact := build(f.OSVersion) == build(facts.OSVersion)
		switch {
		case exact:
			return f.Digest, true
		case found.IsZero() || f.OSVersion > best:
			found, best = f.Digest, f.OSVersion
		}
	}
	return found, !found.IsZero()
}

// build is "10.0.20348" of "10.0.20348.2113".
func build(version string) string {
	parts := strings.SplitN(version, ".", 4)
	return strings.Join(parts[:min(3, len(parts))], ".")
}
