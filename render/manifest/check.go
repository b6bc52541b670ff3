package manifest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Place says where a field of an object is written; it gives the file alone
// where the line isn't known.
type Place func(p Path, written *Value) state.Origin

// checker compares a value with a Go type, collects everything that does not
// fit, and writes the value as JSON that surely decodes.
type checker struct {
	object   state.Ref
	place    Place
	fields   map[reflect.Type]map[string]fieldClass
	secret   bool // no value may be printed
	problems []state.Problem
	refused  int             // how many of the problems are fields that are not honoured
	notes    []state.Problem // fields without an effect
	out      []byte
}

func (c *checker) fail(p Path, v *Value, cause, remedy string) {
	c.problems = append(c.problems, state.Problem{Object: c.object, Field: p.String(), At: c.place(p, v), Cause: cause, Remedy: remedy})
}

// want reports a value of the wrong type.
func (c *checker) want(p Path, v *Value, want, remedy string) {
	c.out = append(c.out, "null"...)
	c.fail(p, v, "want "+want+", got "+c.shown(v), remedy)
}

func (c *checker) shown(v *Value) string {
	switch {
	case v.Kind == Map:
		return "a mapping"
	case v.Kind == List:
		return "a list"
	case v.Kind == Null:
		return "nothing"
	case c.secret && c.yaml11Bool(v):
		return "a word that YAML 1.1 reads as a boolean"
	case c.secret && v.Kind == String:
		return "a string"
	case c.secret:
		return "something else"
	case v.Kind == String && !v.Plain:
		return strconv.Quote(clip(v.Text))
	case v.Kind == String && c.yaml11Bool(v):
		return clip(v.Text) + ", which YAML 1.1 reads as a boolean"
	case v.Kind == String:
		return strconv.Quote(clip(v.Text))
	}
	return clip(v.Text)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// yaml11Bool says whether Kubernetes's YAML reader takes an unquoted string for
// a boolean (YAML 1.1, sigs.k8s.io/yaml).
func (c *checker) yaml11Bool(v *Value) bool {
	if v.Kind != String || !v.Plain {
		return false
	}
	switch v.Text {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return true
	}
	return false
}

func (c *checker) value(v *Value, t reflect.Type, p Path) {
	if v.Kind == Null {
		c.out = append(c.out, "null"...)
		return
	}
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		c.quantity(v, p)
		return
	case reflect.TypeFor[intstr.IntOrString]():
		c.intOrString(v, p)
		return
	case reflect.TypeFor[metav1.Time]():
		c.time(v, p)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		c.value(v, t.Elem(), p)
	case reflect.Struct:
		c.structure(v, t, p)
	case reflect.Map:
		c.mapping(v, t, p)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			c.base64(v, p)
			return
		}
		c.list(v, t, p)
	case reflect.String:
		c.str(v, p)
	case reflect.Bool:
		c.boolean(v, p)
	case reflect.Interface:
		c.out = v.appendTo(c.out)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32:
		c.integer(v, t, p)
	default:
		c.want(p, v, "a "+t.Kind().String(), "remove it")
	}
}

func (c *checker) structure(v *Value, t reflect.Type, p Path) {
	if v.Kind != Map {
		c.want(p, v, "a mapping", "write its fields, indented, under "+last(p))
		return
	}
	known := jsonFields(t)
	classes := c.fields[t]
	c.out = append(c.out, '{')
	first := true
	for i := range v.Fields {
		f := &v.Fields[i]
		ft, ok := known[f.Key]
		fp := p.Key(f.Key)
		switch {
		case !ok:
			c.fail(fp, f.Value, "no such field", didYouMean(f.Key, known))
			continue
		case f.Value.Kind == Null:
			continue // kubectl's --dry-run writes empty ones
		case classes != nil && classes[f.Key] != honoured && !c.dishonoured(t, classes[f.Key], f, fp):
			continue
		}
		if !first {
			c.out = append(c.out, ',')
		}
		first = false
		c.out = append(appendJSON(c.out, f.Key), ':')
		c.value(f.Value, ft, fp)
	}
	c.out = append(c.out, '}')
}

// jsonFields are the JSON names of a struct's fields, with those of embedded
// structs.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	out := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && (f.Anonymous || strings.Contains(opts, "inline")) {
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			maps.Copy(out, jsonFields(ft))
			continue
		}
		if name != "" && name != "-" {
			out[name] = f.Type
		}
	}
	return out
}

func (c *checker) mapping(v *Value, t reflect.Type, p Path) {
	if v.Kind != Map {
		c.want(p, v, "a mapping", "write  key: value  lines under "+last(p))
		return
	}
	c.out = append(c.out, '{')
	for i := range v.Fields {
		f := &v.Fields[i]
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = append(appendJSON(c.out, f.Key), ':')
		if f.Value.Kind == Null && t.Elem().Kind() == reflect.String {
			c.out = append(c.out, `""`...)
			continue
		}
		c.value(f.Value, t.Elem(), p.Key(f.Key))
	}
	c.out = append(c.out, '}')
}

func (c *checker) list(v *Value, t reflect.Type, p Path) {
	if v.Kind != List {
		c.want(p, v, "a list", "start the line with  - ")
		return
	}
	c.out = append(c.out, '[')
	for i, item := range v.Items {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		ip := p.At(i, item.Str("name"))
		if item.Kind == Null {
			c.want(ip, item, "a value", "remove the empty element")
			continue
		}
		c.value(item, t.Elem(), ip)
	}
	c.out = append(c.out, ']')
}

func (c *checker) str(v *Value, p Path) {
	switch {
	case v.Kind == String && !c.yaml11Bool(v), v.Made && v.Kind != Map && v.Kind != List:
		c.out = appendJSON(c.out, v.Text)
	case v.Kind == Map || v.Kind == List:
		c.want(p, v, "a string", "write one string")
	case c.secret:
		c.want(p, v, "a string", "quote it")
	default:
		c.want(p, v, "a string", fmt.Sprintf("quote it, %q", v.Text))
	}
}

func (c *checker) boolean(v *Value, p Path) {
	switch {
	case v.Kind == Bool:
		c.out = append(c.out, strings.ToLower(v.Text)...)
	case c.yaml11Bool(v):
		yes := strings.ContainsAny(v.Text[:1], "yY") || strings.EqualFold(v.Text, "on")
		c.out = strconv.AppendBool(c.out, yes)
	default:
		c.want(p, v, "true or false", last(p)+": true")
	}
}

func (c *checker) integer(v *Value, t reflect.Type, p Path) {
	remedy := "write a whole number without quotes"
	if v.Kind == String {
		if n, err := strconv.ParseInt(v.Text, 10, 64); err == nil && !c.secret {
			remedy = last(p) + ": " + strconv.FormatInt(n, 10)
		}
		c.want(p, v, "a number", remedy)
		return
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v.Text, "_", ""), 0, 64)
	if v.Kind != Int || err != nil {
		c.want(p, v, "a whole number", remedy)
		return
	}
	if t.Kind() == reflect.Int32 && (n > math.MaxInt32 || n < math.MinInt32) {
		c.want(p, v, "a number of 32 bits", "write a smaller number")
		return
	}
	c.out = strconv.AppendInt(c.out, n, 10)
}

func (c *checker) quantity(v *Value, p Path) {
	if v.Kind != String && v.Kind != Int && v.Kind != Float {
		c.want(p, v, "a quantity", `write one such as 250m, 64Mi or 2`)
		return
	}
	if _, err := resource.ParseQuantity(v.Text); err != nil {
		c.want(p, v, "a quantity", `write one such as 250m, 64Mi or 2`)
		return
	}
	c.out = appendJSON(c.out, v.Text)
}

func (c *checker) intOrString(v *Value, p Path) {
	switch v.Kind {
	case String:
		c.out = appendJSON(c.out, v.Text)
	case Int:
		c.integer(v, reflect.TypeFor[int32](), p)
	case Null, Bool, Float, List, Map:
		c.want(p, v, "a number or a name", "write a whole number, a name or a percentage such as 25%")
	}
}

func (c *checker) time(v *Value, p Path) {
	if _, err := time.Parse(time.RFC3339, v.Text); v.Kind != String || err != nil {
		c.want(p, v, "a time", "write one such as 2026-11-23T14:05:00Z")
		return
	}
	c.out = appendJSON(c.out, v.Text)
}

func (c *checker) base64(v *Value, p Path) {
	raw := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, v.Text)
	if _, err := base64.StdEncoding.DecodeString(raw); v.Kind != String || err != nil {
		c.out = append(c.out, "null"...)
		c.fail(p, v, "want base64", "encode the value, or write it in clear under stringData (binaryData: under data)")
		return
	}
	c.out = appendJSON(c.out, raw)
}

func appendJSON(out []byte, s string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			out = append(out, '\\', b)
		case b < 0x20:
			out = append(out, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			out = append(out, b)
		}
	}
	return append(out, '"')
}

func last(p Path) string {
	for _, s := range slices.Backward(p) {
		if s.Key != "" {
			return s.Key
		}
	}
	return "it"
}

// didYouMean names the known field that is nearest to what was written.
func didYouMean[T any](name string, known map[string]T) string {
	best, dist := "", len(name)/3+2
	for k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < dist || (d == dist && best != "" && k < best) {
			best, dist = k, d
		}
	}
	if best == "" {
		return "remove " + name
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// distance is the number of letters to insert, remove or replace.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			prev, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, prev+cost)
		}
	}
	return row[len(b)]
}

// check compares a whole object with its type and gives its JSON.
func (c *checker) check(v *Value, into any) []byte {
	c.structure(v, reflect.TypeOf(into).Elem(), nil)
	return c.out
}

// Check compares a value with a Go type of JSON names, and gives everything
// that does not fit.
func Check(v *Value, t reflect.Type, place Place) []state.Problem {
	c := &checker{place: place, secret: true}
	c.structure(v, t, nil)
	return c.problems
}

// JSON is the value as JSON.
func (v *Value) JSON() []byte { return v.appendTo(nil) }

func (v *Value) appendTo(out []byte) []byte {
	switch v.Kind {
	case Map:
		out = append(out, '{')
		for i := range v.Fields {
			if i > 0 {
				out = append(out, ',')
			}
			out = v.Fields[i].Value.appendTo(append(appendJSON(out, v.Fields[i].Key), ':'))
		}
		return append(out, '}')
	case List:
		out = append(out, '[')
		for i, item := range v.Items {
			if i > 0 {
				out = append(out, ',')
			}
			out = item.appendTo(out)
		}
		return append(out, ']')
	case Int:
		if n, err := strconv.ParseInt(strings.ReplaceAll(v.Text, "_", ""), 0, 64); err == nil {
			return strconv.AppendInt(out, n, 10)
		}
		return appendJSON(out, v.Text)
	case Bool:
		return append(out, strings.ToLower(v.Text)...)
	case Null:
		return append(out, "null"...)
	case Float:
		if f, err := strconv.ParseFloat(v.Text, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return strconv.AppendFloat(out, f, 'g', -1, 64)
		}
		return appendJSON(out, v.Text)
	case String:
	}
	return appendJSON(out, v.Text)
}
