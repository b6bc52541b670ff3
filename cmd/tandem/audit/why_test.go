package audit_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// big is a Deployment of three pods that each ask for some processor.
func big(cpu string) map[string]string {
	return map[string]string{
		"kustomization.yaml": "resources: [web.yaml]\n",
		"web.yaml": fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: web}}
    spec:
      os: {name: linux}
      containers:
        - {name: web, image: "shop.example/web:1", resources: {requests: {cpu: %q}}}
`, cpu),
	}
}

func details(w *report.Why) string {
	var out []string
	for _, b := range w.Because {
		out = append(out, b.Text)
		out = append(out, b.Detail...)
	}
	return strings.Join(out, "\n")
}

// What a decision rested on is told as it was then, also when the nodes have
// another amount free since and the pods of then are gone.
func TestWhyOfThePast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "big", big("7"))
	var old string
	w.until("two of three", func(s *state.State) bool {
		for _, p := range s.SortedPods() {
			old = p.Key.Name
		}
		return len(s.Holds) == 1 && len(s.Pods) == 2
	})
	var then state.Seq
	w.ctl.View(func(s *state.State) { then = s.Seq })
	w.push("Bob <bob@shop.example>", "small", big("1"))
	w.converged("small")
	w.end()

	a := open(t, dir)
	past, err := a.Why(t.Context(), "deploy/web", "", then)
	if err != nil {
		t.Fatal(err)
	}
	got := details(past)
	for _, want := range []string{
		"scheduler placed 2 of 3 linux pods", "linux-1   cpu: 7 asked, 2 free (web 2×7)", "windows-1   OS windows, pod is linux",
		"fits if  linux-1 frees cpu 5", "fits if  1 more linux node", `"big" by Ada`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("as of record %d, want %q in:\n%s", then, want, got)
		}
	}
	if strings.Contains(got, "by now") || strings.Contains(got, "Bob") {
		t.Errorf("as of record %d, the answer knows what came later:\n%s", then, got)
	}
	if past.AsOf != then || len(past.Held) != 1 {
		t.Errorf("want one hold as of record %d, got %d as of %d", then, len(past.Held), past.AsOf)
	}

	end := a.Store.Head().Seq
	now, err := a.Why(t.Context(), "deploy/web", "", end)
	if err != nil {
		t.Fatal(err)
	}
	if got := details(now); !strings.Contains(got, "scheduler placed 3 of 3 linux pods") || !strings.Contains(got, "Bob") || strings.Contains(got, "fits if") {
		t.Errorf("want the last answer, got:\n%s", got)
	}

	pod, err := a.Why(t.Context(), old, "default", then)
	if err != nil {
		t.Fatal(err)
	}
	if got := details(pod); !strings.Contains(got, "place") || !strings.Contains(got, "linux-1") {
		t.Errorf("want where %s was placed, got:\n%s", old, got)
	}
	if _, err := a.Why(t.Context(), old, "default", end); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("as of record %d: there is no Pod default/%s", end, old)) {
		t.Errorf("want that %s is gone, got %v", old, err)
	}
}

// A pod's answer is of the decision that placed it, not of the workload's last.
func TestWhyIsOfTheDecisionThatPlacedThePod(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "two", shop("shop.example/web:1", 2))
	w.converged("two")
	var first string
	w.ctl.View(func(s *state.State) {
		for _, p := range s.SortedPods() {
			if p.Workload.Name == "web" {
				first = p.Key.Name
			}
		}
	})
	w.push("Ada <ada@shop.example>", "five", shop("shop.example/web:1", 5))
	w.converged("five")
	w.end()
	a := open(t, dir)
	why, err := a.Why(t.Context(), first, "", a.Store.Head().Seq)
	if err != nil {
		t.Fatal(err)
	}
	if got := details(why); !strings.Contains(got, "scheduler placed 2 of 2 windows pods") || strings.Contains(got, "placed 3 of 3") {
		t.Errorf("want the decision of the first commit, got:\n%s", got)
	}
}
