package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// An AgentCase is a runtime under an agent, and the link between the agent and
// its controller.
type AgentCase struct {
	Case

	// Link is the agent's way to the hub; nil: in-process. Node is its name.
	Link func(t *testing.T, hub *agent.Hub, node state.NodeName) agent.Link
	// SetReady makes the readiness probe of a container pass or fail; nil: by
	// the file /state/ready in the container.
	SetReady func(t *testing.T, r runtimes.Runtime, pod state.PodKey, ready bool)
	// Reopen says that a new agent opens the runtime again; otherwise it gets
	// the value of the former one.
	Reopen bool
}

// Agent holds an agent on a runtime to what a controller may expect.
func Agent(t *testing.T, c AgentCase) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *world){
		"ready": becomesReady, "restart": restartsOnExit, "probes": followsProbes, "configs": followsConfigs, "stop": stops,
		"agent restart": isAdopted, "stale": ignoresStale, "reconnect": reportsInFull, "pull": pullFails, "logs": logs,
		"log lines": logLines, "log lives": logLives,
		"init and sidecars": initAndSidecars, "hooks": hooks, "failing hook": failingHook, "last words": lastWords,
		"volumes": volumes, "subPath stays inside": subPathStays,
		"claims": claims, "unspoken volume": unspokenVolume, "lost data": lostData, "claim of a group": claimOfGroup,
	} {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, c)) })
	}
}

const node state.NodeName = "n1"

// A world is a controller that remembers what it is told, and one agent.
type world struct {
	AgentCase

	hub  *agent.Hub
	dir  string
	rt   runtimes.Runtime
	stop func()

	mu      sync.Mutex
	changed chan struct{}
	pods    map[state.UID]state.PodStatus
	seen    map[state.PodReason]bool
	reports []state.Report
	hellos  []state.NodeHello
	gen     uint64
	objects []*state.Object
	volumes []state.AssignedVolume
}

func newWorld(t *testing.T, c AgentCase) *world {
	t.Helper()
	w := &world{
		AgentCase: c, dir: t.TempDir(), changed: make(chan struct{}, 1), pods: map[state.UID]state.PodStatus{}, seen: map[state.PodReason]bool{},
	}
	w.hub = agent.NewHub(agent.HubConfig{Submit: w.submit})
	w.rt = c.Open(t)
	t.Cleanup(func() { // nothing is left on the node, also when the test failed
		w.stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if o, err := w.rt.Observe(ctx, 0); err == nil {
			for _, s := range o.Sandboxes {
				if err := w.rt.Remove(ctx, s.UID); err != nil {
					t.Errorf("clean up: %v", err)
				}
			}
		}
		if c.Close != nil {
			c.Close(t, w.rt)
		}
	})
	w.begin(t)
	return w
}

// begin starts the agent; w.stop stops it as a kill would: it says nothing.
func (w *world) begin(t *testing.T) {
	t.Helper()
	link := w.hub.Link()
	if w.Link != nil {
		link = w.Link(t, w.hub, node)
	}
	a, err := agent.New(t.Context(), agent.Config{
		Node: node, Dir: w.dir, Runtime: w.rt, Link: link, Version: "test",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatalf("agent: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
}

func (w *world) restart(t *testing.T) {
	t.Helper()
	w.stop()
	if w.Reopen && w.Close != nil {
		w.Close(t, w.rt)
		w.rt = w.Open(t)
	}
	w.begin(t)
}

func (w *world) submit(events ...state.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		switch e := e.(type) {
		case *state.NodeHello:
			w.hellos = append(w.hellos, *e)
		case *state.Reported:
			w.reports = append(w.reports, e.Report)
			if e.Report.Full {
				clear(w.pods)
			}
			for _, p := range e.Report.Pods {
				w.pods[p.UID] = p
				w.seen[p.Reason] = true
			}
			for _, u := range e.Report.Gone {
				delete(w.pods, u)
			}
		}
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *world) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.After(2 * patience)
	for {
		w.mu.Lock()
		ok := holds()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-w.changed:
		case <-late:
			w.mu.Lock()
			last := fmt.Sprintf("%+v", w.pods)
			w.mu.Unlock()
			t.Fatalf("never: %s; last heard: %s", what, last)
		}
	}
}

func (w *world) ready(t *testing.T, uid state.UID) {
	t.Helper()
	w.until(t, "pod is ready", func() bool { p := w.pods[uid]; return p.Ready && p.Phase == state.Running })
}

// pod is one of a Deployment whose container runs prog with args.
func (w *world) pod(t *testing.T, n byte, edit func(*corev1.PodSpec), args ...string) *state.AssignedPod {
	t.Helper()
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "main", Image: w.Image.Name, Args: args, ImagePullPolicy: corev1.PullPolicy(w.Image.Policy),
	}}}}
	if edit != nil {
		edit(&spec.Spec)
	}
	os := w.OS
	if os == "" {
		os = state.Linux
	}
	tm, _ := state.NewTemplate(os, &spec, []state.Image{{
		Name: w.Image.Name, Platforms: []state.Platform{{OS: os, Digest: w.Image.Digest}},
	}, {Name: w.Absent.Name, Platforms: []state.Platform{{OS: os, Digest: w.Absent.Digest}}}})
	sum := state.DigestOf(append([]byte(t.Name()), n))
	return &state.AssignedPod{
		UID: state.UID(sum[:16]), Key: state.PodKey{Namespace: "prod", Name: "web-" + string(rune('a'+n))},
		Workload: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web"}, Ordinal: -1, Template: tm, Grace: 5 * time.Second,
	}
}

func (w *world) assignment(gen uint64, pods ...*state.AssignedPod) state.Assignment {
	a := state.Assignment{Node: node, Epoch: 1, Generation: gen, Seq: state.Seq(gen), Pods: pods, Objects: w.objects, Volumes: slices.Clone(w.volumes)}
	if len(pods) == 2 && pods[0].UID.Compare(pods[1].UID) > 0 {
		a.Pods = []*state.AssignedPod{pods[1], pods[0]}
	}
	return a
}

func (w *world) assign(pods ...*state.AssignedPod) {
	w.gen++
	w.hub.Assign(w.assignment(w.gen, pods...))
}

func becomesReady(t *testing.T, w *world) {
	a, b := w.pod(t, 1, nil, "wait"), w.pod(t, 2, nil, "wait")
	w.assign(a, b)
	w.ready(t, a.UID)
	w.ready(t, b.UID)
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.reports[len(w.reports)-1]
	if last.Node != node || last.Epoch != 1 || last.Applied != 1 || last.Incarnation != 1 || last.BootID == "" {
		t.Errorf("the fencing tuple is %+v", last)
	}
	if h := w.hellos[0]; h.Node != node || h.Facts.OS == "" || h.Facts.Agent != "test" || h.BootID != last.BootID {
		t.Errorf("hello is %+v", h)
	}
	if c := w.pods[a.UID].Containers; len(c) != 1 || c[0].Name != "main" || !c[0].Ready || !c[0].Started || c[0].Since == 0 {
		t.Errorf("container status is %+v", c)
	}
}

func restartsOnExit(t *testing.T, w *world) {
	p := w.pod(t, 1, nil, "exit", "3")
	w.assign(p)
	w.until(t, "it was restarted and then backs off", func() bool {
		s := w.pods[p.UID]
		return s.Reason == state.ReasonCrashLoopBackOff && s.Restarts() >= 1 && s.Containers[0].LastExit == 3 && !s.Ready
	})
}

func followsProbes(t *testing.T, w *world) {
	set := w.SetReady
	if set == nil {
		set = func(t *testing.T, r runtimes.Runtime, _ state.PodKey, ready bool) {
			t.Helper()
			verb := "remove"
			if ready {
				verb = "touch"
			}
			x := runtimes.Exec{Command: []string{"/prog", verb, "/state/ready"}}
			o, err := r.Observe(t.Context(), 0)
			if err != nil || len(o.Containers) == 0 {
				t.Fatalf("observe: %v", err)
			}
			if code, err := r.(runtimes.Execer).Exec(t.Context(), o.Containers[0].UID, "main", x); err != nil || code != 0 {
				t.Fatalf("%s: code %d: %v", verb, code, err)
			}
		}
	}
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "state", MountPath: "/state"}}
		s.Containers[0].ReadinessProbe = &corev1.Probe{
			PeriodSeconds: 1, FailureThreshold: 1,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}},
		}
	}, "touch", "/state/ready", "serve", ":8080", "/state/ready", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	set(t, w.rt, p.Key, false)
	w.until(t, "it is unready", func() bool { s := w.pods[p.UID]; return !s.Ready && s.Reason == state.ReasonUnready && s.Message != "" })
	set(t, w.rt, p.Key, true)
	w.ready(t, p.UID)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.pods[p.UID]; s.Restarts() != 0 {
		t.Errorf("an unready container was restarted")
	}
}

func config(content string) *state.Object {
	return &state.Object{Ref: state.Ref{Kind: "ConfigMap", Namespace: "prod", Name: "conf"}, Variants: []state.Variant{{
		Body: &corev1.ConfigMap{Data: map[string]string{"greeting": content}}, Digest: state.DigestOf([]byte(content)),
	}}}
}

func followsConfigs(t *testing.T, w *world) {
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "conf"},
		}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "conf", MountPath: "/conf"}}
	}, "wait")
	w.assign(p)
	w.until(t, "the missing ConfigMap is named", func() bool {
		s := w.pods[p.UID]
		return s.Reason == state.ReasonConfigMissing && strings.Contains(s.Message, "ConfigMap prod/conf")
	})
	for _, content := range []string{"hello", "good morning"} {
		w.objects = []*state.Object{config(content)}
		w.assign(p)
		w.ready(t, p.UID)
		path := filepath.Join(w.dir, "pods", p.UID.String(), "volumes", "conf", "greeting")
		wait(t, "the volume holds "+content, func() bool { b, err := os.ReadFile(path); return err == nil && string(b) == content })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.pods[p.UID]; s.Restarts() != 0 {
		t.Errorf("a changed ConfigMap restarted the container")
	}
}

// wait polls what can't be waited for.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func stops(t *testing.T, w *world) {
	a, b := w.pod(t, 1, nil, "wait"), w.pod(t, 2, nil, "wait")
	w.assign(a, b)
	w.ready(t, a.UID)
	w.ready(t, b.UID)
	told := *a
	told.Stop = true
	w.assign(&told) // a is told to stop, b isn't assigned any more
	w.until(t, "both are gone", func() bool { return len(w.pods) == 0 })
	o, err := w.rt.Observe(t.Context(), 0)
	if err != nil || len(o.Sandboxes)+len(o.Containers) != 0 {
		t.Errorf("left: %+v %v", o, err)
	}
	for _, dir := range []string{"pods", "logs"} {
		if left, err := os.ReadDir(filepath.Join(w.dir, dir)); err != nil || len(left) != 0 {
			t.Errorf("%s left: %v %v", dir, left, err)
		}
	}
}

func isAdopted(t *testing.T, w *world) {
	p := w.pod(t, 1, nil, "wait")
	w.assign(p)
	w.ready(t, p.UID)
	before, err := w.rt.Observe(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	clear(w.pods)
	w.mu.Unlock()
	w.restart(t)
	w.ready(t, p.UID)
	after, err := w.rt.Observe(t.Context(), 0)
	if err != nil || len(after.Containers) != 1 || !after.Containers[0].StartedAt.Equal(before.Containers[0].StartedAt) {
		t.Errorf("after a restart of the agent: %+v, before: %+v (%v)", after, before, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.reports[len(w.reports)-1]
	if last.Incarnation != 2 || last.Applied != 1 {
		t.Errorf("the new agent reports as %+v", last)
	}
}

func ignoresStale(t *testing.T, w *world) {
	p := w.pod(t, 1, nil, "wait")
	w.gen = 4
	w.assign(p)
	w.ready(t, p.UID)
	w.hub.Assign(w.assignment(3))    // older: without the pod
	w.hub.Assign(w.assignment(5, p)) // the same again
	q := w.pod(t, 2, nil, "wait")
	w.gen = 5
	w.assign(p, q)
	w.ready(t, q.UID)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.pods[p.UID]; !s.Ready || s.Restarts() != 0 {
		t.Errorf("the pod is %+v", s)
	}
	for _, r := range w.reports {
		if len(r.Gone) > 0 {
			t.Errorf("a stale assignment removed a pod")
		}
	}
}

func reportsInFull(t *testing.T, w *world) {
	p := w.pod(t, 1, nil, "wait")
	w.assign(p)
	w.ready(t, p.UID)
	w.mu.Lock()
	n := len(w.reports)
	w.mu.Unlock()
	w.hub.Resync(node)
	full := func() bool {
		for _, r := range w.reports[n:] {
			if r.Full && len(r.Pods) == 1 && r.Pods[0].Ready {
				return true
			}
		}
		return false
	}
	w.until(t, "a full report when asked", full)
	w.mu.Lock()
	n = len(w.reports)
	w.mu.Unlock()
	w.hub.Forget(node) // ends the session; the agent comes back
	w.assign(p)
	w.until(t, "a full report after a reconnect", full)
}

func pullFails(t *testing.T, w *world) {
	p := w.pod(t, 1, func(s *corev1.PodSpec) {
		s.Containers[0].Image = w.Absent.Name
		s.Containers[0].ImagePullPolicy = corev1.PullNever
	}, "wait")
	w.assign(p)
	w.until(t, "the image is said to be missing", func() bool {
		s := w.pods[p.UID]
		return s.Phase == state.Pending && s.Reason == state.ReasonImageNeverPull && s.Message != ""
	})
}

func logs(t *testing.T, w *world) {
	p := w.pod(t, 1, nil, "say", "one", "say", "two", "wait")
	w.assign(p)
	w.ready(t, p.UID)
	want := "two"
	if w.Simulated {
		want = "simulated"
	}
	wait(t, "the output is there", func() bool {
		r, err := w.hub.Logs(t.Context(), node, agent.LogRequest{UID: p.UID, Container: "main", Tail: 1})
		if err != nil {
			return false
		}
		b, err := io.ReadAll(r)
		return err == nil && r.Close() == nil && strings.Contains(string(b), want) && strings.Count(string(b), "\n") == 1
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.hub.Logs(ctx, node, agent.LogRequest{UID: p.UID, Container: "main", Follow: true})
	if err != nil {
		t.Fatalf("follow: %v", err)
	}
	if n, err := r.Read(make([]byte, 3)); n == 0 || err != nil {
		t.Errorf("followed output: %d bytes, %v", n, err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the end of followed output: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	_, err = w.hub.Logs(t.Context(), node, agent.LogRequest{UID: p.UID, Container: "other"})
	if !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("logs of a container that isn't there: %v, want ErrNotFound", err)
	}
	_, err = w.hub.Exec(t.Context(), node, agent.ExecRequest{UID: p.UID, Container: "other", Exec: runtimes.Exec{Command: []string{"x"}}})
	if !errors.Is(err, runtimes.ErrNotFound) && !errors.Is(err, runtimes.ErrUnsupported) {
		t.Errorf("exec in a container that isn't there: %v", err)
	}
}
