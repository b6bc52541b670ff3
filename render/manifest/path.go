package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// A Step goes from a value to one inside it: by key, or by index in a list.
type Step struct {
	Key   string
	Index int    // where Key is empty
	Name  string // the list element's name, if it has one; finds it where lists were merged
}

// A Path leads from an object to a field.
type Path []Step

// String is "spec.template.spec.containers[0].ports[0].containerPort".
func (p Path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch {
		case s.Key == "":
			b.WriteString("[" + strconv.Itoa(s.Index) + "]")
		case strings.ContainsAny(s.Key, "./ []"):
			b.WriteString("[" + s.Key + "]")
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.Key)
		}
	}
	return b.String()
}

// Key is p and one more key.
func (p Path) Key(keys ...string) Path {
	out := slices.Clip(p)
	for _, k := range keys {
		out = append(out, Step{Key: k})
	}
	return out
}

// At is p and an element of its list.
func (p Path) At(i int, name string) Path {
	return append(slices.Clip(p), Step{Index: i, Name: name})
}

// Lookup follows a path and gives the value and the place of its key; ok is
// false where the whole path isn't written in v.
func (v *Value) Lookup(p Path) (val *Value, line, col int32, ok bool) {
	line, col = v.Line, v.Col
	for _, s := range p {
		if s.Key == "" {
			if v = v.element(s); v == nil {
				return nil, 0, 0, false
			}
			line, col = v.Line, v.Col
			continue
		}
		found := false
		for i := range v.Fields {
			if f := &v.Fields[i]; f.Key == s.Key {
				v, line, col, found = f.Value, f.Line, f.Col, true
				break
			}
		}
		if !found {
			return nil, 0, 0, false
		}
	}
	return v, line, col, true
}

func (v *Value) element(s Step) *Value {
	if v.Kind != List {
		return nil
	}
	if s.Name != "" {
		for _, item := range v.Items {
			if item.Str("name") == s.Name {
				return item
			}
		}
		return nil
	}
	if s.Index < len(v.Items) {
		return v.Items[s.Index]
	}
	return nil
}
