package manifest

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// applicationSet is kind ApplicationSet of tandem.dev/v1 as it is written.
type applicationSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              applicationSetSpec `json:"spec,omitzero"`
}

type applicationSetSpec struct {
	Source   any      `json:"source,omitempty"` // known, so that it is refused by name
	Paths    []string `json:"paths,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Template any      `json:"template,omitempty"`
}

// maxPatterns is how many paths, and how many exceptions, one set may have.
const maxPatterns = 100

// A Set is an ApplicationSet: an Application for every directory that a pattern
// finds. In the template {1} is what the pattern's first * stands for, {2} the
// second, and {path} the whole path.
type Set struct {
	Name    string
	Paths   []Pattern
	Exclude []Pattern
	At      state.Origin

	object   state.Ref
	template *Value
	place    Place
}

// A Pattern is a path with a * for any part of a name; it never spans a slash.
type Pattern struct {
	Text  string
	Parts []string // between slashes
	whole *regexp.Regexp
}

// Match says whether a path fits, and what each * of the pattern stands for.
func (p *Pattern) Match(name string) ([]string, bool) {
	m := p.whole.FindStringSubmatch(name)
	if m == nil {
		return nil, false
	}
	return m[1:], true
}

// Covers says whether a path, or a directory that it lies in, fits.
func (p *Pattern) Covers(name string) bool {
	for {
		if p.whole.MatchString(name) {
			return true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
}

// pattern compiles a path with stars; cause says why it is none.
func pattern(text string) (p Pattern, cause, remedy string) {
	clean := path.Clean(text)
	switch {
	case text == "" || clean == ".":
		return p, "names the whole repository", "name directories, such as apps/*/prod"
	case path.IsAbs(clean), clean == "..", strings.HasPrefix(clean, "../"):
		return p, "leads out of the repository", "give a path inside it"
	case strings.Contains(text, "**"):
		return p, "** is not supported", "write one * for each directory, such as apps/*/*"
	case strings.ContainsAny(text, "?[]{}\\"):
		return p, "of patterns only * is supported", "write names and *, such as apps/*/prod"
	}
	parts := strings.Split(clean, "/")
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, `([^/]*)`)
	}
	whole, err := regexp.Compile("^" + strings.Join(parts, "/") + "$")
	if err != nil || strings.Count(clean, "*") > 9 {
		return p, "is no pattern, or has more than nine *", "write names and *, such as apps/*/prod"
	}
	return Pattern{Text: clean, Parts: strings.Split(clean, "/"), whole: whole}, "", ""
}

// set decodes an ApplicationSet.
func (d *Decoder) set(v *Value, ref state.Ref, place Place) (Decoded, []state.Problem) {
	var a applicationSet
	c := &checker{object: ref, place: place, fields: d.fields}
	raw := c.check(v, &a)
	if len(c.problems) > 0 {
		return Decoded{Ref: ref}, c.problems
	}
	val := &validator{object: ref, place: place, value: v}
	spec := Path(nil).Key("spec")
	if err := json.Unmarshal(raw, &a); err != nil {
		val.fail(spec, "can't be decoded: "+err.Error(), "compare it with the documentation")
		return Decoded{Ref: ref}, val.problems
	}
	val.name(Path(nil).Key("metadata", "name"), a.Name, nameLabel)
	set := &Set{Name: a.Name, At: place(Path(nil).Key("metadata", "name"), v.Find("metadata").Find("name")), object: ref, template: v.Find("spec").Find("template"), place: place}
	set.Paths = val.patterns(spec.Key("paths"), a.Spec.Paths)
	set.Exclude = val.patterns(spec.Key("exclude"), a.Spec.Exclude)
	if len(a.Spec.Paths) == 0 {
		val.missing(spec.Key("paths"), "say which directories, such as  paths: [apps/*/prod]")
	}
	switch {
	case set.template == nil || set.template.Kind != Map:
		val.missing(spec.Key("template"), `say what each Application is like, such as  template: {metadata: {name: "{1}"}}`)
	case set.template.Find("spec").Find("path") != nil:
		val.fail(spec.Key("template", "spec", "path"), "is what a pattern finds", "remove it")
	default:
		for i := range set.template.Fields {
			if f := &set.template.Fields[i]; f.Key != "metadata" && f.Key != "spec" {
				val.fail(spec.Key("template", f.Key), "no such field", "a template has metadata and spec")
			}
		}
	}
	if len(val.problems) == 0 {
		// What is wrong with the template itself is told even if nothing is found.
		stars := make([]string, 9)
		for i := range stars {
			stars[i] = "x"
		}
		_, val.problems = d.Member(set, "x", stars)
	}
	return Decoded{Ref: ref, Set: set}, val.problems
}

func (c *validator) patterns(at Path, texts []string) []Pattern {
	if len(texts) > maxPatterns {
		c.fail(at, fmt.Sprintf("has more than %d patterns", maxPatterns), "write fewer, wider ones")
		return nil
	}
	var out []Pattern
	for i, text := range texts {
		p, cause, remedy := pattern(text)
		if cause != "" {
			c.fail(at.At(i, ""), cause, remedy)
			continue
		}
		out = append(out, p)
	}
	return out
}

// Member is the Application that a set has for a path; stars are what the
// pattern's * stand for.
func (d *Decoder) Member(set *Set, dir string, stars []string) (Decoded, []state.Problem) {
	pairs := []string{"{path}", dir}
	for i, s := range stars {
		pairs = append(pairs, "{"+strconv.Itoa(i+1)+"}", s)
	}
	t := templating{replace: strings.NewReplacer(pairs...), was: map[*Value]*Value{}}
	filled := t.value(set.template)
	str := func(key, text string) Field { return Field{Key: key, Value: &Value{Kind: String, Text: text}} }
	app := &Value{Kind: Map, Line: filled.Line, Col: filled.Col, Fields: []Field{str("apiVersion", apiGroup+"/v1"), str("kind", "Application")}}
	spec := &Value{Kind: Map, Line: filled.Line, Col: filled.Col}
	for _, f := range filled.Fields {
		if f.Key == "spec" && f.Value.Kind == Map {
			spec.Fields = append(spec.Fields, f.Value.Fields...)
			t.was[spec] = t.was[f.Value]
			continue
		}
		app.Fields = append(app.Fields, f)
	}
	spec.Fields = append(spec.Fields, str("path", dir))
	app.Fields = append(app.Fields, Field{Key: "spec", Line: filled.Line, Col: filled.Col, Value: spec})
	prefix := Path(nil).Key("spec", "template")
	place := func(p Path, v *Value) state.Origin {
		if was := t.was[v]; was != nil {
			v = was
		}
		return set.place(append(prefix[:2:2], p...), v)
	}
	_, ref := Identify(app)
	out, problems := d.tandem(app, apiGroup+"/v1", ref, place)
	for i := range problems {
		problems[i].Cause += fmt.Sprintf(" (in ApplicationSet %s, for %s)", set.Name, clip(dir))
	}
	return out, problems
}

// templating fills a template in, and remembers what each value was.
type templating struct {
	replace *strings.Replacer
	was     map[*Value]*Value
}

func (t *templating) value(v *Value) *Value {
	out := *v
	switch v.Kind {
	case Map:
		out.Fields = make([]Field, len(v.Fields))
		for i, f := range v.Fields {
			f.Key, f.Value = t.replace.Replace(f.Key), t.value(f.Value)
			out.Fields[i] = f
		}
	case List:
		out.Items = make([]*Value, len(v.Items))
		for i, item := range v.Items {
			out.Items[i] = t.value(item)
		}
	case String:
		text := t.replace.Replace(v.Text)
		if text == v.Text {
			return v
		}
		out = *v.With(text)
	case Null, Bool, Int, Float:
		return v
	}
	t.was[&out] = v
	return &out
}
