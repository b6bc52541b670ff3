package manifest

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// allFields are the tables of supported, as they are written.
func allFields() map[reflect.Type]fieldList {
	out := map[reflect.Type]fieldList{}
	for _, fields := range []func() map[reflect.Type]fieldList{objectFields, appsFields, batchFields, podFields, containerFields, volumeFields} {
		maps.Copy(out, fields())
	}
	return out
}

// reached goes through the types below t whose fields are read: not below
// fields that are refused, nor through what a cluster writes.
func reached(t reflect.Type, classes map[reflect.Type]map[string]fieldClass, seen map[reflect.Type]bool) {
	if k := t.Kind(); k == reflect.Pointer || k == reflect.Slice || k == reflect.Map {
		reached(t.Elem(), classes, seen)
		return
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	switch t {
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[intstr.IntOrString](), reflect.TypeFor[metav1.Time]():
		return // one value each
	}
	seen[t] = true
	for name, ft := range jsonFields(t) {
		if classes[t][name] == honoured {
			reached(ft, classes, seen)
		}
	}
}

// TestEveryFieldHasAClass: what becomes of each field of each type that a kind
// reaches is said, in one list, and nothing is said of fields that aren't there.
// A newer k8s.io/api brings fields that are in none.
func TestEveryFieldHasAClass(t *testing.T) {
	classes, seen := supported(), map[reflect.Type]bool{}
	for _, fresh := range objectKinds() {
		reached(reflect.TypeOf(fresh()), classes, seen)
	}
	if len(seen) < 100 {
		t.Fatalf("only %d types are reached", len(seen))
	}
	said := allFields()
	for typ := range seen {
		lists, ok := said[typ]
		if !ok {
			t.Errorf("%s: no row in fields.go or fieldspod.go", typ)
			continue
		}
		times := map[string]int{}
		for name := range strings.FieldsSeq(lists.honoured + " " + lists.noted + " " + lists.refused) {
			times[name]++
		}
		known := jsonFields(typ)
		for name := range known {
			if times[name] != 1 {
				t.Errorf("%s.%s: in %d lists, want one", typ, name, times[name])
			}
		}
		for name := range times {
			if known[name] == nil {
				t.Errorf("%s.%s: there is no such field", typ, name)
			}
		}
	}
	for typ := range said {
		if !seen[typ] {
			t.Errorf("%s: no kind reaches it", typ)
		}
	}
}

// TestUnhonouredFieldsAreSaid: whatever the type, a field that nothing honours
// is a problem or a note with a cause and a remedy of its own.
func TestUnhonouredFieldsAreSaid(t *testing.T) {
	for typ, lists := range allFields() {
		for name := range strings.FieldsSeq(lists.refused) {
			if cause, remedy := refusedField(typ, name); cause == "" || remedy == "" {
				t.Errorf("%s.%s: cause %q, remedy %q", typ, name, cause, remedy)
			}
		}
		for name := range strings.FieldsSeq(lists.noted) {
			if cause, _ := noteOf(typ, name); strings.HasSuffix(cause, "nothing reads it") {
				t.Errorf("%s.%s: the note doesn't say why it has no effect", typ, name)
			}
		}
	}
}

// TestNeutralValues: what charts write of fields that nothing honours is
// accepted without a word where it asks for nothing, and only there.
func TestNeutralValues(t *testing.T) {
	pod, sc := reflect.TypeFor[corev1.PodSpec](), reflect.TypeFor[corev1.SecurityContext]()
	for _, one := range []struct {
		typ   reflect.Type
		text  string
		quiet bool
	}{
		{pod, "hostPID: false", true},
		{pod, "hostPID: true", false},
		{pod, "hostUsers: true", true},
		{pod, "hostUsers: false", false},
		{pod, "imagePullSecrets: []", true},
		{pod, "imagePullSecrets: [{name: a}]", true},
		{pod, "overhead: {}", true},
		{pod, "nodeName: ''", true},
		{sc, "seLinuxOptions: {}", true},
		{sc, "seLinuxOptions: {level: s0}", false},
		{sc, "appArmorProfile: {}", false},
		{sc, "procMount: Default", true},
		{sc, "procMount: Unmasked", false},
		{reflect.TypeFor[corev1.Volume](), "{name: v, nfs: {}}", false},
		{reflect.TypeFor[corev1.ServiceSpec](), "loadBalancerSourceRanges: []", true},
		{reflect.TypeFor[corev1.ServiceSpec](), "loadBalancerIP: 192.0.2.1", false},
	} {
		docs, problems := Parse(state.Origin{Path: "a.yaml"}, []byte(one.text))
		if len(problems) > 0 || len(docs) != 1 {
			t.Fatalf("%s: %v", one.text, problems)
		}
		c := &checker{fields: supported(), place: func(Path, *Value) state.Origin { return state.Origin{} }}
		c.structure(docs[0], one.typ, nil)
		if quiet := len(c.problems)+len(c.notes) == 0; quiet != one.quiet {
			t.Errorf("%s: quiet is %v: %v %v", one.text, quiet, c.problems, c.notes)
		}
	}
	if !slices.Contains(defaultWords(sc, "procMount"), "Default") {
		t.Error("procMount has no default")
	}
}
