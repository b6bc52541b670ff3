package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Limits on one YAML file, so that no text can make a render slow or large.
const (
	MaxDepth     = 100       // nested mappings and lists; Kubernetes's deepest object has about 20
	MaxAliases   = 10_000    // nodes that aliases stand for
	MaxNodes     = 1_000_000 // nodes of a file
	MaxDocuments = 20_000    // documents of a file
	MaxProblems  = 100       // after which a file is given up
)

// Kind says what a Value is.
type Kind uint8

// The kinds of YAML values.
const (
	Null Kind = iota + 1
	Bool
	Int
	Float
	String
	List
	Map
)

// A Value is a YAML value with its place in the file, aliases resolved.
type Value struct {
	Kind      Kind
	Text      string // of a scalar
	Plain     bool   // a scalar without quotes
	Literal   bool   // a scalar of style |, each of whose lines is a line of the file
	Made      bool   // a scalar with substituted variables: a string where one is wanted, whatever it looks like
	Line, Col int32
	Fields    []Field
	Items     []*Value
}

// A Field is an entry of a mapping.
type Field struct {
	Key       string
	Line, Col int32
	Value     *Value
}

// Find returns the value of a key, or nil. It is safe on nil.
func (v *Value) Find(key string) *Value {
	if v == nil {
		return nil
	}
	for i := range v.Fields {
		if v.Fields[i].Key == key {
			return v.Fields[i].Value
		}
	}
	return nil
}

// Str is the text of the string under key, or "".
func (v *Value) Str(key string) string {
	f := v.Find(key)
	if f == nil || f.Kind != String {
		return ""
	}
	return f.Text
}

// With is the scalar with other text, as if that were written without quotes in
// its place: "3" is a number where a number is wanted.
func (v *Value) With(text string) *Value {
	out := *v
	out.Text, out.Plain, out.Literal, out.Made = text, true, false, true
	n := yaml.Node{Kind: yaml.ScalarNode, Value: text}
	switch n.ShortTag() {
	case "!!bool":
		out.Kind = Bool
	case "!!int":
		out.Kind = Int
	case "!!float":
		out.Kind = Float
	default:
		out.Kind = String
	}
	return &out
}

// Is says whether v is this boolean. It is safe on nil.
func (v *Value) Is(yes bool) bool {
	return v != nil && v.Kind == Bool && strings.EqualFold(v.Text, strconv.FormatBool(yes))
}

// Scalar is the text of a scalar, or "". It is safe on nil.
func (v *Value) Scalar() string {
	if v == nil || v.Kind == Map || v.Kind == List {
		return ""
	}
	return v.Text
}

// Empty says whether v is null or has nothing in it.
func (v *Value) Empty() bool {
	return v == nil || v.Kind == Null || (v.Kind == Map && len(v.Fields) == 0) || (v.Kind == List && len(v.Items) == 0)
}

// Parse reads all documents of a YAML or JSON file. at is the place of the
// file; problems have lines of it. Empty documents are left out.
func Parse(at state.Origin, raw []byte) ([]*Value, []state.Problem) {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	if cause := notText(raw); cause != "" {
		return nil, []state.Problem{{At: at, Cause: cause, Remedy: "save the file as UTF-8 text"}}
	}
	p := parser{at: at, text: raw}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var docs []*Value
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, p.problems
		}
		if err != nil {
			p.syntax(err)
			return docs, p.problems
		}
		if len(docs) >= MaxDocuments {
			p.fail(&n, fmt.Sprintf("has more than %d documents", MaxDocuments), "split the file")
			return docs, p.problems
		}
		v := p.value(&n, 0)
		if p.stop {
			return docs, p.problems
		}
		if v != nil && v.Kind != Null {
			docs = append(docs, v)
		}
	}
}

func notText(raw []byte) string {
	switch {
	case bytes.HasPrefix(raw, []byte("\xff\xfe")), bytes.HasPrefix(raw, []byte("\xfe\xff")):
		return "the file is UTF-16"
	case bytes.IndexByte(raw, 0) >= 0:
		return "the file is not text: it holds zero bytes"
	}
	return ""
}

type parser struct {
	at       state.Origin
	text     []byte
	problems []state.Problem
	nodes    int
	aliased  int
	inAlias  int
	stop     bool // a limit was passed: give up on this file
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+)(?:, column (\d+))?: )?(.*)$`)

func (p *parser) syntax(err error) {
	at, cause := p.at, err.Error()
	if m := yamlLine.FindStringSubmatch(strings.SplitN(cause, "\n", 2)[0]); m != nil {
		if n, err := strconv.ParseInt(m[1], 10, 32); err == nil {
			at.Line = int32(n)
			if parserMessage(m[3]) {
				at.Line++ // yaml counts these from 0, the scanner's from 1
			}
		}
		cause = m[3]
	}
	p.problems = append(p.problems, state.Problem{At: at, Cause: "not YAML: " + cause, Remedy: syntaxRemedy(cause, p.line(at.Line), at.Line == 0 && bytes.Contains(p.text, []byte("{{")) || strings.Contains(p.line(at.Line)+p.line(at.Line-1), "{{"))})
}

// line is a line of the file, counted from 1.
func (p *parser) line(n int32) string {
	lines := strings.Split(string(p.text), "\n")
	if n < 1 || int(n) > len(lines) {
		return ""
	}
	return lines[n-1]
}

func syntaxRemedy(cause, line string, templated bool) string {
	switch {
	case strings.Contains(cause, "incompatible YAML document"):
		return "remove the %YAML line: Kubernetes's reader takes version 1.1 alone"
	case strings.Contains(line[:len(line)-len(strings.TrimLeft(line, " \t"))], "\t"):
		return "indent with spaces: YAML takes no tabs"
	case templated:
		return templateRemedy
	}
	return "correct the syntax; strings with : # { } [ ] need quotes"
}

const templateRemedy = "write YAML; a template of Helm ({{ … }}) goes into the templates directory of a chart"

// parserMessage says whether a message is of yaml's parser, not of its scanner.
func parserMessage(msg string) bool {
	for _, m := range []string{
		"did not find expected <", "found undefined tag handle", "did not find expected node content", "did not find expected '-' indicator",
		"did not find expected key", "did not find expected ',' or", "found duplicate %YAML", "found incompatible YAML", "found duplicate %TAG",
	} {
		if strings.HasPrefix(msg, m) {
			return true
		}
	}
	return false
}

func (p *parser) fail(n *yaml.Node, cause, remedy string) {
	if len(p.problems) >= MaxProblems {
		p.stop = true
		return
	}
	at := p.at
	at.Line, at.Col = int32(n.Line), int32(n.Column)
	p.problems = append(p.problems, state.Problem{At: at, Cause: cause, Remedy: remedy})
}

func (p *parser) over(n *yaml.Node, cause, remedy string) *Value {
	p.fail(n, cause, remedy)
	p.stop = true
	return nil
}

func (p *parser) value(n *yaml.Node, depth int) *Value {
	p.nodes++
	if p.inAlias > 0 {
		p.aliased++
	}
	switch {
	case p.stop:
		return nil
	case depth > MaxDepth:
		return p.over(n, fmt.Sprintf("nested deeper than %d levels", MaxDepth), "no Kubernetes object is that deep: flatten it")
	case p.aliased > MaxAliases:
		return p.over(n, fmt.Sprintf("its aliases stand for more than %d values", MaxAliases), "write the values out, or use a kustomize component")
	case p.nodes > MaxNodes:
		return p.over(n, fmt.Sprintf("has more than %d values", MaxNodes), "split the file")
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil
		}
		return p.value(n.Content[0], depth)
	case yaml.AliasNode:
		p.inAlias++
		defer func() { p.inAlias-- }()
		return p.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		v := &Value{Kind: List, Line: int32(n.Line), Col: int32(n.Column)}
		for _, c := range n.Content {
			if item := p.value(c, depth+1); item != nil {
				v.Items = append(v.Items, item)
			}
		}
		return v
	case yaml.MappingNode:
		return p.mapping(n, depth)
	default:
		return p.scalar(n)
	}
}

func (p *parser) mapping(n *yaml.Node, depth int) *Value {
	v := &Value{Kind: Map, Line: int32(n.Line), Col: int32(n.Column)}
	seen := make(map[string]int, len(n.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content) && !p.stop; i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merges = append(merges, n.Content[i+1])
			continue
		}
		if k.Kind != yaml.ScalarNode {
			remedy := "write a string"
			if strings.Contains(p.line(int32(k.Line)), "{{") {
				remedy = templateRemedy
			}
			p.fail(k, "a key is not a string", remedy)
			continue
		}
		if first, ok := seen[k.Value]; ok {
			p.fail(k, fmt.Sprintf("key %q is there twice; the first is on line %d", k.Value, first), "remove one of them")
			continue
		}
		seen[k.Value] = k.Line
		if c := p.value(n.Content[i+1], depth+1); c != nil {
			v.Fields = append(v.Fields, Field{Key: k.Value, Line: int32(k.Line), Col: int32(k.Column), Value: c})
		}
	}
	for _, m := range merges {
		p.merge(v, seen, p.value(m, depth+1))
	}
	return v
}

// merge adds what "<<" names: a mapping, or a list of them; keys that are there stay.
func (p *parser) merge(v *Value, seen map[string]int, from *Value) {
	if from == nil {
		return
	}
	if from.Kind == List {
		for _, item := range from.Items {
			p.merge(v, seen, item)
		}
		return
	}
	for _, f := range from.Fields {
		if _, ok := seen[f.Key]; !ok {
			seen[f.Key] = int(f.Line)
			v.Fields = append(v.Fields, f)
		}
	}
}

func (p *parser) scalar(n *yaml.Node) *Value {
	v := &Value{
		Kind: String, Text: n.Value, Line: int32(n.Line), Col: int32(n.Column),
		Plain: n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0, Literal: n.Style&yaml.LiteralStyle != 0,
	}
	switch n.ShortTag() {
	case "!!null":
		v.Kind = Null
	case "!!bool":
		v.Kind = Bool
	case "!!int":
		v.Kind = Int
	case "!!float":
		v.Kind = Float
	case "!!str", "!!timestamp":
	default:
		p.fail(n, "has the tag "+n.Tag, "remove the tag")
	}
	return v
}
