package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// Many applications and nodes don't make many series: those that need attention
// are listed, the rest is counted.
func TestSeriesAreBounded(t *testing.T) {
	s := state.New(nil)
	for i := range MaxApplications + 20 {
		name := state.AppName(fmt.Sprintf("app-%04d", i))
		s.Apps[name] = &state.App{Spec: state.Application{Name: name}, Converged: true}
	}
	for i := range MaxNodes + 3 {
		name := state.NodeName(fmt.Sprintf("n-%04d", i))
		s.Nodes[name] = &state.Node{Name: name, Ready: true}
	}
	last, lost := state.AppName(fmt.Sprintf("app-%04d", MaxApplications+19)), state.NodeName(fmt.Sprintf("n-%04d", MaxNodes+2))
	s.Apps[last].Converged, s.Nodes[lost].Ready = false, false
	c := NewController("v1")
	c.Watch(Views{
		State: func(read func(*state.State)) { read(s) }, Sessions: func() []agent.SessionStatus { return nil },
		LogSize: func() int64 { return 7 }, Certificates: func() map[string]time.Time { return nil },
	})
	text := scraped(t, c)
	for _, want := range []string{
		"tandem_applications_unlisted 20\n", "tandem_nodes_unlisted 3\n", "tandem_log_size_bytes 7\n",
		fmt.Sprintf("tandem_application_converged{application=%q} 0\n", last), fmt.Sprintf("tandem_node_ready{node=%q} 0\n", lost),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q", want)
		}
	}
	if n := strings.Count(text, "tandem_application_converged{"); n != MaxApplications {
		t.Errorf("%d applications have series, want %d", n, MaxApplications)
	}
	if n := strings.Count(text, "tandem_node_ready{"); n != MaxNodes {
		t.Errorf("%d nodes have series, want %d", n, MaxNodes)
	}
}

// Who scrapes and stays keeps no connection for ever.
func TestIdleConnectionsEnd(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server(NewAgent("v1").Handler(slog.New(slog.DiscardHandler)), 10*time.Millisecond)
	defer s.Close()
	go func() { _ = s.Serve(l) }() // until it is closed
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil { // before the time of a request is over
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); err != nil || !strings.Contains(string(said), "tandem_agent_connected 0") {
		t.Errorf("the connection was not ended after its answer: %v; it said %.60q", err, said)
	}
}

func scraped(t *testing.T, c *Controller) string {
	t.Helper()
	rec := httptest.NewRecorder()
	c.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", Path, nil))
	b, err := io.ReadAll(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every code of a hold has a word of its own; a new one is given one here.
func TestHoldsHaveWords(t *testing.T) {
	words := map[string]state.HoldCode{}
	for _, c := range holdCodes() {
		if other, ok := words[holdName(c)]; ok {
			t.Errorf("codes %d and %d are both %s", c, other, holdName(c))
		}
		words[holdName(c)] = c
	}
	if len(words) < 25 {
		t.Errorf("only %d codes have a word", len(words))
	}
}

func TestAgentCounts(t *testing.T) {
	a := NewAgent("v1")
	a.Reached()
	a.Did(&step.Action{Do: step.MakeSandbox}, step.OK, time.Millisecond)
	a.Did(&step.Action{Do: step.Pull}, step.NotFound, time.Millisecond)
	a.Did(&step.Action{Do: step.Run}, step.OK, time.Millisecond)
	a.Did(&step.Action{Do: step.Run, Attempt: 2}, step.OK, time.Millisecond)
	a.Did(&step.Action{Do: step.Run, Attempt: 3}, step.Unavailable, time.Millisecond)
	a.Probed(step.Readiness, false)
	a.Unobserved()
	a.Lost(fmt.Errorf("no: %w", runtimes.ErrRejected))
	a.Lost(errors.New("broken pipe"))
	err := testutil.GatherAndCompare(a.registry, strings.NewReader(`
# HELP tandem_agent_connected 1 while the agent has a stream to its controller.
# TYPE tandem_agent_connected gauge
tandem_agent_connected 0
# HELP tandem_agent_container_restarts_total Containers that were started again after an earlier attempt in the same pod.
# TYPE tandem_agent_container_restarts_total counter
tandem_agent_container_restarts_total 1
# HELP tandem_agent_image_pulls_total Images that pods waited for, by result. An image that was present already is ok.
# TYPE tandem_agent_image_pulls_total counter
tandem_agent_image_pulls_total{result="not_found"} 1
# HELP tandem_agent_pod_starts_total Pods whose sandbox was made.
# TYPE tandem_agent_pod_starts_total counter
tandem_agent_pod_starts_total 1
# HELP tandem_agent_probes_total Answers of probes, by kind and result.
# TYPE tandem_agent_probes_total counter
tandem_agent_probes_total{probe="readiness",result="failure"} 1
# HELP tandem_agent_runtime_errors_total Operations of the runtime that failed, by what was asked and how it ended.
# TYPE tandem_agent_runtime_errors_total counter
tandem_agent_runtime_errors_total{operation="pull",result="not_found"} 1
tandem_agent_runtime_errors_total{operation="run",result="unavailable"} 1
# HELP tandem_agent_runtime_unobserved_total How often the runtime did not say what exists on the node.
# TYPE tandem_agent_runtime_unobserved_total counter
tandem_agent_runtime_unobserved_total 1
# HELP tandem_agent_stream_losses_total Streams to the controller that ended or could not begin: lost, or rejected by the controller.
# TYPE tandem_agent_stream_losses_total counter
tandem_agent_stream_losses_total{reason="lost"} 1
tandem_agent_stream_losses_total{reason="rejected"} 1
`), "tandem_agent_connected", "tandem_agent_container_restarts_total", "tandem_agent_image_pulls_total", "tandem_agent_pod_starts_total",
		"tandem_agent_probes_total", "tandem_agent_runtime_errors_total", "tandem_agent_runtime_unobserved_total", "tandem_agent_stream_losses_total")
	if err != nil {
		t.Error(err)
	}
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "tandem_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}
