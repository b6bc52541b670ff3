package overlay

import (
	"errors"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/substitute"
)

// substituted puts the Application's variables into an object's values. They
// are put into values, never into the text around them, so that a value can't
// add a field. What they become is a number or a string as the field wants it.
func (r *run) substituted(o object) (object, []state.Problem) {
	if len(r.app.Substitute) == 0 || exempt(o.value) {
		return o, nil
	}
	s := substitution{run: r, place: o.place, was: map[*manifest.Value]*manifest.Value{}}
	_, s.object = manifest.Identify(o.value)
	o.value = s.value(o.value, nil)
	// Places are found by what is written, not by what it became.
	inner := o.place
	o.place = func(p manifest.Path, v *manifest.Value) state.Origin {
		if was := s.was[v]; was != nil {
			v = was
		}
		return inner(p, v)
	}
	return o, s.problems
}

// exempt says whether an object asks to stay as it is written, by the label or
// annotation that Flux knows, or by ours.
func exempt(v *manifest.Value) bool {
	meta := v.Find("metadata")
	for _, m := range []*manifest.Value{meta.Find("annotations"), meta.Find("labels")} {
		if m.Str(manifest.SubstituteAnnotation) == "disabled" || m.Str("kustomize.toolkit.fluxcd.io/substitute") == "disabled" {
			return true
		}
	}
	return false
}

type substitution struct {
	*run
	object   state.Ref
	place    manifest.Place
	was      map[*manifest.Value]*manifest.Value
	problems []state.Problem
}

func (s *substitution) value(v *manifest.Value, p manifest.Path) *manifest.Value {
	switch v.Kind {
	case manifest.Map:
		out := *v
		out.Fields = make([]manifest.Field, len(v.Fields))
		seen := map[string]bool{}
		for i, f := range v.Fields {
			at := p.Key(f.Key)
			f.Value = s.value(f.Value, at)
			f.Key = s.text(f.Key, v.Fields[i].Value, at)
			if seen[f.Key] {
				s.fail(v.Fields[i].Value, at, "key "+f.Key+" is there twice after substitution", "give one of the variables another value")
			}
			seen[f.Key] = true
			out.Fields[i] = f
		}
		s.was[&out] = v
		return &out
	case manifest.List:
		out := *v
		out.Items = make([]*manifest.Value, len(v.Items))
		for i, item := range v.Items {
			out.Items[i] = s.value(item, p.At(i, item.Str("name")))
		}
		s.was[&out] = v
		return &out
	case manifest.String:
		if text := s.text(v.Text, v, p); text != v.Text {
			out := v.With(text)
			s.was[out] = v
			return out
		}
		return v
	case manifest.Null, manifest.Bool, manifest.Int, manifest.Float:
	}
	return v
}

func (s *substitution) fail(v *manifest.Value, p manifest.Path, cause, remedy string) {
	s.problems = append(s.problems, state.Problem{Object: s.object, Field: p.String(), At: s.place(p, v), Cause: cause, Remedy: remedy})
}

func (s *substitution) text(text string, v *manifest.Value, p manifest.Path) string {
	out, err := substitute.Text(text, s.app.Substitute)
	var unset *substitute.UnsetError
	switch {
	case errors.As(err, &unset):
		s.fail(v, p, err.Error(), "set it under spec.substitute of Application "+string(s.app.Name)+", write a default as in ${"+unset.Name+":=x}, or $${ for the characters themselves")
	case err != nil && s.object.Kind == "Secret": // the error may quote a value
		s.fail(v, p, "an expression can't be evaluated", "correct it, or write $${ for the characters themselves")
	case err != nil:
		s.fail(v, p, strings.TrimSpace(err.Error()), "correct the expression, or write $${ for the characters themselves")
	}
	if err != nil {
		return text
	}
	return out
}
