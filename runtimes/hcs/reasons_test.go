package hcs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/runtimes"
)

// The codes as Windows' parts say them, also the ones that mean the same, and
// those that mean another thing at another place.
func TestReasons(t *testing.T) {
	for _, c := range []struct {
		op          op
		code        uint32
		class       error
		text, fixes string
	}{
		{opStart, 0xc0370101, runtimes.ErrUnsupported, "doesn't match this machine", "image for this build"},
		{opStart, 0x80370101, runtimes.ErrUnsupported, "doesn't match this machine", "image for this build"},
		{opStart, 0xc0370103, runtimes.ErrUnavailable, "goes on", "tried again"},
		{opStart, 0xc0370105, runtimes.ErrUnavailable, "doesn't allow this", "tried again"},
		{opStart, 0xc0370106, runtimes.ErrUnavailable, "ended while it was used", "log"},
		{opCreate, 0xc037010b, runtimes.ErrRejected, "doesn't understand", "report it"},
		{opCreate, 0xc037010d, runtimes.ErrRejected, "doesn't understand", "report it"},
		{opOpen, 0xc037010e, runtimes.ErrNotFound, "stopped already", "started again"},
		{opTerminate, 0xc0370110, runtimes.ErrNotFound, "stopped already", "started again"},
		{opTerminate, 0x80370110, runtimes.ErrNotFound, "stopped already", "started again"},
		{opExec, 0x80370110, runtimes.ErrNotFound, "stopped already", "started again"},
		{opProcess, 0x80370110, runtimes.ErrUnavailable, "ended while it was started", "log"},
		{opKillProcess, 0x8037011f, runtimes.ErrNotFound, "stopped already", "started again"},
		{opStart, 0x80370118, runtimes.ErrUnavailable, "four minutes", "memory"},
		{opStart, 0x80370114, runtimes.ErrUnavailable, "compute service doesn't answer", "vmcompute"},
		{"make the endpoint", 0x800706ba, runtimes.ErrUnavailable, "network service doesn't answer", "hns"},
		{"make the endpoint", 0x490, runtimes.ErrUnavailable, "network service has lost", "made again"},
		{opCreate, 0x80070490, runtimes.ErrUnavailable, "network service has lost", "made again"},
		{opOpenProcess, 0x80070490, runtimes.ErrNotFound, "isn't there", "started again"},
		{"make the load balancer", 0x803b0013, runtimes.ErrUnavailable, "port is taken", "leaked policies"},
		{"make the endpoint", 0x803b002f, runtimes.ErrUnavailable, "address", "range"},
		{opStart, 0x800705af, runtimes.ErrUnavailable, "paging file", "enlarge"},
		{opStart, 0x5af, runtimes.ErrUnavailable, "paging file", "enlarge"},
		{"make the network", 0x80070022, runtimes.ErrUnavailable, "different versions", "restart the machine"},
		{opProcess, 0x80070002, runtimes.ErrRejected, "isn't in the image", "command"},
		{opCreate, 0x80070002, runtimes.ErrUnavailable, "mounts isn't there", "hostPath"},
		{opPrepare, 0x80070002, runtimes.ErrUnavailable, "node's directory", "tried again"},
		{opProcess, 0x80070005, runtimes.ErrRejected, "may not run the program", "access"},
		{opPrepare, 0x80070005, runtimes.ErrUnavailable, "layer is denied", "LocalSystem"},
		{opOpen, 0x8037011b, runtimes.ErrUnavailable, "may not", "LocalSystem"},
		{opStart, 0xdeadbeef, runtimes.ErrUnavailable, "compute service failed", "event log"},
		{"make the network", 0xdeadbeef, runtimes.ErrUnavailable, "network service failed", "event log"},
	} {
		said := c.code
		if said <= 0xffff {
			said |= 0x80070000
		}
		err := fmt.Errorf("run web: %w", &Error{Op: string(c.op), Code: c.code, Text: "as Windows has it"})
		if !errors.Is(err, c.class) {
			t.Errorf("%s: 0x%08x isn't %v", c.op, c.code, c.class)
		}
		for _, want := range []string{string(c.op), c.text, c.fixes, fmt.Sprintf("0x%08x", said), "as Windows has it"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: 0x%08x: %q lacks %q", c.op, c.code, err, want)
			}
		}
	}
}

// places are the kinds as the document calls them.
func (k kind) places() string {
	if k == everywhere {
		return "anywhere"
	}
	var names []string
	for _, n := range []struct {
		kind kind
		name string
	}{
		{atLayer, "layers"}, {atCreate, "making a container"}, {atProcess, "its first process"}, {atExec, "exec"}, {atSystem, "finding, watching, ending"}, {atNetwork, "network"},
	} {
		if k&n.kind != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// outcome is what the agent makes of a class.
func outcomeOf(class error) string {
	switch {
	case errors.Is(class, runtimes.ErrUnsupported):
		return "refused on this node"
	case errors.Is(class, runtimes.ErrRejected):
		return "refused until the text or the image changes; looked at again"
	case errors.Is(class, runtimes.ErrNotFound):
		return "taken as gone"
	}
	return "tried again"
}

// The document's table is the code's. -update writes it again.
func TestDocumentedCodes(t *testing.T) {
	const begin, end = "<!-- codes -->\n", "<!-- end of codes -->\n"
	var want strings.Builder
	want.WriteString("\n| codes | at | means | then | remedy |\n|---|---|---|---|---|\n")
	known := kind(0)
	seen := map[uint32]kind{}
	for _, r := range table() {
		var codes []string
		for _, c := range r.codes {
			codes = append(codes, fmt.Sprintf("0x%08x", c))
			if r.at&^seen[c] == 0 {
				t.Errorf("0x%08x: an earlier row has all of its places", c)
			}
			seen[c] |= r.at
		}
		known |= r.at
		place := r.at.places()
		if seen[r.codes[0]] == everywhere && r.at == everywhere {
			place = "anywhere"
			if strings.Contains(want.String(), codes[0]) {
				place = "elsewhere"
			}
		}
		fmt.Fprintf(&want, "| %s | %s | %s | %s | %s |\n", strings.Join(codes, ", "), place, r.text, outcomeOf(r.class), strings.ReplaceAll(r.remedy, "|", `\|`))
	}
	want.WriteString("\n")
	if known != everywhere {
		t.Error("a place has no codes")
	}
	const file = "../../docs/windows.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(raw), begin)
	have, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no lines %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), have); diff != "" {
		t.Errorf("%s differs; -update writes it again:\n%s", file, diff)
	}
}

// Whatever the code and wherever, there is a class and a remedy.
func FuzzExplain(f *testing.F) {
	f.Add(uint8(1), uint32(0xc0370101))
	f.Fuzz(func(t *testing.T, at uint8, code uint32) {
		if r := explain(kind(at), code); r.class == nil || r.text == "" || r.remedy == "" {
			t.Errorf("0x%08x: %+v", code, r)
		}
	})
}
