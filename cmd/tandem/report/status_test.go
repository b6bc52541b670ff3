package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A node that died while the controller was stopped is shown with what to do: by
// itself nothing moves what it may still run.
func TestStatusOfParkedNode(t *testing.T) {
	s := state.New(nil)
	for i, f := range []state.Fact{
		&state.LogStarted{}, &state.ControllerStarted{}, &state.NodeJoined{Node: "linux-1", Facts: state.NodeFacts{OS: state.Linux, Arch: "amd64"}},
		&state.NodeReady{Node: "linux-1"}, &state.ControllerStopped{}, &state.ControllerStarted{}, &state.NodeLost{Node: "linux-1"},
	} {
		if err := s.Apply(&state.Record{Seq: state.Seq(i + 1), At: state.Instant{Wall: int64(i+1) * 1e9}, Fact: f}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	status := NewStatus(s, func(state.Text) string { return "" })
	status.Text(&out)
	for _, want := range []string{"no, parked", "tandem node remove linux-1 --reason"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, &out)
		}
	}
	if err := s.Apply(&state.Record{Seq: 8, At: state.Instant{Wall: 9e9}, Fact: &state.NodeReady{Node: "linux-1"}}); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	status = NewStatus(s, func(state.Text) string { return "" })
	status.Text(&out)
	if strings.Contains(out.String(), "parked") {
		t.Errorf("it was heard from again:\n%s", &out)
	}
}
