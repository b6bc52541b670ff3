package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

func inSpace(t *testing.T, f func(*tables) error) {
	t.Helper()
	hosttest.Need(t, hosttest.Root)
	space, err := hosttest.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	err = space.Do(func() error {
		kernel, err := openTables()
		if err != nil {
			return err
		}
		defer kernel.close()
		return f(kernel)
	})
	if err != nil {
		t.Error(err)
	}
}

// A transaction that the kernel refuses says what it was about, changes nothing,
// and the next one goes on.
func TestRefusedTransaction(t *testing.T) {
	t.Parallel()
	inSpace(t, func(kernel *tables) error {
		before, err := kernel.generation(nil)
		if err != nil {
			return err
		}
		bad := &change{table: "t"}
		bad.addTable()
		bad.addChain("a")
		bad.addRule("a", newRule("", nil, goTo("nowhere")))
		bad.addChain("b")
		after, err := kernel.run(bad)
		if want := "add rule to chain a: no such file or directory"; !errors.Is(err, unix.ENOENT) || err.Error() != want || after != before {
			t.Errorf("got %v, generation %d; want %q and still %d", err, after, want, before)
		}
		good := &change{table: "t"}
		good.addTable()
		if after, err = kernel.run(good); after != before+1 {
			t.Errorf("generation %d after %d", after, before)
		}
		return err
	})
}

// A Service of very many endpoints is programmed: lists that are too long for one
// message are more than one.
func TestVeryManyEndpoints(t *testing.T) {
	t.Parallel()
	s := &state.Service{Ref: state.Ref{Kind: "Service", Namespace: "default", Name: "web"}, IP: "10.96.0.10", Ports: []state.ServicePort{{Protocol: "TCP", Port: 80}}}
	for i := range 6000 {
		s.Endpoints = append(s.Endpoints, state.Endpoint{IP: fmt.Sprintf("10.88.%d.%d", i/250, 1+i%250), Ports: []int32{8080}})
	}
	inSpace(t, func(kernel *tables) error {
		for _, affinity := range []int32{0, 60} {
			s.Affinity = affinity
			c := &change{table: "t"}
			c.begin(netip.MustParsePrefix("10.88.0.0/24"), &ranges{pods: netip.MustParsePrefix("10.88.0.0/16"), services: netip.MustParsePrefix("10.96.0.0/16")})
			c.part(nil, render(s, ""))
			if _, err := kernel.run(c); err != nil {
				return err
			}
			members, err := kernel.members("t", "__map0")
			if err != nil {
				return err
			}
			if len(members) != 6000 {
				t.Errorf("affinity %d: %d of 6000 endpoints are there", affinity, len(members))
			}
		}
		return nil
	})
}

// The rules of Services are taken by this kernel, and a rule's comment says whose
// it is.
func TestTry(t *testing.T) {
	t.Parallel()
	hosttest.Need(t, hosttest.Root)
	if err := Try(); err != nil {
		t.Error(err)
	}
	r := newRule("default/"+strings.Repeat("x", 200), nil, goTo("a"))
	if len(r.comment) >= commentMost || !strings.Contains(r.comment, " default/x") {
		t.Errorf("comment %q", r.comment)
	}
}
