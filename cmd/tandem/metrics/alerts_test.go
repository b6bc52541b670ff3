package metrics

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// rules is a file of Prometheus's alerting rules.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			For         string            `json:"for"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

// described are the names that a controller and an agent can ever say, with
// their labels.
func described(t *testing.T) map[string][]string {
	t.Helper()
	c := NewController("v1")
	v := &views{Views: Views{
		State: func(func(*state.State)) {}, Sessions: func() []agent.SessionStatus { return nil },
		LogSize: func() int64 { return 0 }, Certificates: func() map[string]time.Time { return nil },
	}, controller: c, desc: describe()}
	desc := regexp.MustCompile(`fqName: "([a-z_]+)".*variableLabels: \{([a-z_,]*)\}`)
	all := map[string][]string{}
	for _, from := range []prometheus.Collector{v, newAgent(), c.steps, c.decided, c.appends, c.records, c.converge} {
		ch := make(chan *prometheus.Desc, 200)
		from.Describe(ch)
		close(ch)
		for d := range ch {
			m := desc.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("%s isn't as this test reads it", d)
			}
			all[m[1]] = strings.Split(m[2], ",")
		}
	}
	return all
}

// Every rule can be read, names series that there are, by labels that they have,
// and has its own paragraph of what to do; and none is explained that isn't there.
func TestAlertsAreOfMetricsThatThereAre(t *testing.T) {
	docs := filepath.Join("..", "..", "..", "docs")
	raw, err := os.ReadFile(filepath.Join(docs, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file rules
	if err := yaml.UnmarshalStrict(raw, &file); err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.Join(docs, "operator.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := described(t)
	series := regexp.MustCompile(`\b(tandem_[a-z_]+)(\{[^}]*\})?`)
	label := regexp.MustCompile(`([a-z_]+)(=~|!=|!~|=)"`)
	var alerts []string
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			if r.For != "" {
				if _, err := model.ParseDuration(r.For); err != nil {
					t.Errorf("%s: for: %v", r.Alert, err)
				}
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || r.Annotations["summary"] == "" {
				t.Errorf("%s: severity %q, summary %q", r.Alert, r.Labels["severity"], r.Annotations["summary"])
			}
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") || !strings.ContainsAny(r.Expr, "<>=") {
				t.Errorf("%s: %s is no condition", r.Alert, r.Expr)
			}
			found := series.FindAllStringSubmatch(r.Expr, -1)
			if len(found) == 0 && !strings.Contains(r.Expr, `up{job="tandem-controller"}`) {
				t.Errorf("%s: %s asks for nothing of ours", r.Alert, r.Expr)
			}
			for _, m := range found {
				labels, ok := known[m[1]]
				if !ok {
					labels, ok = known[strings.TrimSuffix(m[1], "_bucket")]
				}
				if !ok {
					t.Errorf("%s: there is no metric %s", r.Alert, m[1])
				}
				for _, l := range label.FindAllStringSubmatch(m[2], -1) {
					if !slices.Contains(labels, l[1]) {
						t.Errorf("%s: %s has no label %s", r.Alert, m[1], l[1])
					}
				}
			}
			if !bytes.Contains(guide, []byte("\n### "+r.Alert+"\n")) {
				t.Errorf("docs/operator.md doesn't say what to do about %s", r.Alert)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Tandem\w+)$`).FindAllSubmatch(guide, -1) {
		if !slices.Contains(alerts, string(m[1])) {
			t.Errorf("docs/operator.md explains %s, which is no rule", m[1])
		}
	}
	for _, m := range series.FindAllSubmatch(guide, -1) {
		if known[string(m[1])] == nil {
			t.Errorf("docs/operator.md names %s, which there isn't", m[1])
		}
	}
	if len(alerts) < 15 {
		t.Errorf("only %d alerts", len(alerts))
	}
}
