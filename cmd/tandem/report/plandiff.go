package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A PlanRequest is what a path renders to: the client renders, so that nothing
// need be pushed first.
type PlanRequest struct {
	App      state.Application `json:"application"` // as the root declares it
	Revision string            `json:"revision"`    // for people
	Objects  []PlanObject      `json:"objects"`
	Pairs    []string          `json:"pairs,omitempty"`
	Warnings []string          `json:"warnings,omitempty"`
}

// A PlanObject is one object with its variants.
type PlanObject struct {
	Ref      state.Ref     `json:"ref"`
	Variants []PlanVariant `json:"variants"`
}

// A PlanVariant is an object as written for one OS.
type PlanVariant struct {
	OS     state.OS        `json:"os,omitempty"`
	Origin state.Origin    `json:"origin,omitzero"`
	Body   json.RawMessage `json:"body"`
}

// NewPlanRequest makes a request of a manifest. Secret values travel in it, to
// be compared; no answer holds them.
func NewPlanRequest(app state.Application, revision string, m *state.Manifest) (*PlanRequest, error) {
	r := &PlanRequest{App: app, Revision: revision, Objects: []PlanObject{}, Pairs: m.Pairs}
	for i := range m.Warnings {
		r.Warnings = append(r.Warnings, m.Warnings[i].Error())
	}
	for _, o := range m.Objects {
		p := PlanObject{Ref: o.Ref}
		for i := range o.Variants {
			raw, err := json.Marshal(o.Variants[i].Body)
			if err != nil {
				return nil, fmt.Errorf("marshal %s: %w", o.Ref, err)
			}
			p.Variants = append(p.Variants, PlanVariant{OS: o.Variants[i].OS, Origin: o.Variants[i].Origin, Body: raw})
		}
		r.Objects = append(r.Objects, p)
	}
	return r, nil
}

// A PlanField is one field that would change.
type PlanField struct {
	OS   string `json:"os,omitempty"` // "both" where every variant changes so
	Path string `json:"path"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// created says the variants of a new workload.
func created(o *PlanObject) []PlanField {
	var out []PlanField
	for _, v := range o.Variants {
		var body struct {
			Spec struct {
				Replicas *int32 `json:"replicas"`
			} `json:"spec"`
		}
		if json.Unmarshal(v.Body, &body) == nil && body.Spec.Replicas != nil {
			out = append(out, PlanField{OS: orText(string(v.OS), "any"), Path: "spec.replicas", To: fmt.Sprint(*body.Spec.Replicas)})
		}
	}
	return out
}

// compare lists the fields that differ, variant by variant.
func compare(have *state.Object, want *PlanObject) ([]PlanField, error) {
	before := map[state.OS]any{}
	for i := range have.Variants {
		raw, err := json.Marshal(have.Variants[i].Body)
		if err != nil {
			return nil, fmt.Errorf("marshal %s: %w", have.Ref, err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("read %s: %w", have.Ref, err)
		}
		before[have.Variants[i].OS] = v
	}
	byField := map[string][]PlanField{}
	var order []string
	seen := map[state.OS]bool{}
	note := func(f PlanField) {
		k := f.Path + "\x00" + f.From + "\x00" + f.To
		if byField[k] == nil {
			order = append(order, k)
		}
		byField[k] = append(byField[k], f)
	}
	for _, v := range want.Variants {
		seen[v.OS] = true
		var now any
		if err := json.Unmarshal(v.Body, &now); err != nil {
			return nil, fmt.Errorf("%s: %w", want.Ref, err)
		}
		old, ok := before[v.OS]
		if !ok {
			note(PlanField{OS: orText(string(v.OS), "any"), Path: "(variant)", To: "added"})
			continue
		}
		walk("", old, now, want.Ref.Kind == "Secret", func(path, from, to string) {
			note(PlanField{OS: orText(string(v.OS), "any"), Path: path, From: from, To: to})
		})
	}
	for _, os := range slices.Sorted(maps.Keys(before)) {
		if !seen[os] {
			note(PlanField{OS: orText(string(os), "any"), Path: "(variant)", From: "removed"})
		}
	}
	var out []PlanField
	for _, k := range order {
		fs := byField[k]
		if len(fs) > 1 && len(fs) == len(want.Variants) {
			fs[0].OS = "both"
			fs = fs[:1]
		}
		out = append(out, fs...)
	}
	return out, nil
}

// walk visits the leaves that differ. Lists of named things are compared by
// name. What a Secret holds is never shown.
func walk(path string, a, b any, secret bool, found func(path, from, to string)) {
	if reflect.DeepEqual(a, b) {
		return
	}
	if secret && (path == "data" || path == "stringData") {
		x, _ := a.(map[string]any)
		y, _ := b.(map[string]any)
		for _, k := range keys(x, y) {
			if !reflect.DeepEqual(x[k], y[k]) {
				found(path+"."+k, hide(x, k), hide(y, k))
			}
		}
		return
	}
	x, okX := asMap(a)
	y, okY := asMap(b)
	if okX && okY {
		_, list := a.([]any)
		for _, k := range keys(x, y) {
			next := strings.TrimPrefix(path+"."+k, ".")
			if list {
				next = path + "[" + k + "]"
			}
			walk(next, x[k], y[k], secret, found)
		}
		return
	}
	found(path, leaf(a), leaf(b))
}

func hide(m map[string]any, k string) string {
	if _, ok := m[k]; !ok {
		return ""
	}
	return "(secret)"
}

func keys(x, y map[string]any) []string {
	all := slices.Collect(maps.Keys(x))
	all = append(all, slices.Collect(maps.Keys(y))...)
	slices.Sort(all)
	return slices.Compact(all)
}

// asMap is a map, or a list of things that all have a name.
func asMap(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []any:
		out := map[string]any{}
		for _, e := range v {
			m, ok := e.(map[string]any)
			name, named := m["name"].(string)
			if !ok || !named || out[name] != nil {
				return nil, false
			}
			out[name] = m
		}
		return out, true
	default:
		return nil, false
	}
}

func leaf(v any) string {
	if v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	const most = 200
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}
