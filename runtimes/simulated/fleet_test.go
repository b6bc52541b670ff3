package simulated_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// A control plane that keeps the last word on every pod.
type controller struct {
	mu      sync.Mutex
	pods    map[state.UID]state.PodStatus
	renewed int
	hellos  int
	full    int
	changed chan struct{}
}

func newController() *controller {
	return &controller{pods: map[state.UID]state.PodStatus{}, changed: make(chan struct{}, 1)}
}

func (c *controller) submit(events ...state.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		switch e := e.(type) {
		case *state.NodeHello:
			c.hellos++
		case *state.Renewed:
			c.renewed++
		case *state.Reported:
			if e.Report.Full {
				c.full++
			}
			for _, p := range e.Report.Pods {
				c.pods[p.UID] = p
			}
			for _, u := range e.Report.Gone {
				delete(c.pods, u)
			}
		}
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *controller) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		ok := holds()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (c *controller) count(match func(state.PodStatus) bool) int {
	n := 0
	for _, p := range c.pods {
		if match(p) {
			n++
		}
	}
	return n
}

func ready(p state.PodStatus) bool { return p.Ready }

func template(edit func(*corev1.PodSpec)) *state.Template {
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "web", Image: "shop.example/web:1", ReadinessProbe: &corev1.Probe{InitialDelaySeconds: 5},
	}}}}
	if edit != nil {
		edit(&spec.Spec)
	}
	t, _ := state.NewTemplate(state.AnyOS, &spec, nil)
	return t
}

func assignment(node state.NodeName, gen uint64, t *state.Template, first, n int) state.Assignment {
	a := state.Assignment{Node: node, Epoch: 1, Generation: gen, Seq: state.Seq(gen)}
	for i := range n {
		uid := state.UID{byte(first >> 16), byte(first >> 8), byte(first), byte(i)}
		a.Pods = append(a.Pods, &state.AssignedPod{
			UID: uid, Key: state.PodKey{Namespace: "prod", Name: fmt.Sprintf("web-%d-%d", first, i)},
			Workload: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web"}, Ordinal: -1, Template: t,
		})
	}
	return a
}

func TestFleetRunsThousandsOfPods(t *testing.T) {
	const nodes, each = 1000, 10
	c := newController()
	hub := agent.NewHub(agent.HubConfig{Submit: c.submit, Renew: 200 * time.Millisecond})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := simulated.NewFleet(simulated.FleetOptions{})
	run(t, f)
	started := time.Now()
	tm := template(nil)
	for i := range nodes {
		name := state.NodeName(fmt.Sprintf("n%d", i))
		f.Add(name, simulated.Facts(state.Windows, "amd64", ""), hub.Link())
		hub.Assign(assignment(name, 1, tm, i, each))
	}
	c.until(t, "all pods ready", func() bool { return c.count(ready) == nodes*each })
	took := time.Since(started)
	c.until(t, "every node renews", func() bool { return c.renewed >= nodes })
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d pods on %d nodes ready in %v, %d MB", nodes*each, nodes, took, (after.HeapAlloc-before.HeapAlloc)>>20)
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if mb := (after.HeapAlloc - before.HeapAlloc) >> 20; mb > 60 {
		t.Errorf("holds %d MB", mb)
	}
}

func run(t *testing.T, f *simulated.Fleet) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestFleetFaults(t *testing.T) {
	c := newController()
	hub := agent.NewHub(agent.HubConfig{Submit: c.submit})
	f := simulated.NewFleet(simulated.FleetOptions{})
	f.Add("n1", simulated.Facts(state.Linux, "amd64", ""), hub.Link())
	run(t, f)
	a := assignment("n1", 1, template(nil), 1, 2)
	hub.Assign(a)
	c.until(t, "ready", func() bool { return c.count(ready) == 2 })
	first := a.Pods[0]

	f.Inject(simulated.Fault{Kind: simulated.Unready, Pod: first.Key})
	c.until(t, "unready", func() bool { return !c.pods[first.UID].Ready && c.pods[first.UID].Reason == state.ReasonUnready })
	f.Heal()
	c.until(t, "ready again", func() bool { return c.count(ready) == 2 })

	f.Kill("n1", first.UID, "web", 3)
	c.until(t, "restarted", func() bool {
		p := c.pods[first.UID]
		return p.Ready && p.Restarts() == 1 && p.Containers[0].LastExit == 3
	})
	f.Kill("n1", first.UID, "web", 3)
	c.until(t, "backs off", func() bool { return c.pods[first.UID].Reason == state.ReasonCrashLoopBackOff })

	f.Lose("n1")
	full := c.full
	for len(hub.Connected()) > 0 {
		runtime.Gosched()
	}
	stop := assignment("n1", 2, template(nil), 1, 1)
	hub.Assign(stop)
	f.Return("n1")
	c.until(t, "full report after the return", func() bool { return c.full > full })
	c.until(t, "the pod that was taken away is gone", func() bool { return len(c.pods) == 1 })
}

func TestFleetAcrossTheWire(t *testing.T) {
	const nodes, each = 200, 10
	c := newController()
	hub := agent.NewHub(agent.HubConfig{Submit: c.submit})
	s := grpc.NewServer()
	hub.Register(s, func(ctx context.Context) (state.NodeName, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return state.NodeName(md.Get("node")[0]), nil
	})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f := simulated.NewFleet(simulated.FleetOptions{})
	run(t, f)
	started := time.Now()
	tm := template(nil)
	for i := range nodes {
		name := state.NodeName(fmt.Sprintf("n%d", i))
		f.Add(name, simulated.Facts(state.Linux, "amd64", ""), named{agent.Remote(conn), string(name)})
		hub.Assign(assignment(name, 1, tm, i, each))
	}
	c.until(t, "all pods ready", func() bool { return c.count(ready) == nodes*each })
	t.Logf("%d pods on %d nodes over gRPC ready in %v", nodes*each, nodes, time.Since(started))
	r, err := hub.Logs(t.Context(), "n7", agent.LogRequest{UID: state.UID{0, 0, 7, 3}, Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || r.Close() != nil || !strings.Contains(string(b), "prod/web-7-3") {
		t.Errorf("logs %q: %v", b, err)
	}
}

// named tells the server its name where a certificate would.
type named struct {
	agent.Link
	node string
}

func (l named) Open(ctx context.Context, hello agent.Hello, peer agent.Peer) (agent.Session, error) {
	return l.Link.Open(metadata.AppendToOutgoingContext(ctx, "node", l.node), hello, peer)
}
