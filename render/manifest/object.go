package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Options say for what objects are decoded.
type Options struct {
	Namespace string // for objects that name none; "default" where empty
	Root      bool   // Tandem kinds are allowed

	IgnoreKinds []string // kinds that are left out, as spec.ignoreKinds has them
}

// A Decoded is an object of the text: a body, an Application or a set of them.
type Decoded struct {
	Ref  state.Ref
	Body state.Body
	App  *state.Application
	Set  *Set

	Pipeline *state.Pipeline
	Ignored  bool // its kind is one of IgnoreKinds: nothing of it was read
	Access   *state.Access

	Notes []state.Problem // fields of Body that are accepted without an effect
}

// A Decoder decodes objects of one tree.
type Decoder struct {
	options Options
	fields  map[reflect.Type]map[string]fieldClass
	kinds   map[string]func() state.Body
}

// NewDecoder makes a Decoder; it may be used by one goroutine at a time.
func NewDecoder(options Options) *Decoder {
	return &Decoder{options: options, fields: supported(), kinds: objectKinds()}
}

// Identify reads what names an object, without looking at the rest.
func Identify(v *Value) (apiVersion string, ref state.Ref) {
	meta := v.Find("metadata")
	return v.Str("apiVersion"), state.Ref{Kind: v.Str("kind"), Namespace: meta.Str("namespace"), Name: meta.Str("name")}
}

// Decode gives the object that v is, defaulted, or every problem of it.
func (d *Decoder) Decode(v *Value, place Place) (Decoded, []state.Problem) {
	apiVersion, ref := Identify(v)
	fail := func(field, cause, remedy string) (Decoded, []state.Problem) {
		var p Path
		if field != "" {
			p = p.Key(strings.Split(field, ".")...)
		}
		at, _, _, ok := v.Lookup(p)
		if !ok {
			at, p = v, nil
		}
		object := ref
		if ref.Name == "" {
			object = state.Ref{}
		}
		return Decoded{Ref: ref}, []state.Problem{{Object: object, Field: field, At: place(p, at), Cause: cause, Remedy: remedy}}
	}
	switch {
	case v.Kind != Map:
		return fail("", "want an object with apiVersion, kind and metadata", "write a Kubernetes object")
	case ref.Kind == "":
		return fail("kind", "is missing", "add kind, such as kind: Deployment")
	case apiVersion == "":
		return fail("apiVersion", "is missing", "add apiVersion, such as apiVersion: apps/v1")
	}
	if strings.HasPrefix(apiVersion, apiGroup+"/") {
		return d.tandem(v, apiVersion, ref, place)
	}
	if d.ignores(apiVersion, ref.Kind) {
		return Decoded{Ref: ref, Ignored: true}, nil
	}
	fresh := d.kinds[apiVersion+" "+ref.Kind]
	if fresh == nil {
		return refuseKind(apiVersion, ref, fail)
	}
	if ref.Kind == "Namespace" || ref.Kind == "PriorityClass" {
		ref.Namespace = ""
	} else if ref.Namespace == "" {
		ref.Namespace = "default"
		if d.options.Namespace != "" {
			ref.Namespace = d.options.Namespace
		}
	}
	if ref.Name == "" {
		if v.Find("metadata").Str("generateName") != "" {
			cause, remedy := refusedField(reflect.TypeFor[metav1.ObjectMeta](), "generateName")
			return fail("metadata.generateName", cause, remedy)
		}
		return fail("metadata.name", "is missing", "give the "+ref.Kind+" a name")
	}
	body := fresh()
	c := &checker{object: ref, place: place, fields: d.fields, secret: ref.Kind == "Secret"}
	raw := c.check(v, body)
	if len(c.problems) > c.refused {
		return Decoded{Ref: ref}, c.problems
	}
	if err := json.Unmarshal(raw, body); err != nil {
		cause := "can't be decoded: " + err.Error()
		if c.secret {
			cause = "can't be decoded" // the error may quote a value
		}
		return fail("", cause, "compare it with the Kubernetes reference")
	}
	body.SetNamespace(ref.Namespace)
	setDefaults(body)
	val := &validator{object: ref, place: place, value: v, notes: c.notes}
	val.body(body)
	if len(c.problems) > 0 {
		return Decoded{Ref: ref}, append(c.problems, besides(val.problems, c.problems)...)
	}
	return Decoded{Ref: ref, Body: body, Notes: val.notes}, val.problems
}

// besides leaves out what may only follow from fields that were refused: what is
// said of such a field, of one in it, or of one around it.
func besides(found, refused []state.Problem) []state.Problem {
	return slices.DeleteFunc(found, func(p state.Problem) bool {
		return slices.ContainsFunc(refused, func(r state.Problem) bool {
			return strings.HasPrefix(r.Field, p.Field) || strings.HasPrefix(p.Field, r.Field)
		})
	})
}

// ignores says whether the Application leaves a kind out: by the kind alone, or
// by kind and group, as in Certificate.cert-manager.io.
func (d *Decoder) ignores(apiVersion, kind string) bool {
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	for _, name := range d.options.IgnoreKinds {
		wantKind, wantGroup, one := strings.Cut(name, ".")
		if wantKind == kind && (!one || wantGroup == group) {
			return true
		}
	}
	return false
}

func refuseKind(apiVersion string, ref state.Ref, fail func(field, cause, remedy string) (Decoded, []state.Problem)) (Decoded, []state.Problem) {
	for known := range objectKinds() {
		if version, kind, _ := strings.Cut(known, " "); kind == ref.Kind {
			return fail("apiVersion", fmt.Sprintf("want %s for a %s, got %q", version, kind, clip(apiVersion)), "apiVersion: "+version)
		}
	}
	return fail("kind", fmt.Sprintf("Tandem does not run kind %s (%s)", clip(ref.Kind), clip(apiVersion)), insteadOf(apiVersion, ref.Kind))
}
