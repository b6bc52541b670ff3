package agent_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

func within[T any](t *testing.T, c <-chan T, what string) (got T) {
	t.Helper()
	select {
	case got = <-c:
	case <-time.After(patience):
		t.Fatalf("in vain: %s", what)
	}
	return got
}

// A controller that takes nothing is noticed, also where the agent is just
// sending it more than fits on the way.
func TestASilentControllerIsNoticedWhileSending(t *testing.T) {
	gone := make(chan struct{})
	defer close(gone)
	peer := newUpper()
	_, session := wired(t, agent.HubConfig{Submit: func(events ...state.Event) {
		if _, ok := events[0].(*state.Reported); ok {
			<-gone
		}
	}, Lease: time.Second}, peer)
	words := strings.Repeat("x", 1<<20)
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := uint64(1); err == nil; i++ {
			err = session.Report(t.Context(), &state.Report{Node: "n1", Number: i, Pods: []state.PodStatus{{Message: words, Words: []string{words}}}})
		}
		sent <- err
	}()
	renewed := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = session.Renew(t.Context(), time.Second)
		}
		renewed <- err
	}()
	if err := within(t, peer.lost, "that the session is lost"); !strings.Contains(err.Error(), "not answered") {
		t.Errorf("lost: %v", err)
	}
	for what, end := range map[string]chan error{"report": sent, "renewal": renewed} {
		if err := within(t, end, "the end of a "+what+" that nobody takes"); err == nil {
			t.Errorf("a %s that nobody takes has no error", what)
		}
	}
}

// A deaf link has a controller that takes no report.
type deafLink struct {
	peer chan agent.Peer
	told chan struct{} // one for each session that was told something
}

func (l *deafLink) Open(_ context.Context, _ agent.Hello, p agent.Peer) (agent.Session, error) {
	l.peer <- p
	return &deaf{closed: make(chan struct{}), told: l.told}, nil
}

type deaf struct{ closed, told chan struct{} }

func (*deaf) Welcome() agent.Welcome                     { return agent.Welcome{Renew: time.Second, Lease: time.Hour} }
func (*deaf) Renew(context.Context, time.Duration) error { return nil }
func (d *deaf) Report(context.Context, *state.Report) error {
	d.told <- struct{}{}
	<-d.closed
	return io.ErrClosedPipe
}
func (d *deaf) Close() { close(d.closed) }

func podOf(uid byte, edit func(*corev1.PodSpec)) *state.AssignedPod {
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}}}}
	if edit != nil {
		edit(&spec.Spec)
	}
	t, _ := state.NewTemplate(state.Linux, &spec, []state.Image{{Name: "web:1", Assumed: true}})
	return &state.AssignedPod{
		UID: state.UID{uid}, Key: state.PodKey{Namespace: "prod", Name: "web-" + string(rune('0'+uid))},
		Workload: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web"}, Ordinal: -1, Template: t, Grace: time.Second,
	}
}

// runs waits until the main container of a pod runs.
func runs(t *testing.T, rt runtimes.Runtime, uid byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for after := uint64(0); ; {
		o, err := rt.Observe(ctx, after)
		if err != nil {
			t.Fatalf("pod %d does not run: %v", uid, err)
		}
		for i := range o.Containers {
			if c := &o.Containers[i]; c.UID == (state.UID{uid}) && c.Running {
				return
			}
		}
		after = o.Version
	}
}

func started(t *testing.T, rt runtimes.Runtime, parallel int) agent.Peer {
	t.Helper()
	peer, _ := startedIn(t, t.TempDir(), rt, parallel)
	return peer
}

func startedIn(t *testing.T, dir string, rt runtimes.Runtime, parallel int) (agent.Peer, <-chan struct{}) {
	t.Helper()
	link := &deafLink{peer: make(chan agent.Peer, 1), told: make(chan struct{}, 10)}
	run(t, agent.Config{Node: "n1", Dir: dir, Runtime: rt, Link: link, BootID: "b", Parallel: parallel})
	return within(t, link.peer, "that the agent connects"), link.told
}

// run runs an agent until the test ends.
func run(t *testing.T, config agent.Config) {
	t.Helper()
	a, err := agent.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Pods are looked after while the controller takes no reports.
func TestAControllerThatTakesNoReportsKeepsNothing(t *testing.T) {
	rt := simulated.New(simulated.Options{})
	peer := started(t, rt, 0)
	pods := []*state.AssignedPod{podOf(1, nil)}
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: pods})
	runs(t, rt, 1) // by now reports are on their way
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 2, Pods: append(pods, podOf(2, nil))})
	runs(t, rt, 2)
}

// A hooked runtime runs commands in containers for as long as they like.
type hooked struct {
	*simulated.Runtime
	begun chan struct{}
	end   chan struct{}
}

func (h *hooked) Describe(ctx context.Context) (state.NodeFacts, error) {
	f, err := h.Runtime.Describe(ctx)
	f.Simulated = false
	return f, err
}

func (h *hooked) Exec(ctx context.Context, _ state.UID, _ string, _ runtimes.Exec) (int, error) {
	close(h.begun)
	select {
	case <-h.end:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// A hook may wait for another pod of its node: it takes no place that one needs.
func TestAHookKeepsNoPodFromBeginning(t *testing.T) {
	rt := &hooked{Runtime: simulated.New(simulated.Options{}), begun: make(chan struct{}), end: make(chan struct{})}
	defer close(rt.end)
	peer := started(t, rt, 1)
	first := podOf(1, func(s *corev1.PodSpec) {
		s.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"wait-for-db"}}}}
	})
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: []*state.AssignedPod{first}})
	within(t, rt.begun, "the hook")
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 2, Pods: []*state.AssignedPod{first, podOf(2, nil)}})
	runs(t, rt, 2)
}

// A boxed runtime makes no sandbox of pod 2.
type boxed struct {
	*simulated.Runtime
	begun chan struct{}
}

func (b *boxed) Sandbox(ctx context.Context, s runtimes.Sandbox) (runtimes.SandboxStatus, error) {
	if s.UID == (state.UID{2}) {
		close(b.begun)
		<-ctx.Done()
		return runtimes.SandboxStatus{}, ctx.Err()
	}
	return b.Runtime.Sandbox(ctx, s)
}

// A container starts while sandboxes of other pods are made.
func TestASandboxKeepsNoContainerFromBeginning(t *testing.T) {
	rt := &boxed{Runtime: simulated.New(simulated.Options{}), begun: make(chan struct{})}
	peer := started(t, rt, 1)
	first := podOf(1, nil)
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: []*state.AssignedPod{first}})
	runs(t, rt, 1)
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 2, Pods: []*state.AssignedPod{first, podOf(2, nil)}})
	within(t, rt.begun, "the sandbox")
	rt.Kill(state.UID{1}, "main", 1)
	runs(t, rt, 1)
}

// A hook may take as long as its pod lives, as under Kubernetes.
func TestAHookHasNoLimit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		rt := &hooked{Runtime: simulated.New(simulated.Options{}), begun: make(chan struct{}), end: make(chan struct{})}
		if _, err := rt.Sandbox(t.Context(), runtimes.Sandbox{UID: state.UID{1}}); err != nil {
			t.Fatal(err)
		}
		if err := rt.Pull(t.Context(), runtimes.Image{Name: "web:1"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		told, wait := agent.RunHook(ctx, rt, dir)
		synctest.Wait()
		if said := told(); len(said) > 0 {
			t.Fatalf("the container did not begin: %+v", said[0])
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if said := told(); len(said) > 0 {
			t.Errorf("the hook was ended: %+v", said[0])
		}
		close(rt.end)
		synctest.Wait()
		if said := told(); len(said) != 1 || said[0].(*step.Done).Text != "" {
			t.Errorf("told %+v", said)
		}
		cancel()
		wait()
	})
}

// holder is a node whose commands and ports go on for as long as they may.
type holder struct {
	*upper
	begun, over chan string
}

func (h *holder) hold(ctx context.Context, what string) {
	h.begun <- what
	<-ctx.Done()
	h.over <- what
}

func (h *holder) Exec(ctx context.Context, _ agent.ExecRequest) (int, error) {
	h.hold(ctx, "exec")
	return 0, ctx.Err()
}

func (h *holder) PortForward(ctx context.Context, _ state.UID, _ uint16, _ io.ReadWriteCloser) error {
	h.hold(ctx, "port")
	return ctx.Err()
}

// endless is input that never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// What somebody asked for on a node ends when they have gone, also where nothing
// reads what they sent.
func TestWhoHasGoneLeavesNothingRunning(t *testing.T) {
	h := &holder{upper: newUpper(), begun: make(chan string, 2), over: make(chan string, 2)}
	hub, _ := wired(t, agent.HubConfig{}, h)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		_, _ = hub.Exec(ctx, "n1", agent.ExecRequest{Exec: runtimes.Exec{Command: []string{"sleep"}, Stdin: endless{}}})
	}()
	near, far := net.Pipe()
	defer near.Close()
	go func() { _ = hub.PortForward(ctx, "n1", state.UID{}, 80, far) }()
	within(t, h.begun, "the first of both")
	within(t, h.begun, "both")
	leave()
	within(t, h.over, "the end of the first")
	within(t, h.over, "the end of both")
}

// What is left of pods that are nowhere goes also where the agent has lost its
// papers, and is told later what belongs here.
func TestTheSweepWaitsForAnAssignment(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "logs", state.UID{9}.String())
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	rt := simulated.New(simulated.Options{})
	peer, told := startedIn(t, dir, rt, 0)
	within(t, told, "the first report")
	peer.Assign(&state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: []*state.AssignedPod{podOf(1, nil)}})
	for limit := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Lstat(left); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("what was left is there still")
		}
	}
}
