package overlay

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// side is a directory linux/ or windows/ that a render read below.
type side struct {
	dir string // what linux/ and windows/ lie in
	os  state.OS
}

// newPairs finds directories X where this render read below X/linux and not
// below X/windows, and X/windows is there (or the names exchanged). Those inside
// a pair are left for the next round: the other OS's render may not read them.
func (v *view) newPairs() []side {
	read := map[side]bool{}
	for file := range v.files {
		dir := "."
		for part := range strings.SplitSeq(path.Dir(file), "/") {
			if os := state.OS(part); os == state.Linux || os == state.Windows {
				read[side{dir, os}] = true
			}
			dir = path.Join(dir, part)
		}
	}
	var found []side
	for s := range read {
		other := path.Join(s.dir, string(s.os.Other()))
		switch {
		case v.pairs[s.dir], read[side{s.dir, s.os.Other()}]:
		case v.os != state.AnyOS && string(s.os) != v.from:
			// The text names this OS's directory itself.
		case v.isDir(other):
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b side) int { return strings.Compare(a.dir, b.dir) })
	return slices.DeleteFunc(slices.Clone(found), func(s side) bool {
		return slices.ContainsFunc(found, func(o side) bool { return o != s && below(s.dir, path.Join(o.dir, string(o.os))) })
	})
}

// exchanged is the view of the other OS: each pair shows its other directory.
func (v *view) exchanged(from state.OS, pairs map[string]bool) *view {
	o := newView(v.ctx, v.tree, v.trace)
	o.os, o.from, o.to, o.pairs = from.Other(), string(from), string(from.Other()), maps.Clone(pairs)
	return o
}

// pairNames say how the other OS was read: "base/{linux→windows}".
func pairNames(from state.OS, pairs map[string]bool) []string {
	var out []string
	for _, dir := range slices.Sorted(maps.Keys(pairs)) {
		out = append(out, path.Join(dir, fmt.Sprintf("{%s→%s}", from, from.Other())))
	}
	return out
}
