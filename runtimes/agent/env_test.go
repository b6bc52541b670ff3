package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(B)": "x1y$(A)", "$$(A)": "$(A)", "$(NO)": "$(NO)", "$(A": "$(A", "$": "$", "$A": "$A", "$$": "$", "": "",
	} {
		if got := expand(in, vars); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	field := func(p string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: p}}
	}
	c := corev1.Container{
		Name: "main", Image: "web:1",
		EnvFrom: []corev1.EnvFromSource{{Prefix: "C_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
		Env: []corev1.EnvVar{
			{Name: "PLAIN", Value: "$(C_greeting) you"},
			{Name: "POD", ValueFrom: field("metadata.name")},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "APP", ValueFrom: field("metadata.labels['app']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "key",
			}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MIB", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
				Resource: "limits.memory", Divisor: resource.MustParse("1Mi"),
			}}},
			{Name: "AS", ValueFrom: field("spec.serviceAccountName")},
			{Name: "PLAIN", Value: "$(PLAIN)!"},
		},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
	}
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	spec.Labels = map[string]string{"app": "shop"}
	tm, _ := state.NewTemplate(state.Linux, &spec, nil)
	v := values{
		pod: &state.AssignedPod{Key: state.PodKey{Namespace: "prod", Name: "web-1"}, Template: tm}, ip: "10.0.0.2", node: "n1",
		facts: &state.NodeFacts{OS: state.Linux},
		objects: []*state.Object{
			{Ref: state.Ref{Kind: "ConfigMap", Namespace: "prod", Name: "conf"}, Variants: []state.Variant{{Body: &corev1.ConfigMap{Data: map[string]string{"greeting": "hello"}}}}},
			{Ref: state.Ref{Kind: "Secret", Namespace: "prod", Name: "sec"}, Variants: []state.Variant{{Body: &corev1.Secret{Data: map[string][]byte{"key": []byte("s3")}}}}},
		},
	}
	got, _, err := v.environment(&c)
	want := []string{
		"C_greeting=hello", "PLAIN=hello you!", "POD=web-1", "IP=10.0.0.2", "APP=shop", "NODE=n1", "KEY=s3", "CPU=2", "MIB=64", "AS=default",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q: %v", got, want, err)
	}
	c.Env[5].ValueFrom.SecretKeyRef.Key = "other"
	if _, _, err := v.environment(&c); !errors.Is(err, errConfig) {
		t.Errorf("a key that isn't there: %v", err)
	}
}

func TestSwapIsAtomicAndTidy(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "absent"
		}
		return string(b)
	}
	steps := []map[string]file{
		{"a": {[]byte("1"), 0o644, 0}, "sub/b": {[]byte("2"), 0o600, 0}}, {"a": {[]byte("3"), 0o644, 0}}, {"a": {[]byte("3"), 0o644, 0}}, {},
	}
	for i, files := range steps {
		if err := swap(dir, files); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "sub/b"} {
			want := "absent"
			if f, ok := files[name]; ok {
				want = string(f.data)
			}
			if got := read(name); got != want {
				t.Errorf("step %d: %s is %q, want %q", i, name, got, want)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // ..data and what it points at
		t.Errorf("left %v: %v", entries, err)
	}
}

// TestFencingToken: an identity is told the number of its placement, and what
// the manifest says of that name counts.
func TestFencingToken(t *testing.T) {
	token := func(kind string, env ...corev1.EnvVar) []string {
		tm, _ := state.NewTemplate(state.Linux, &corev1.PodTemplateSpec{}, nil)
		v := values{pod: &state.AssignedPod{Workload: state.Ref{Kind: kind}, Placement: 4711, Template: tm}, facts: &state.NodeFacts{OS: state.Linux}}
		list, _, err := v.environment(&corev1.Container{Name: "main", Env: env})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := token("StatefulSet"); !slices.Equal(got, []string{"TANDEM_FENCING_TOKEN=4711"}) {
		t.Errorf("a StatefulSet's pod has %v", got)
	}
	if got := token("StatefulSet", corev1.EnvVar{Name: "TANDEM_FENCING_TOKEN", Value: "own"}); !slices.Equal(got, []string{"TANDEM_FENCING_TOKEN=own"}) {
		t.Errorf("one that sets it has %v", got)
	}
	if got := token("ReplicaSet"); len(got) > 0 {
		t.Errorf("another pod has %v", got)
	}
}
