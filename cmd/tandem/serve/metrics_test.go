package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// scrape reads the metrics as Prometheus does: over TLS, with a token.
func scrape(t *testing.T, s *Server, token string) (text []byte, code int) {
	t.Helper()
	authority, err := join.OpenAuthority(s.opts.Data)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Address()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text, resp.StatusCode
}

// value is the one series of a name whose labels are these.
func value(t *testing.T, text []byte, name string, labels map[string]string) (float64, bool) {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		if maps.Equal(has, labels) {
			return number(m), true
		}
	}
	return 0, false
}

func number(m *dto.Metric) float64 {
	switch {
	case m.Gauge != nil:
		return m.GetGauge().GetValue()
	case m.Counter != nil:
		return m.GetCounter().GetValue()
	}
	return float64(m.GetHistogram().GetSampleCount())
}

const metered = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "shop.example/web:1.0.0"}]
`

// TestMetricsFollowAScenario: what a scrape says is what happened: an application
// that converges, then one that finds no room, then a text that is refused.
func TestMetricsFollowAScenario(t *testing.T) {
	t.Parallel()
	root, data := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("web.yaml", metered)
	s, err := Open(t.Context(), Options{
		Data: data, Where: root, Renders: renders(), Listen: "127.0.0.1:0", Simulate: map[state.OS]int{state.Linux: 2}, Version: "v9", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	}()
	users, err := access.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	token, err := users.Issue(access.User{Name: "prometheus", Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if _, code := scrape(t, s, ""); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d", code)
	}
	type want struct {
		name   string
		labels map[string]string
		ok     func(float64) bool
	}
	is := func(n float64) func(float64) bool { return func(v float64) bool { return v == n } }
	some := func(v float64) bool { return v > 0 }
	recent := func(v float64) bool { return time.Since(time.UnixMilli(int64(v*1000))).Abs() < 5*time.Minute }
	root1 := map[string]string{"application": "root"}
	until := func(what string, wanted []want) []byte {
		deadline := time.Now().Add(time.Minute)
		for {
			text, code := scrape(t, s, token)
			if code != http.StatusOK {
				t.Fatalf("scrape: %d %s", code, text)
			}
			missing := ""
			for _, w := range wanted {
				if v, ok := value(t, text, w.name, w.labels); !ok || !w.ok(v) {
					missing = w.name
				}
			}
			if missing == "" {
				return text
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s is not as it should be in:\n%s", what, missing, text)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	text := until("converged", []want{
		{"tandem_application_converged", root1, is(1)},
		{"tandem_application_last_converged_timestamp_seconds", root1, recent},
		{"tandem_applications", map[string]string{"state": "ready"}, is(1)},
		{"tandem_converge_duration_seconds", nil, is(1)},
		{"tandem_pods", map[string]string{"phase": "Running", "reason": "none"}, is(2)},
		{"tandem_pods_ready", map[string]string{"os": "linux"}, is(2)},
		{"tandem_pods_wanted", map[string]string{"os": "any"}, is(2)},
		{"tandem_log_appended_records_total", map[string]string{"kind": "PodPlaced"}, is(2)},
		{"tandem_log_append_duration_seconds", nil, some},
		{"tandem_log_records", nil, some},
		{"tandem_log_size_bytes", nil, some},
		{"tandem_log_checkpoint_timestamp_seconds", nil, recent},
		{"tandem_scheduler_decision_duration_seconds", nil, some},
		{"tandem_source_up", root1, is(1)},
		{"tandem_source_last_look_timestamp_seconds", root1, recent},
		{"tandem_source_look_failures_total", nil, is(0)},
		{"tandem_nodes", map[string]string{"os": "linux", "ready": "true"}, is(2)},
		{"tandem_node_ready", map[string]string{"node": "linux-1"}, is(1)},
		{"tandem_node_last_heard_timestamp_seconds", map[string]string{"node": "linux-1"}, recent},
		{"tandem_certificate_expiry_timestamp_seconds", map[string]string{"certificate": "server"}, some},
		{"tandem_build_info", map[string]string{"version": "v9"}, is(1)},
	})
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "tandem_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	write("big.yaml", strings.NewReplacer("web", "big", "replicas: 2", "replicas: 3", `:1.0.0"`, `:1.0.0", resources: {requests: {memory: 64Gi}}`).Replace(metered))
	until("held", []want{
		{"tandem_holds", map[string]string{"reason": "no_node"}, is(1)},
		{"tandem_scheduler_pending_pods", map[string]string{"reason": "no_node"}, is(3)},
		{"tandem_application_holds", root1, is(1)},
		{"tandem_applications", map[string]string{"state": "held"}, is(1)},
	})
	write("big.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {n: 80}\n")
	until("refused", []want{
		{"tandem_application_problems", root1, is(1)},
		{"tandem_applications", map[string]string{"state": "rejected"}, is(1)},
		{"tandem_log_appended_records_total", map[string]string{"kind": "RevisionRejected"}, is(1)},
	})
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	until("lost", []want{
		{"tandem_source_up", root1, is(0)},
		{"tandem_source_look_failures_total", nil, some},
	})
}
