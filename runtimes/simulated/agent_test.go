package simulated_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/runtimetest"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

func agentCase() runtimetest.AgentCase {
	return runtimetest.AgentCase{
		Case: newCase(),
		SetReady: func(_ *testing.T, r runtimes.Runtime, pod state.PodKey, ready bool) {
			if ready {
				r.(*simulated.Runtime).Heal()
			} else {
				r.(*simulated.Runtime).Inject(simulated.Fault{Kind: simulated.Unready, Pod: pod})
			}
		},
	}
}

func TestAgent(t *testing.T) { runtimetest.Agent(t, agentCase()) }

func TestAgentAcrossTheWire(t *testing.T) {
	c := agentCase()
	c.Link = func(t *testing.T, hub *agent.Hub, node state.NodeName) agent.Link {
		t.Helper()
		s := grpc.NewServer()
		hub.Register(s, func(context.Context) (state.NodeName, error) { return node, nil })
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(l) }()
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(); s.Stop() })
		return agent.Remote(conn)
	}
	runtimetest.Agent(t, c)
}
