package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Origin is where something was written. Line and Col count from 1; 0 means not
// known, and then nothing is guessed.
type Origin struct {
	Path     string   `json:"path,omitempty" pb:"1"`
	Line     int32    `json:"line,omitempty" pb:"2"`
	Col      int32    `json:"col,omitempty" pb:"3"`
	Revision Revision `json:"revision,omitempty" pb:"4"`
	Via      string   `json:"via,omitempty" pb:"5"` // the overlay that read it, where it differs from Path
}

// String is "deploy/db.yaml:27:16 (main@3f2a91c), via overlays/prod/kustomization.yaml",
// with what is known of it.
func (o Origin) String() string {
	var b strings.Builder
	b.WriteString(o.Path)
	if o.Line > 0 {
		fmt.Fprintf(&b, ":%d", o.Line)
		if o.Col > 0 {
			fmt.Fprintf(&b, ":%d", o.Col)
		}
	}
	if o.Revision != "" {
		fmt.Fprintf(&b, " (%s)", o.Revision.Short())
	}
	if o.Via != "" && o.Via != o.Path {
		fmt.Fprintf(&b, ", via %s", o.Via)
	}
	return b.String()
}

// A Problem is a mistake that a person can fix in Git: while there is one,
// nothing of that commit of that Application is applied.
type Problem struct {
	Object Ref    `json:"object,omitzero"`
	Field  string `json:"field,omitempty"` // "spec.replicas"
	At     Origin `json:"at,omitzero"`
	Cause  string `json:"cause"`            // "want a string, got 80"; never holds a secret's value
	Remedy string `json:"remedy,omitempty"` // imperative: "set spec.replicas to 0 or more"
}

// Error is the problem as a person reads it: cause, place and remedy, on up to
// three lines.
func (p Problem) Error() string {
	var b strings.Builder
	if !p.Object.IsZero() {
		fmt.Fprintf(&b, "%s: ", p.Object)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, "%s: ", p.Field)
	}
	b.WriteString(p.Cause)
	if p.At.Path != "" {
		fmt.Fprintf(&b, "\n  at %s", p.At)
	}
	if p.Remedy != "" {
		fmt.Fprintf(&b, "\n  fix: %s", p.Remedy)
	}
	return b.String()
}

// SortProblems puts problems in the order of their places and drops doubles.
func SortProblems(ps []Problem) []Problem {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.At.Path, b.At.Path), cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Col, b.At.Col),
			a.Object.Compare(b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Cause, b.Cause))
	})
	return slices.Compact(ps)
}
