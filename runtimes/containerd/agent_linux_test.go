package containerd_test

import (
	"os"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/images"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
)

// TestAgent runs the agent on real containers.
func TestAgent(t *testing.T) {
	t.Parallel()
	need(t)
	program, err := os.ReadFile(runtimetest.Build(t, "linux"))
	if err != nil {
		t.Fatal(err)
	}
	n := open(t, func(v *images.Variant) {
		v.Files = []images.File{{Path: "prog", Mode: 0o755, Data: program}}
		v.Entrypoint, v.Cmd = []string{"/prog"}, nil
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.Runtime = nil
	runtimetest.Agent(t, runtimetest.AgentCase{
		Reopen: true,
		Case: runtimetest.Case{
			Open: func(t *testing.T) runtimes.Runtime {
				r, err := containerd.Open(t.Context(), n.o)
				if err != nil {
					t.Fatal(err)
				}
				return r
			},
			Close: func(t *testing.T, r runtimes.Runtime) {
				if err := r.(*containerd.Runtime).Close(); err != nil {
					t.Error(err)
				}
			},
			Image:  n.image,
			Absent: runtimes.Image{Name: "shop.example/absent:1", Digest: state.DigestOf([]byte("absent"))},
		},
	})
}
