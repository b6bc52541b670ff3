package hcs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes"
)

// The codes as Windows' parts say them, also the ones that mean the same.
func TestReasons(t *testing.T) {
	for _, c := range []struct {
		code        uint32
		class       error
		text, fixes string
	}{
		{0xc0370101, runtimes.ErrUnsupported, "doesn't match this machine", "image for this build"},
		{0x80370101, runtimes.ErrUnsupported, "doesn't match this machine", "image for this build"},
		{0xc0370103, runtimes.ErrUnavailable, "goes on", "tried again"},
		{0xc0370105, runtimes.ErrUnavailable, "doesn't allow this", "tried again"},
		{0xc0370106, runtimes.ErrUnavailable, "ended while it was started", "log"},
		{0xc037010b, runtimes.ErrRejected, "doesn't understand", "report it"},
		{0xc037010d, runtimes.ErrRejected, "doesn't understand", "report it"},
		{0xc037010e, runtimes.ErrNotFound, "isn't there", "started again"},
		{0xc0370110, runtimes.ErrNotFound, "stopped already", "started again"},
		{0x80370110, runtimes.ErrNotFound, "stopped already", "started again"},
		{0x8037011f, runtimes.ErrNotFound, "stopped already", "started again"},
		{0x80370118, runtimes.ErrUnavailable, "four minutes", "memory"},
		{0x80370114, runtimes.ErrUnavailable, "doesn't answer", "vmcompute"},
		{0x490, runtimes.ErrUnavailable, "network service", "made again"},
		{0x80070490, runtimes.ErrUnavailable, "network service", "made again"},
		{0x803b0013, runtimes.ErrUnavailable, "port is taken", "leaked policies"},
		{0x803b002f, runtimes.ErrRejected, "address", "range"},
		{0x800705af, runtimes.ErrUnavailable, "paging file", "enlarge"},
		{0x5af, runtimes.ErrUnavailable, "paging file", "enlarge"},
		{0x80070022, runtimes.ErrUnavailable, "different versions", "restart the machine"},
		{0x80070002, runtimes.ErrRejected, "isn't in the image", "command"},
		{0x80070005, runtimes.ErrRejected, "denied", "access"},
		{0xdeadbeef, runtimes.ErrUnavailable, "compute service failed", "event log"},
	} {
		err := fmt.Errorf("run web: %w", &Error{Op: "start the container", Code: c.code, Text: "as Windows has it"})
		if !errors.Is(err, c.class) {
			t.Errorf("0x%08x isn't %v", c.code, c.class)
		}
		for _, want := range []string{c.text, c.fixes, fmt.Sprintf("0x%08x", c.code), "as Windows has it"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("0x%08x: %q lacks %q", c.code, err, want)
			}
		}
	}
}

// Whatever the code, there is a class and a remedy.
func FuzzExplain(f *testing.F) {
	f.Add(uint32(0xc0370101))
	f.Fuzz(func(t *testing.T, code uint32) {
		if r := explain(code); r.class == nil || r.text == "" || r.remedy == "" {
			t.Errorf("0x%08x: %+v", code, r)
		}
	})
}
