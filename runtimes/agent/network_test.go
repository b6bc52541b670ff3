package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

type networked struct {
	*upper
	told chan *state.Network
}

func (n networked) Network(w *state.Network) { n.told <- w }

// What nodes are told arrives whole, then as differences; what didn't change is
// the same value, and an older one is left out.
func TestNetworkAcrossTheWire(t *testing.T) {
	service := func(name, ip string, ready ...string) *state.Service {
		s := &state.Service{Ref: state.Ref{Kind: "Service", Namespace: "prod", Name: name}, IP: ip, Ports: []state.ServicePort{{Protocol: "TCP", Port: 80}}}
		for _, e := range ready {
			s.Endpoints = append(s.Endpoints, state.Endpoint{Pod: name, IP: e, Node: "n1", Ports: []int32{8080}})
		}
		return s
	}
	node := &state.NodeNetwork{Name: "n1", OS: state.Linux, Range: "10.88.0.0/24"}
	a, b, c := service("a", "10.96.0.20", "10.88.0.2"), service("b", "10.96.0.21"), service("c", "")
	first := &state.Network{Seq: 5, Pods: "10.88.0.0/14", Nodes: []*state.NodeNetwork{node}, Services: []*state.Service{a, b}}
	second := &state.Network{Seq: 9, Pods: "10.88.0.0/14", Nodes: []*state.NodeNetwork{node}, Services: []*state.Service{a, c}}

	peer := networked{newUpper(), make(chan *state.Network, 10)}
	hub, session := wired(t, agent.HubConfig{}, peer)
	next := func() *state.Network {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		select {
		case n := <-peer.told:
			return n
		case <-ctx.Done():
			t.Fatal("nothing was told")
			return nil
		}
	}
	hub.Network(first)
	one := next()
	if diff := cmp.Diff(first, one); diff != "" {
		t.Errorf("the first differs:\n%s", diff)
	}
	hub.Network(second)
	two := next()
	if diff := cmp.Diff(second, two); diff != "" {
		t.Errorf("the second differs:\n%s", diff)
	}
	if one.Services[0] != two.Services[0] {
		t.Error("a Service that didn't change is another value")
	}
	hub.Network(first)
	session.Close()
	if len(peer.told) > 0 {
		t.Error("an older network was told")
	}
}
