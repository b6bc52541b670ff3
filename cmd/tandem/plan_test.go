package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
)

// planTree is a directory with a Deployment for each OS, a StatefulSet and a Secret.
func planTree(t *testing.T, dir string, version, linux, windows int, secret string) {
	t.Helper()
	deployment := func(name, os string, replicas int) string {
		return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    spec:
      os: {name: %s}
      containers: [{name: main, image: 'test.invalid/web:%d', resources: {requests: {memory: 2Gi}}}]
`, name, replicas, name, name, os, version)
	}
	text := deployment("web", "linux", linux) + deployment("winweb", "windows", windows) + fmt.Sprintf(`---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      os: {name: linux}
      containers: [{name: main, image: 'test.invalid/db:%d'}]
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: %s}
`, version, secret)
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: [all.yaml]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func tandem(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	if code == exitFailed || code == exitUsage {
		t.Fatalf("tandem %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout.String(), stderr.String())
	}
	return code, stdout.String()
}

func decode[T any](t *testing.T, raw string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return v
}

// awaitReady waits until that many pods are wanted and ready.
func awaitReady(t *testing.T, data string, pods int32) report.Status {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-deadline.C:
			t.Fatalf("not %d pods after a minute: %s", pods, last)
		case <-tick.C:
		}
		var stdout, stderr bytes.Buffer
		if run(t.Context(), []string{"status", "--data", data, "-o", "json"}, strings.NewReader(""), &stdout, &stderr) != exitDone {
			last = stderr.String()
			continue
		}
		s := decode[report.Status](t, stdout.String())
		there := 0 // with those that are still ending
		for i := range s.Nodes {
			there += s.Nodes[i].Pods
		}
		if last = stdout.String(); len(s.Applications) == 1 && s.Applications[0].Ready && s.Applications[0].Pods.Ready == pods && there == int(pods) {
			return s
		}
	}
}

// TestPlanIsWhatUpDoes plans a change against a running controller and against a
// saved inventory, then makes the change, and finds each pod where the plan put it.
func TestPlanIsWhatUpDoes(t *testing.T) {
	tree, next, data := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "data")
	planTree(t, tree, 1, 4, 2, "correct-horse")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	var upOut, upErr bytes.Buffer
	go func() {
		done <- run(ctx, []string{"up", tree, "--simulate", "linux=2,windows=1", "--data", data, "--listen", "127.0.0.1:0"}, strings.NewReader(""), &upOut, &upErr)
	}()
	defer func() {
		cancel()
		if code := <-done; code != exitDone {
			t.Errorf("up: exit %d\n%s", code, upErr.String())
		}
	}()
	awaitReady(t, data, 8)

	if code, out := tandem(t, "plan", tree, "--data", data); code != exitDone || !strings.Contains(out, "4 objects unchanged") {
		t.Errorf("a plan of what runs: exit %d, want 0\n%s", code, out)
	}
	planTree(t, next, 2, 5, 3, "battery-staple")
	code, online := tandem(t, "plan", next, "--data", data, "-o", "json")
	if code != exitChanges {
		t.Errorf("plan: exit %d, want 2", code)
	}
	_, saved := tandem(t, "status", "--data", data, "-o", "json")
	inventory := filepath.Join(t.TempDir(), "inventory.json")
	if err := os.WriteFile(inventory, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	_, offline := tandem(t, "plan", next, "--inventory", inventory, "-o", "json")
	want := decode[report.Plan](t, online)
	got := decode[report.Plan](t, offline)
	if diff := cmp.Diff(want.Pods, got.Pods); diff != "" || len(want.Pods) == 0 {
		t.Errorf("online (-) and from the inventory (+) differ:\n%s", diff)
	}
	_, markdown := tandem(t, "plan", next, "--data", data, "-o", "markdown")
	for name, text := range map[string]string{"plan": online, "inventory": saved, "offline plan": offline, "markdown": markdown} {
		for _, secret := range []string{"correct-horse", "battery-staple", "Y29ycmVjdC1ob3JzZQ", "YmF0dGVyeS1zdGFwbGU"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds a secret value", name)
			}
		}
	}
	if !strings.Contains(markdown, "<details><summary>Places") || !strings.Contains(markdown, "| update | `Deployment default/web` |") {
		t.Errorf("markdown:\n%s", markdown)
	}

	planTree(t, tree, 2, 5, 3, "battery-staple")
	awaitReady(t, data, 10)
	where := map[string]string{}
	for _, object := range []string{"deploy/web", "deploy/winweb", "sts/db"} {
		_, raw := tandem(t, "status", object, "--data", data, "-o", "json")
		for _, p := range decode[report.Detail](t, raw).Pods {
			where[p.Ref.Name] = string(p.Node)
		}
	}
	planned := map[string]string{}
	stopped := map[string]bool{}
	for i := range want.Stops {
		stopped[want.Stops[i].Pod] = true
	}
	for i := range want.Pods {
		planned[want.Pods[i].Pod] = string(want.Pods[i].Node)
	}
	for pod, node := range planned {
		if where[pod] == "" && stopped[pod] {
			continue // it was only there during the rollout
		}
		if where[pod] != node {
			t.Errorf("%s was planned on %s and is on %q", pod, node, where[pod])
		}
	}
	if len(where) != 10 {
		t.Errorf("%d pods run, want 10: %v", len(where), where)
	}
}
