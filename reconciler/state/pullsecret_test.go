package state

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func pullObject(kind, name string, body Body) *Object {
	return &Object{Ref: Ref{Kind: kind, Namespace: "default", Name: name}, Variants: []Variant{{Body: body, Digest: DigestOf([]byte(name))}}}
}

func accountOf(secrets ...string) *Object {
	a := &corev1.ServiceAccount{}
	for _, s := range secrets {
		a.ImagePullSecrets = append(a.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	return pullObject(AccountKind, "default", a)
}

// A node is told anew whenever what a ServiceAccount gives its pods changes, and
// has the Secrets that it gives, no others.
func TestPullSecretsOfAnAccount(t *testing.T) {
	s := New(nil)
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "i"}}}}
	tmpl, _ := NewTemplate(Linux, &spec, nil)
	n := &Node{Name: "n1", Facts: NodeFacts{OS: Linux}}
	p := &Pod{UID: UID{1}, Key: PodKey{Namespace: "default", Name: "a"}, Template: tmpl}
	n.Pods = map[UID]*Pod{p.UID: p}
	s.Nodes[n.Name] = n
	s.uses(p, n, 1)
	generation := n.Generation
	told := func(what string, again bool, given string, secrets ...string) {
		t.Helper()
		if (n.Generation != generation) != again {
			t.Errorf("%s: told anew %t, want %t", what, n.Generation != generation, again)
		}
		generation = n.Generation
		a := s.Assignment(n)
		if a.Pods[0].Given != given {
			t.Errorf("%s: given %q, want %q", what, a.Pods[0].Given, given)
		}
		var names []string
		for _, o := range a.Objects {
			names = append(names, o.Ref.Name)
		}
		if len(names) != len(secrets) {
			t.Errorf("%s: the node has %v, want %v", what, names, secrets)
		}
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	own := func(o *Object) { s.own(&Record{Seq: 1}, "root", Digest{}, o) }
	own(pullObject("Secret", "robot", &corev1.Secret{}))
	told("a Secret that nobody names", false, "")
	own(accountOf())
	told("an account without Secrets", false, "")
	own(accountOf("robot", "gone"))
	told("an account with two", true, "robot,gone", "robot")
	own(pullObject("Secret", "robot", &corev1.Secret{}))
	told("another content of the Secret", true, "robot,gone", "robot")
	own(accountOf("gone"))
	told("one of them goes", true, "gone")
	own(pullObject("Secret", "gone", &corev1.Secret{}))
	told("the other comes", true, "gone", "gone")
	if !s.Uses("default", tmpl, Ref{Kind: "Secret", Namespace: "default", Name: "gone"}) || s.Uses("default", tmpl, Ref{Kind: "Secret", Namespace: "default", Name: "robot"}) {
		t.Error("which Secret a pod uses is wrong")
	}
	s.bumpUsers(accountOf().Ref)
	s.forget(accountOf().Ref)
	told("the account goes", true, "")
}
