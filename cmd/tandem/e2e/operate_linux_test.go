package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// metricsAt is where the agent answers, in this run's own network namespace.
const metricsAt = "127.0.0.1:7444"

// metrics are the series of a scrape: of the agent, or of the controller as its
// kubeconfig's user.
func (n *lost) metrics(controller bool) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	client, url := http.DefaultClient, "http://"+metricsAt+"/metrics"
	if controller {
		config, err := clientcmd.BuildConfigFromFlags("", n.in("controller/kubeconfig"))
		if err != nil {
			return nil, err
		}
		if client, err = rest.HTTPClientFor(config); err != nil {
			return nil, err
		}
		defer client.CloseIdleConnections()
		url = config.Host + "/metrics"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %s", url, resp.Status, raw)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(raw)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok {
			name += "}"
		} else if name, text, ok = strings.Cut(strings.TrimSpace(line), " "); !ok || name == "#" {
			continue
		}
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			all[name] = v
		}
	}
	return all, nil
}

// measured waits until series have values that suit.
func (n *lost) measured(controller bool, want map[string]func(float64) bool) {
	n.t.Helper()
	var got map[string]float64
	var err error
	missing := ""
	defer func() {
		if n.t.Failed() {
			n.t.Logf("not as it should be: %s (%v) in\n%v", missing, err, got)
		}
	}()
	n.until("the metrics say so", func() bool {
		if got, err = n.metrics(controller); err != nil {
			return false
		}
		for name, ok := range want {
			if v, there := got[name]; !there || !ok(v) {
				missing = name
				return false
			}
		}
		return true
	})
}

// agentVersion is the one that the node says of itself.
func (n *lost) agentVersion() string {
	var node corev1.Node
	if n.get("/api/v1/nodes/real", &node) != nil {
		return ""
	}
	return node.Status.NodeInfo.KubeletVersion
}

// db is db-0 as the API shows it.
func (n *lost) db() (out corev1.Pod) {
	if err := n.get("/api/v1/namespaces/default/pods/db-0", &out); err != nil {
		n.t.Fatal(err)
	}
	return out
}

// TestUpgradeRestartsNoPod: another version of the agent, then of the controller,
// then the one before again: each is one step away from the other, all processes
// of pods stay as they are, and both say in their metrics how they are.
func TestUpgradeRestartsNoPod(t *testing.T) {
	n := newLost(t, "failover")
	pids, pod := n.processes(), n.db()
	if len(pids) == 0 {
		t.Fatal("db-0 has no processes")
	}
	same := func(what string) {
		t.Helper()
		n.until("db-0 is ready on the real node", func() bool { return n.runsOn() == "real" && n.ready() })
		if now := n.processes(); !slices.Equal(pids, now) {
			t.Fatalf("%s: the pod's processes were %v, are %v", what, pids, now)
		}
		now := n.db()
		if now.UID != pod.UID || now.Status.ContainerStatuses[0].RestartCount != pod.Status.ContainerStatuses[0].RestartCount {
			t.Fatalf("%s: the pod is another one, or its container was restarted", what)
		}
	}
	is := func(want float64) func(float64) bool { return func(v float64) bool { return v == want } }
	some := func(v float64) bool { return v > 0 }
	n.measured(false, map[string]func(float64) bool{
		"tandem_agent_pod_starts_total": is(1), "tandem_agent_connected": is(1), "tandem_agent_pods": is(1), "tandem_agent_unfenced": is(0),
		"tandem_agent_image_bytes": some, `tandem_agent_image_pulls_total{result="ok"}`: is(1), "tandem_agent_container_restarts_total": is(0),
		`tandem_agent_runtime_operation_duration_seconds_count{operation="run"}`: is(1), `tandem_build_info{version="1.0.0"}`: is(1),
		"tandem_agent_certificate_expiry_timestamp_seconds": func(v float64) bool {
			left := time.Until(time.Unix(int64(v), 0))
			return left > 6*24*time.Hour && left < 8*24*time.Hour
		},
	})

	t.Log("the agent is replaced by a newer one")
	n.install("1.1.0")
	n.replaceAgent("1.1.0")
	same("agent 1.1.0, controller 1.0.0")
	n.measured(false, map[string]func(float64) bool{
		"tandem_agent_pod_starts_total": is(0), "tandem_agent_pods": is(1), `tandem_build_info{version="1.1.0"}`: is(1),
	})

	t.Log("the controller is replaced by a newer one")
	n.replaceController()
	same("agent and controller 1.1.0")
	n.measured(true, map[string]func(float64) bool{
		`tandem_build_info{version="1.1.0"}`: is(1), `tandem_node_ready{node="real"}`: is(1), `tandem_node_connected{node="real"}`: is(1),
		`tandem_node_clock_drift_seconds{node="real"}`: func(v float64) bool { return v > -30 && v < 30 && v != 0 },
		`tandem_node_last_heard_timestamp_seconds{node="real"}`: func(v float64) bool {
			return time.Since(time.Unix(int64(v), 0)) < time.Minute
		},
		`tandem_node_certificate_expiry_timestamp_seconds{node="real"}`: func(v float64) bool { return time.Until(time.Unix(int64(v), 0)) > 6*24*time.Hour },
	})

	t.Log("the agent is taken back to the older one")
	n.install("1.0.0")
	n.replaceAgent("1.0.0")
	same("agent 1.0.0, controller 1.1.0")

	t.Log("the container's process is killed, and the stream is cut: both are counted")
	n.wire.drop()
	for _, pid := range n.processes() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	n.measured(false, map[string]func(float64) bool{
		"tandem_agent_container_restarts_total": is(1), `tandem_agent_stream_losses_total{reason="lost"}`: some, "tandem_agent_connected": is(1),
	})
}

// replaceAgent stops the agent as systemd does, its process alone, and starts
// what is installed.
func (n *lost) replaceAgent(version string) {
	n.t.Helper()
	if err := n.agent.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if err := n.agent.Wait(); err != nil {
		n.t.Fatalf("the agent's end: %v", err)
	}
	n.join()
	n.until("the node says its agent's version", func() bool { return n.agentVersion() == version })
}

func (n *lost) replaceController() {
	n.t.Helper()
	if err := n.controller.Process.Signal(os.Interrupt); err != nil {
		n.t.Fatal(err)
	}
	if err := n.controller.Wait(); err != nil {
		n.t.Fatalf("the controller's end: %v", err)
	}
	n.control()
}
