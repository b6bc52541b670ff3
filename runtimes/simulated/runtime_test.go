package simulated_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// program does what runtimetest's program would.
func program(c runtimes.Container) simulated.Behaviour {
	b := simulated.Behaviour{Stubborn: slices.Contains(c.Args, "stubborn")}
	if i := slices.Index(c.Args, "sleep"); i >= 0 && i+1 < len(c.Args) {
		b.After, _ = time.ParseDuration(c.Args[i+1])
		b.Ends = true
	}
	if i := slices.Index(c.Args, "exit"); i >= 0 && i+1 < len(c.Args) {
		n, _ := strconv.Atoi(c.Args[i+1])
		b.Ends, b.Code = true, int32(n)
	}
	return b
}

func newCase() runtimetest.Case {
	return runtimetest.Case{
		Open: func(*testing.T) runtimes.Runtime {
			return simulated.New(simulated.Options{Facts: simulated.Facts(state.Linux, "amd64", ""), Program: program})
		},
		Image: image("prog:1"), Absent: image("absent:1"), Simulated: true,
	}
}

func TestConformance(t *testing.T) { runtimetest.Run(t, newCase()) }

func image(name string) runtimes.Image {
	return runtimes.Image{Name: name, Digest: state.DigestOf([]byte(name))}
}
