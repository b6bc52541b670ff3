package overlay

import (
	"strconv"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// source is an object, a patch or a generator as it is written in a file.
type source struct {
	kind, namespace, name string
	value                 *manifest.Value
	at                    state.Origin
	line                  int32 // added to lines of value: a patch inside a kustomization
	inline                bool  // columns aren't known
	patch                 bool
	rendered              bool // what a template became: its lines are not the file's
}

// index finds where an object of kustomize's output was written. Kustomize
// changes names (prefix, suffix, hash), so a source fits where its name is part
// of the object's.
type index struct {
	sources []source
	via     string
}

func (x *index) add(s source) { x.sources = append(x.sources, s) }

// of returns the sources of an object: of those whose name fits best.
func (x *index) of(ref state.Ref) []source {
	var best []source
	length := -1
	for _, s := range x.sources {
		switch n := len(s.name); {
		case s.kind != ref.Kind || s.name == "" || !strings.Contains(ref.Name, s.name), n < length:
		case n > length:
			best, length = []source{s}, n
		default:
			best = append(best, s)
		}
	}
	return best
}

// origin is where an object is written: the file and line of its resource where
// there is exactly one, else what is common to them.
func (x *index) origin(ref state.Ref) state.Origin {
	var at state.Origin
	found := 0
	for _, s := range x.of(ref) {
		if s.patch {
			continue
		}
		if found++; found == 1 {
			at = s.place(s.value.Line, s.value.Col)
			continue
		}
		if s.at.Path != at.Path {
			return state.Origin{Path: x.via, Revision: at.Revision}
		}
		at.Line, at.Col = 0, 0
	}
	if found == 0 {
		at.Path = x.via
	}
	return x.seenFrom(at)
}

func (x *index) seenFrom(at state.Origin) state.Origin {
	if at.Path != x.via {
		at.Via = x.via
	}
	return at
}

// place is a line of this source as one of its file.
func (s *source) place(line, col int32) state.Origin {
	at := s.at
	if s.rendered {
		return at
	}
	at.Line, at.Col = line+s.line, col
	if s.inline {
		at.Col = 0
	}
	return at
}

// sameText says whether a value of kustomize's output is what was written;
// kustomize may write a number differently.
func sameText(a, b *manifest.Value) bool {
	if a.Kind != b.Kind {
		return false
	}
	if a.Kind == manifest.Float {
		x, errX := strconv.ParseFloat(a.Text, 64)
		y, errY := strconv.ParseFloat(b.Text, 64)
		return errX == nil && errY == nil && x == y
	}
	return a.Text == b.Text
}

// find gives the place of a field: where it is written with this very value, in
// the object's file or in a patch of it.
func (x *index) find(ref state.Ref, p manifest.Path, written *manifest.Value) state.Origin {
	for _, s := range x.of(ref) {
		val, line, col, ok := s.value.Lookup(p)
		if !ok || written == nil || !sameText(val, written) {
			continue
		}
		if val.Kind != manifest.Map && val.Kind != manifest.List {
			line, col = val.Line, val.Col
		}
		return x.seenFrom(s.place(line, col))
	}
	at := x.origin(ref)
	at.Line, at.Col = 0, 0
	return at
}
