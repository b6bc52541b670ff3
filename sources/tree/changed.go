package tree

import (
	"path"

	"github.com/tandem-gitops/tandem/sources"
)

var _ sources.Comparer = (*Tree)(nil)

// Changed implements sources.Comparer. Trees share the directories that are the
// same, so it costs what changed. Where there are links, a path may change with
// another one: then nobody knows.
func (t *Tree) Changed(since sources.Tree) (map[string]bool, bool) {
	before, ok := since.(*Tree)
	if !ok || t.root.links || before.root.links {
		return nil, false
	}
	out := map[string]bool{}
	if !differ(out, ".", before.root, t.root) {
		return nil, false
	}
	return out, true
}

// differ adds what differs in two directories of one path; false: nobody knows.
func differ(out map[string]bool, at string, a, b *Dir) bool {
	if a == b {
		return true
	}
	if a.err != nil || b.err != nil {
		return false
	}
	out[at] = true
	i, j := 0, 0
	for i < len(a.entries) || j < len(b.entries) {
		switch {
		case j == len(b.entries) || i < len(a.entries) && a.entries[i].Name < b.entries[j].Name:
			all(out, at, &a.entries[i])
			i++
		case i == len(a.entries) || b.entries[j].Name < a.entries[i].Name:
			all(out, at, &b.entries[j])
			j++
		default:
			x, y := &a.entries[i], &b.entries[j]
			if x.Kind == Directory && y.Kind == Directory && x.Dir != nil && y.Dir != nil {
				if !differ(out, path.Join(at, x.Name), x.Dir, y.Dir) {
					return false
				}
			} else if x.Kind != y.Kind || x.Hash != y.Hash || x.Err != nil || y.Err != nil {
				all(out, at, x)
				all(out, at, y)
			}
			i, j = i+1, j+1
		}
	}
	return true
}

// all adds an entry and what is below it.
func all(out map[string]bool, dir string, e *Entry) {
	at := path.Join(dir, e.Name)
	out[at] = true
	if e.Dir != nil {
		for i := range e.Dir.entries {
			all(out, at, &e.Dir.entries[i])
		}
	}
}
