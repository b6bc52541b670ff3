package agent

import (
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// TestWholeAssignment: everything that an assignment says of a pod is there
// after it was written and read, on the wire as on the agent's disk. A field
// that is left out would be a rule that no real agent keeps.
func TestWholeAssignment(t *testing.T) {
	tpl, _ := state.NewTemplate(state.Linux, &corev1.PodTemplateSpec{}, nil)
	p := &state.AssignedPod{Template: tpl}
	setAll(t, reflect.ValueOf(p).Elem())
	in := &state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 3, Pods: []*state.AssignedPod{p}, Volumes: make([]state.AssignedVolume, 1)}
	setAll(t, reflect.ValueOf(&in.Volumes[0]).Elem())
	raw, err := encodeWhole(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decodeWhole(raw)
	if err != nil || len(out.Pods) != 1 {
		t.Fatalf("%d pods: %v", len(out.Pods), err)
	}
	got := *out.Pods[0]
	got.Template = tpl
	if !slices.Equal(out.Volumes, in.Volumes) {
		t.Errorf("volumes were written as %+v and read as %+v", in.Volumes, out.Volumes)
	}
	if !reflect.DeepEqual(&got, p) {
		t.Errorf("a pod was written as %+v and read as %+v", *p, got)
	}
}

// setAll gives each field that is still zero a value that isn't.
func setAll(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		f := v.Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int32, reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint8, reflect.Uint64:
			f.SetUint(uint64(i%2 + 1))
		case reflect.Array:
			f.Index(0).SetUint(1)
		case reflect.Struct:
			setAll(t, f)
		case reflect.Pointer:
		default:
			t.Fatalf("%s: a field of kind %s, which this test can't fill", v.Type().Field(i).Name, f.Kind())
		}
	}
}
