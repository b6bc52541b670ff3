package hcs

import (
	"fmt"
	"slices"

	"github.com/tandem-gitops/tandem/runtimes"
)

// explain finds the reason of a code; one that isn't known may pass.
func explain(at kind, code uint32) reason {
	code = normal(code)
	for _, r := range table() {
		if r.at&at != 0 && slices.Contains(r.codes, code) {
			return r.reason
		}
	}
	if at == atNetwork {
		return reason{runtimes.ErrUnavailable, "the network service failed", "it is tried again; see the event log Microsoft-Windows-Host-Network-Service-Admin"}
	}
	return reason{runtimes.ErrUnavailable, "the compute service failed", "it is tried again; see the event log Microsoft-Windows-Hyper-V-Compute-Operational"}
}

// normal writes a code in the one way that this package knows: a plain Win32 error
// as the HRESULT that it is short for, and the compute service's as HRESULT.
func normal(code uint32) uint32 {
	switch {
	case code != 0 && code <= 0xffff:
		return 0x80070000 | code
	case code>>16 == 0xc037:
		return 0x80370000 | code&0xffff
	}
	return code
}

// An Error is what Windows answered, with what it means.
type Error struct {
	Op   string // "start the process"
	Code uint32
	Text string // Windows' own, if any
}

func (e *Error) reason() reason { return explain(op(e.Op).kind(), e.Code) }

// Error is "start: the paging file is too small (0x800705af); enlarge it …".
func (e *Error) Error() string {
	r := e.reason()
	text := ""
	if e.Text != "" {
		text = ": " + e.Text
	}
	code := e.Code
	if code <= 0xffff {
		code = normal(code) // as documents list it
	}
	return fmt.Sprintf("%s: %s (0x%08x%s); %s", e.Op, r.text, code, text, r.remedy)
}

// Unwrap returns the class.
func (e *Error) Unwrap() error { return e.reason().class }
