package doctor

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// Options say what is looked at.
type Options struct {
	Data   string   // directory of the agent; it may not be there yet
	Server string   // host:port of the controller; empty: this machine joined none
	Fencer []string // program of the fencer, with its first arguments

	Version string // of this program
}

// A Finding is one thing that was looked at.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// A State is how well a thing is.
type State string

// The states.
const (
	OK   State = "ok"
	Warn State = "warning" // pods run, but something will go wrong
	Bad  State = "bad"     // no pod runs
)

// A Report is all findings.
type Report struct {
	Usable   bool      `json:"usable"` // nothing is bad
	Findings []Finding `json:"findings"`
}

// A check is a finding of a runtime.
type check struct {
	name           string
	ok, fatal      bool
	detail, remedy string
}

// How full a disk may be: images are unpacked there.
const (
	diskLeast = 256 << 20
	diskGood  = 4 << 30
)

// Look looks at the machine.
func Look(ctx context.Context, o Options) Report {
	var all []Finding
	for _, f := range checks() {
		x := Finding{Name: f.name, State: OK, Detail: f.detail, Remedy: f.remedy}
		if !f.ok {
			x.State = Warn
			if f.fatal {
				x.State = Bad
			}
		}
		all = append(all, x)
	}
	all = append(all, system(ctx, &o)...)
	if o.Server != "" {
		all = append(all, server(ctx, o.Server), certificate(o.Data))
	}
	r := Report{Usable: true, Findings: all}
	for _, f := range all {
		r.Usable = r.Usable && f.State != Bad
	}
	return r
}

// Text is the report for people: what is wrong with its remedy, the rest in a
// line each.
func (r Report) Text(w io.Writer) {
	for _, f := range r.Findings {
		_, _ = fmt.Fprintf(w, "%-8s %-12s %s\n", f.State, f.Name, f.Detail)
		if f.State != OK && f.Remedy != "" {
			_, _ = fmt.Fprintf(w, "%-8s %-12s fix: %s\n", "", "", f.Remedy)
		}
	}
	if r.Usable {
		_, _ = fmt.Fprintln(w, "this machine can be a node")
	} else {
		_, _ = fmt.Fprintln(w, "this machine can't be a node")
	}
}

const dialWait = 3 * time.Second

func server(ctx context.Context, address string) Finding {
	f := Finding{Name: "controller", State: OK, Detail: address + " answers"}
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		f.State, f.Detail = Bad, fmt.Sprintf("%s can't be reached: %v", address, err)
		f.Remedy = "see that `tandem controller` runs there and listens on an address that this machine reaches (--listen), and that no firewall is between"
		return f
	}
	_ = conn.Close() // nothing was written
	return f
}

func certificate(data string) Finding {
	f := Finding{Name: "certificate", State: OK}
	until, err := join.GoodUntil(filepath.Join(data, "join"))
	left := time.Until(until)
	switch {
	case err != nil:
		f.State, f.Detail, f.Remedy = Bad, err.Error(), "join again: tandem agent join --server HOST:PORT --token TOKEN"
	case left <= -join.RejoinLimit:
		f.State, f.Detail = Bad, "expired "+until.UTC().Format(time.DateTime)+", too long ago to be renewed"
		f.Remedy = "join again: tandem agent join --server HOST:PORT --token TOKEN (`tandem agent token create` on the controller prints one)"
	case left <= 0:
		f.State, f.Detail, f.Remedy = Warn, "expired "+until.UTC().Format(time.DateTime), "start the agent: it renews it with the key that it has"
	default:
		f.Detail = "good until " + until.UTC().Format(time.DateTime)
	}
	return f
}
