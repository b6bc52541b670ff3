package runtimetest

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// reads is what a request for logs gives; empty where it fails.
func (w *world) reads(t *testing.T, r agent.LogRequest) string {
	t.Helper()
	in, err := w.hub.Logs(t.Context(), node, r)
	if err != nil {
		return ""
	}
	b, err := io.ReadAll(in)
	if err != nil || in.Close() != nil {
		return ""
	}
	return string(b)
}

// logLines: streams apart, times, since, tail and a limit; an agent that was
// away missed nothing and says nothing twice.
func logLines(t *testing.T, w *world) {
	if w.Simulated {
		return // a simulated container writes one line
	}
	begin := time.Now()
	p := w.pod(t, 1, nil, "say", "one", "warn", "bad", "say", "two", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	ask := agent.LogRequest{UID: p.UID, Container: "main"}
	wait(t, "all lines", func() bool { return strings.Count(w.reads(t, ask), "\n") == 3 })
	for _, c := range []struct {
		change func(*agent.LogRequest)
		want   string
	}{
		{func(r *agent.LogRequest) { r.Stream = "stderr" }, "bad\n"},
		{func(r *agent.LogRequest) { r.Stream = "stdout" }, "one\ntwo\n"},
		{func(r *agent.LogRequest) { r.Stream, r.Tail = "stdout", 1 }, "two\n"},
		{func(r *agent.LogRequest) { r.Stream, r.Most = "stdout", 5 }, "one\nt"},
		{func(r *agent.LogRequest) { r.Since = time.Now().Add(time.Hour).UnixNano() }, ""},
		{func(r *agent.LogRequest) { r.Since, r.Stream = begin.UnixNano(), "stderr" }, "bad\n"},
	} {
		r := ask
		c.change(&r)
		if got := w.reads(t, r); got != c.want {
			t.Errorf("%+v: %q, want %q", r, got, c.want)
		}
	}
	r := ask
	r.Times, r.Stream = true, "stderr"
	stamp, line, _ := strings.Cut(w.reads(t, r), " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || line != "bad\n" || at.Before(begin) || at.After(time.Now()) {
		t.Errorf("with its time: %q %q: %v", stamp, line, err)
	}
	w.mu.Lock()
	clear(w.pods)
	w.mu.Unlock()
	w.restart(t)
	w.ready(t, p.UID)
	if got := w.reads(t, ask); strings.Count(got, "\n") != 3 {
		t.Errorf("after a restart of the agent: %q", got)
	}
}

// logLives: what a life that ended wrote is there as the previous one, and who
// follows sees the next life.
func logLives(t *testing.T, w *world) {
	if w.Simulated {
		return
	}
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "state", MountPath: "/state"}}
	}, "say", "a life", "count", "/state/lives", "warn", "its end", "until", "/state/go", "exit", "3")
	w.assign(p)
	w.ready(t, p.UID)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	in, err := w.hub.Logs(ctx, node, agent.LogRequest{UID: p.UID, Container: "main", Follow: true, Stream: "stdout"})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	next := func() string {
		if !lines.Scan() {
			t.Fatalf("the followed log ended: %v", lines.Err())
		}
		return lines.Text()
	}
	if got := next() + " " + next(); got != "a life 1" {
		t.Errorf("the first life says %q", got)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "pods", p.UID.String(), "volumes", "state", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := next() + " " + next(); got != "a life 2" {
		t.Errorf("the second life says %q", got)
	}
	ask := agent.LogRequest{UID: p.UID, Container: "main", Previous: true}
	if got := w.reads(t, ask); got != "a life\n1\nits end\n" && got != "a life\nits end\n1\n" && got != "its end\na life\n1\n" {
		t.Errorf("the previous life said %q", got)
	}
	w.assign()
	w.until(t, "the pod is gone", func() bool { return len(w.pods) == 0 })
	for lines.Scan() { // ends, because no life follows
	}
}
