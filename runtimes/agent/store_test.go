package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// TestSecretsStayOffTheDisk: what an agent keeps of its assignment has no
// Secret; memory has, until the machine is started again.
func TestSecretsStayOffTheDisk(t *testing.T) {
	secret := []byte("correct horse battery staple")
	object := func(kind, name string, body state.Body) *state.Object {
		return &state.Object{Ref: state.Ref{Kind: kind, Namespace: "prod", Name: name}, Variants: []state.Variant{{Body: body, Digest: state.DigestOf([]byte(name))}}}
	}
	a := &state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 3, Objects: []*state.Object{
		object("ConfigMap", "conf", &corev1.ConfigMap{Data: map[string]string{"a": "b"}}), object("Secret", "sec", &corev1.Secret{Data: map[string][]byte{"key": secret}}),
	}}
	s := store{dir: t.TempDir(), volatile: filepath.Join(t.TempDir(), "memory")}
	if err := s.saveAssignment(a); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(s.dir)
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v: %v", files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(filepath.Join(s.dir, f.Name())); err != nil || bytes.Contains(b, secret) {
			t.Errorf("%s holds the secret, or can't be read: %v", f.Name(), err)
		}
	}
	objects := func() int {
		got, err := s.load()
		if err != nil || got == nil {
			t.Fatalf("load: %v", err)
		}
		return len(got.Assignment.Objects)
	}
	if n := objects(); n != 2 {
		t.Errorf("%d objects are there again, want both", n)
	}
	s.volatile = filepath.Join(t.TempDir(), "memory") // a reboot empties it
	if n := objects(); n != 1 {
		t.Errorf("%d objects after a reboot, want the ConfigMap", n)
	}
}

// TestNotesAreWrittenOneAfterTheOther: a session that begins and a lease without
// end both write the note. What is on disk is the newest, and whole.
func TestNotesAreWrittenOneAfterTheOther(t *testing.T) {
	a := &Agent{store: store{dir: t.TempDir()}}
	var both sync.WaitGroup
	for i := range 200 {
		for _, parked := range []string{"", strings.Repeat("b", 100)} {
			both.Go(func() {
				if err := a.keepNote(func(n *note) { n.Incarnation, n.Parked = uint64(i), parked }); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		kept, err := a.store.note()
		if err != nil {
			t.Fatal(err)
		}
		if kept != a.note {
			t.Fatalf("kept %+v, the agent has %+v", kept, a.note)
		}
	}
}
