package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// An upper is a node whose every command answers in capitals.
type upper struct {
	assigned chan *state.Assignment
	lost     chan error
}

func newUpper() *upper {
	return &upper{assigned: make(chan *state.Assignment, 100), lost: make(chan error, 10)}
}

func (u *upper) Assign(a *state.Assignment) { u.assigned <- a }
func (u *upper) Resync()                    {}
func (u *upper) Lost(err error)             { u.lost <- err }

func (u *upper) Logs(_ context.Context, r agent.LogRequest) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(strings.Repeat("line of "+r.Container+"\n", 10_000))), nil
}

func (u *upper) Exec(_ context.Context, r agent.ExecRequest) (int, error) {
	switch r.Command[0] {
	case "upper":
		b, err := io.ReadAll(r.Stdin)
		if err != nil {
			return 0, err
		}
		_, err = r.Stdout.Write(bytes.ToUpper(b))
		fmt.Fprint(r.Stderr, "done")
		return 3, err
	case "size":
		s := <-r.Resize
		fmt.Fprintf(r.Stdout, "%dx%d", s.Width, s.Height)
		return 0, nil
	default:
		return 0, fmt.Errorf("no command %s: %w", r.Command[0], runtimes.ErrNotFound)
	}
}

func (u *upper) PortForward(_ context.Context, _ state.UID, port uint16, conn io.ReadWriteCloser) error {
	if port != 80 {
		return errors.Join(conn.Close(), fmt.Errorf("nothing listens on %d: %w", port, runtimes.ErrUnavailable))
	}
	b := make([]byte, 1<<10)
	for {
		n, err := conn.Read(b)
		if _, werr := conn.Write(bytes.ToUpper(b[:n])); err != nil || werr != nil {
			return conn.Close()
		}
	}
}

func wired(t *testing.T, cfg agent.HubConfig, peer agent.Peer) (*agent.Hub, agent.Session) {
	t.Helper()
	hub, conn := serving(t, cfg)
	session, err := agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n1", Facts: state.NodeFacts{OS: state.Linux}}, peer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return hub, session
}

// serving is a hub on the wire, and a connection of node n1 to it.
func serving(t *testing.T, cfg agent.HubConfig) (*agent.Hub, *grpc.ClientConn) {
	t.Helper()
	if cfg.Submit == nil {
		cfg.Submit = func(...state.Event) {}
	}
	hub := agent.NewHub(cfg)
	s := grpc.NewServer()
	hub.Register(s, func(context.Context) (state.NodeName, error) { return "n1", nil })
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
	return hub, conn
}

func TestExecAcrossTheWire(t *testing.T) {
	hub, _ := wired(t, agent.HubConfig{}, newUpper())
	var out, errs bytes.Buffer
	input := strings.Repeat("hello ", 50_000)
	code, err := hub.Exec(t.Context(), "n1", agent.ExecRequest{Exec: runtimes.Exec{
		Command: []string{"upper"}, Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs,
	}})
	if err != nil || code != 3 || out.String() != strings.ToUpper(input) || errs.String() != "done" {
		t.Errorf("code %d, %d bytes, %q: %v", code, out.Len(), errs.String(), err)
	}
	out.Reset()
	sizes := make(chan runtimes.Size, 1)
	sizes <- runtimes.Size{Width: 80, Height: 24}
	if _, err := hub.Exec(t.Context(), "n1", agent.ExecRequest{Exec: runtimes.Exec{Command: []string{"size"}, Stdout: &out, Resize: sizes}}); err != nil ||
		out.String() != "80x24" {
		t.Errorf("size %q: %v", out.String(), err)
	}
	if _, err := hub.Exec(t.Context(), "n1", agent.ExecRequest{Exec: runtimes.Exec{Command: []string{"x"}}}); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("error's class is lost: %v", err)
	}
	if _, err := hub.Exec(t.Context(), "n2", agent.ExecRequest{}); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("a node that isn't connected: %v", err)
	}
}

func TestLogsAcrossTheWire(t *testing.T) {
	hub, _ := wired(t, agent.HubConfig{}, newUpper())
	r, err := hub.Logs(t.Context(), "n1", agent.LogRequest{Container: "main"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || bytes.Count(b, []byte("line of main\n")) != 10_000 {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestPortForwardAcrossTheWire(t *testing.T) {
	hub, _ := wired(t, agent.HubConfig{}, newUpper())
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- hub.PortForward(t.Context(), "n1", state.UID{}, 80, far) }()
	go func() { _, _ = near.Write([]byte("hello")) }()
	b := make([]byte, 5)
	if _, err := io.ReadFull(near, b); err != nil || string(b) != "HELLO" {
		t.Errorf("%q: %v", b, err)
	}
	_ = near.Close()
	if err := <-done; err != nil {
		t.Errorf("port-forward: %v", err)
	}
	near, far = net.Pipe()
	defer near.Close()
	if err := hub.PortForward(t.Context(), "n1", state.UID{}, 81, far); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("a port that nothing listens on: %v", err)
	}
}

func TestDeltasMakeTheWhole(t *testing.T) {
	u := newUpper()
	hub, _ := wired(t, agent.HubConfig{}, u)
	tm, _ := state.NewTemplate(state.Linux, &podTemplate, nil)
	pod := func(n byte, stop bool) *state.AssignedPod {
		return &state.AssignedPod{UID: state.UID{n}, Key: state.PodKey{Namespace: "a", Name: string('a' + rune(n))}, Template: tm, Stop: stop, Grace: time.Second}
	}
	one, two, three := pod(1, false), pod(2, false), pod(3, false)
	for seq, pods := range [][]*state.AssignedPod{{one}, {one, two}, {two}, {pod(2, true), three}, {}, {one, two, three}} {
		hub.Assign(state.Assignment{Node: "n1", Epoch: 1, Generation: uint64(seq + 1), Seq: state.Seq(seq + 1), Pods: pods})
		var got *state.Assignment
		for got == nil || got.Seq != state.Seq(seq+1) {
			got = <-u.assigned
		}
		if len(got.Pods) != len(pods) {
			t.Fatalf("assignment %d has %d pods, want %d", seq+1, len(got.Pods), len(pods))
		}
		for i, p := range got.Pods {
			want := *pods[i]
			have := *p
			have.Template = want.Template
			if have != want || p.Template.Digest != tm.Digest {
				t.Errorf("pod %d is %+v, want %+v", i, have, want)
			}
		}
	}
}

// Over the wire, too, an agent is told which log its controller has, and one that
// has seen more of it is not taken in: decision 15.
func TestAnotherLogIsRefusedAcrossTheWire(t *testing.T) {
	head := agent.Head{Log: state.Digest{1}, Size: 10, Root: state.Digest{2}}
	_, conn := serving(t, agent.HubConfig{Submit: func(...state.Event) {}, Head: func() agent.Head { return head }})
	session, err := agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n1"}, newUpper())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if got := session.Welcome().Head; got != head {
		t.Errorf("the agent was told of %+v, want %+v", got, head)
	}
	_, err = agent.Remote(conn).Open(t.Context(), agent.Hello{Node: "n1", Head: agent.Head{Log: head.Log, Size: 11}}, newUpper())
	if !errors.Is(err, runtimes.ErrRejected) || !strings.Contains(err.Error(), "an old copy was restored") {
		t.Errorf("a controller whose log is shorter than this node has seen: %v", err)
	}
}

func TestAnotherLogIsRefused(t *testing.T) {
	head := agent.Head{Log: state.Digest{1}, Size: 10, Root: state.Digest{2}}
	hub := agent.NewHub(agent.HubConfig{Submit: func(...state.Event) {}, Head: func() agent.Head { return head }})
	for name, tc := range map[string]struct {
		known agent.Head
		ok    bool
	}{
		"nothing known": {agent.Head{}, true}, "the same": {head, true}, "it grew": {agent.Head{Log: head.Log, Size: 9}, true},
		"another log": {agent.Head{Log: state.Digest{9}, Size: 1}, false}, "a shorter copy": {agent.Head{Log: head.Log, Size: 11}, false},
		"another root": {agent.Head{Log: head.Log, Size: 10, Root: state.Digest{3}}, false},
	} {
		s, err := hub.Link().Open(t.Context(), agent.Hello{Node: "n1", Head: tc.known}, newUpper())
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, runtimes.ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
		if s != nil && err == nil {
			s.Close()
		}
	}
}
