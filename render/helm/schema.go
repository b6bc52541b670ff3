package helm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// validate checks values against values.schema.json of a chart and of its
// dependencies. Helm's own check would fetch what a schema refers to, from the
// network and from this machine's files; here a schema stands by itself.
func validate(c *chart.Chart, values any) error {
	have := asMap(values)
	if len(c.Schema) > 0 {
		if err := validateOne(c.Schema, have); err != nil {
			file := "values.schema.json"
			if !c.IsRoot() {
				file = "Chart.yaml"
			}
			return &Error{File: file, Cause: "values of chart " + c.Name() + ": " + oneLine(err), Remedy: "compare the values with the chart's values.schema.json"}
		}
	}
	for _, sub := range c.Dependencies() {
		if v, ok := have[sub.Name()]; ok && v != nil {
			if err := validate(sub, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func asMap(v any) map[string]any {
	type mapped interface{ AsMap() map[string]any }
	switch m := v.(type) {
	case map[string]any:
		return m
	case mapped:
		return m.AsMap()
	}
	return nil
}

// nowhere loads no schema: only those that the library itself knows are found.
type nowhere struct{}

func (nowhere) Load(url string) (any, error) {
	return nil, fmt.Errorf("refers to %s: a render reads nothing outside the tree", url)
}

func validateOne(schema []byte, values map[string]any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the schema can't be used: %v", r)
		}
	}()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return fmt.Errorf("the schema is no JSON: %w", err)
	}
	const name = "tree:///values.schema.json"
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(nowhere{})
	if err := compiler.AddResource(name, parsed); err != nil {
		return fmt.Errorf("the schema can't be used: %w", err)
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return fmt.Errorf("the schema can't be used: %w", err)
	}
	err = compiled.Validate(values)
	if mistakes, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return reason(mistakes)
	}
	return err
}

// reason is the innermost mistake, without the value that was found: it may be a
// secret.
func reason(e *jsonschema.ValidationError) error {
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	at := strings.Join(append([]string{"values"}, e.InstanceLocation...), ".")
	keyword := "schema"
	if path := e.ErrorKind.KeywordPath(); len(path) > 0 {
		keyword = path[len(path)-1]
	}
	return fmt.Errorf("%s does not fit %q of the schema", at, keyword)
}
