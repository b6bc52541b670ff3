package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// A wire is the only way from an agent to its controller. It can be cut: then
// nothing passes and nobody is told.
type wire struct {
	l   net.Listener
	to  atomic.Pointer[string]
	cut atomic.Bool
	all sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l, conns: map[net.Conn]bool{}}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.drop()
		w.all.Wait()
	})
	return w
}

func (w *wire) keep(c net.Conn, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on {
		w.conns[c] = true
	} else {
		delete(w.conns, c)
	}
}

func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

func (w *wire) accept() {
	for {
		in, err := w.l.Accept()
		if err != nil {
			return
		}
		to := w.to.Load()
		if to == nil || w.cut.Load() {
			w.keep(in, true) // it hangs
			continue
		}
		out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", *to)
		if err != nil {
			_ = in.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			w.keep(pair[0], true)
			w.all.Go(func() {
				w.copy(pair[0], pair[1])
				_, _ = in.Close(), out.Close()
				w.keep(pair[0], false)
			})
		}
	}
}

func (w *wire) copy(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if w.cut.Load() {
			continue // swallowed
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// A lost is a controller with a simulated node, and a real node on a wire: what
// can get lost.
type lost struct {
	t          *testing.T
	bin        string
	dir        string
	path       string           // of programs that the agent finds
	os         string           // of both nodes
	bootID     string           // of the real node; empty: this machine's
	windows    *hcstest.Machine // that the real node is, if it is none of Linux
	out        map[string]*bytes.Buffer
	wire       *wire
	controller *exec.Cmd
	agent      *exec.Cmd
}

const identity = `apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: db
  annotations: {tandem.dev/node-loss: %s}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      os: {name: %s}
      terminationGracePeriodSeconds: 3
      containers: [{name: db, image: "shop.example/db:2.0.0"}]
`

func newLost(t *testing.T, class string) *lost {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "containerd", "runc", "nft")
	n := makeLost(t, class, "linux")
	n.mend()
	n.begin()
	return n
}

// newLostWindows has a Windows machine under Wine as its real node.
func newLostWindows(t *testing.T, class string) *lost {
	t.Helper()
	machine := hcstest.New(t)
	n := makeLost(t, class, "windows")
	n.windows = machine
	if err := hcstest.Build(t.Context(), n.in("tandem.exe"), "github.com/tandem-gitops/tandem/cmd/tandem"); err != nil {
		t.Fatal(err)
	}
	n.begin()
	return n
}

func makeLost(t *testing.T, class, system string) *lost {
	t.Helper()
	n := &lost{t: t, dir: t.TempDir(), os: system, wire: newWire(t), out: map[string]*bytes.Buffer{"controller": {}, "agent": {}}}
	n.bin, n.path = filepath.Join(n.dir, "tandem"), filepath.Join(n.dir, "bin")
	n.install("1.0.0")
	goTool(t, "run", "github.com/tandem-gitops/tandem/examples/shop/images/mkimages", "-out", n.in("images"), "-web", "1.0.0", "-db", "2.0.0")
	for _, dir := range []string{n.path, n.in("root")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(n.in("root/db.yaml"), fmt.Appendf(nil, identity, class, system), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// begin starts both ends and has db-0 on the real node.
func (n *lost) begin() {
	n.t.Helper()
	n.t.Cleanup(n.end)
	n.control()
	token := strings.TrimSpace(n.tandem("agent", "token", "create", "--data", n.in("controller")))
	if out, err := n.real("agent", "join", "--server", n.wire.l.Addr().String(), "--token", token, "--name", "real", "--data", n.at("agent")).CombinedOutput(); err != nil {
		n.t.Fatalf("join: %v\n%s", err, out)
	}
	n.join()
	n.back()
}

// other is the simulated node.
func (n *lost) other() string { return n.os + "-1" }

// at is a path of this test as the real node knows it.
func (n *lost) at(name string) string {
	if n.windows != nil {
		return n.windows.Path(n.in(name))
	}
	return n.in(name)
}

// real is a command of the real node.
func (n *lost) real(args ...string) *exec.Cmd {
	ctx := context.WithoutCancel(n.t.Context())
	if n.windows != nil {
		return n.windows.Command(ctx, n.in("tandem.exe"), args...)
	}
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "PATH="+n.path+":"+os.Getenv("PATH"))
	return cmd
}

// install puts a version of the program where the one before it is, as a package
// does: whoever runs that one still does.
func (n *lost) install(version string) {
	n.t.Helper()
	goTool(n.t, "build", "-trimpath", "-ldflags", "-X main.version="+version, "-o", n.bin+".new", "github.com/tandem-gitops/tandem/cmd/tandem")
	if err := os.Rename(n.bin+".new", n.bin); err != nil {
		n.t.Fatal(err)
	}
}

func (n *lost) in(name string) string { return filepath.Join(n.dir, name) }

// mend puts containerd where the agent finds it, and spoil takes it away.
func (n *lost) mend() {
	n.t.Helper()
	real, err := exec.LookPath("containerd")
	if err != nil {
		n.t.Fatal(err)
	}
	link := filepath.Join(n.path, "containerd")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		n.t.Fatal(err)
	}
}

func (n *lost) spoil() {
	n.t.Helper()
	link := filepath.Join(n.path, "containerd")
	if err := os.Remove(link); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(link, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	daemon := (&run{data: n.in("agent")}).containerd()
	if daemon == 0 {
		n.t.Fatal("no containerd of this node was found")
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
}

func (n *lost) start(name string, args ...string) *exec.Cmd {
	n.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(n.t.Context()), n.bin, args...)
	cmd.Stdout, cmd.Stderr = n.out[name], n.out[name]
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return cmd
}

func (n *lost) tandem(args ...string) string {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), n.bin, args...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			out = exit.Stderr
		}
		n.t.Fatalf("tandem %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *lost) act(verb, node string) {
	n.t.Helper()
	n.tandem("node", verb, node, "--reason", "test", "--data", n.in("controller"))
}

func (n *lost) control() {
	n.t.Helper()
	if err := os.Remove(n.in("controller/kubeconfig")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	n.controller = n.start("controller", "controller", n.in("root"), "--simulate", n.os+"=1", "--images", n.in("images"), "--data", n.in("controller"), "--listen", "127.0.0.1:0")
	n.until("the controller answers", func() bool {
		config, err := clientcmd.BuildConfigFromFlags("", n.in("controller/kubeconfig"))
		if err != nil {
			return false
		}
		u, err := url.Parse(config.Host)
		if err != nil {
			return false
		}
		n.wire.to.Store(&u.Host)
		_, err = n.pods()
		return err == nil
	})
}

func (n *lost) join() {
	n.t.Helper()
	n.agent = n.real("agent", "run", "--data", n.at("agent"), "--images", n.at("images"), "--metrics", metricsAt, "--boot-id", n.bootID)
	// A file: whatever outlives the agent holds it too, and Wait would wait for all of that.
	out, err := os.OpenFile(n.in("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	n.agent.Stdout, n.agent.Stderr = out, out
	if err := n.agent.Start(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *lost) end() {
	if n.windows == nil {
		n.mend()
	}
	n.wire.cut.Store(false)
	for _, cmd := range []*exec.Cmd{n.agent, n.controller} {
		if cmd != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGCONT)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	if n.agent != nil {
		if out, err := n.real("agent", "leave", "--data", n.at("agent")).CombinedOutput(); err != nil {
			n.t.Errorf("agent leave: %v\n%s", err, out)
		}
	}
	if n.t.Failed() {
		n.t.Logf("the controller said:\n%s", n.out["controller"])
		for _, name := range []string{"agent.log", "agent/fencer.log"} {
			said, _ := os.ReadFile(n.in(name))
			n.t.Logf("%s:\n%s", name, said)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.Context()), patience)
	defer cancel()
	if n.windows != nil {
		n.leftOnWindows(ctx)
		return
	}
	node := n.machine()
	node.Marks = append(node.Marks, n.dir)
	left, err := node.Left(ctx, nil)
	if err != nil {
		n.t.Error(err)
	}
	if len(left) > 0 {
		n.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		node.Wipe(ctx)
	}
}

// machine is whatever on this machine is the real node's.
func (n *lost) machine() hosttest.Node {
	return hosttest.Node{Marks: []string{n.in("agent"), hosttest.ID(n.in("agent/containerd")), hosttest.ID(n.in("agent"))}}
}

func (n *lost) leftOnWindows(ctx context.Context) {
	left, err := n.windows.Left(ctx)
	if err != nil || len(left) > 0 {
		n.t.Errorf("left on the Windows machine: %v (%v)", left, err)
	}
	if running, err := n.windows.Programs(); err != nil || len(running) > 0 {
		n.t.Errorf("these run on the Windows machine: %q (%v)", running, err)
	}
}

func (n *lost) pods() (list corev1.PodList, err error) {
	return list, n.get("/api/v1/namespaces/default/pods", &list)
}

// ready says whether the controller hears the real node.
func (n *lost) ready() bool {
	var node corev1.Node
	if n.get("/api/v1/nodes/real", &node) != nil {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			return false // neither ready nor fenced
		}
	}
	return len(node.Status.Conditions) > 1
}

// get asks the API.
func (n *lost) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", n.in("controller/kubeconfig"))
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	return err
}

// runsOn is the node that db-0 is ready on; empty: none.
func (n *lost) runsOn() string {
	list, err := n.pods()
	if err != nil {
		return ""
	}
	for i := range list.Items {
		for _, c := range list.Items[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && list.Items[i].DeletionTimestamp == nil {
				return list.Items[i].Spec.NodeName
			}
		}
	}
	return ""
}

// processes are those of pods on the real node, as the kernel knows them.
func (n *lost) processes() []int {
	if n.windows != nil {
		running, err := n.windows.Processes()
		if err != nil {
			n.t.Fatal(err)
		}
		var pids []int
		for pid, line := range running {
			if !strings.Contains(line, " agent ") { // neither the agent nor what it starts beside pods
				pids = append(pids, pid)
			}
		}
		slices.Sort(pids)
		return pids
	}
	files, _ := filepath.Glob("/sys/fs/cgroup/pids/tandem/real.*/*/*/cgroup.procs")
	more, _ := filepath.Glob("/sys/fs/cgroup/tandem/real.*/*/*/cgroup.procs")
	var pids []int
	for _, f := range append(files, more...) {
		raw, _ := os.ReadFile(f)
		for text := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(text); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (n *lost) until(what string, holds func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	n.t.Fatalf("not within %s: %s", patience, what)
}

// fenced waits until db-0 has moved, and holds it to the law: dead by the end of
// the lease, before another copy begins, which is within the class's bound.
func (n *lost) fenced(since time.Time, length, recovery time.Duration) {
	n.t.Helper()
	var dead time.Time
	n.until("db-0 runs elsewhere", func() bool {
		alive := len(n.processes()) > 0
		if !alive && dead.IsZero() {
			dead = time.Now()
		}
		where := n.runsOn()
		if alive && len(n.processes()) > 0 && where == n.other() {
			n.t.Fatal("two copies run")
		}
		return where == n.other()
	})
	switch took := dead.Sub(since); {
	case dead.IsZero():
		n.t.Error("nobody saw it dead before it ran elsewhere")
	case took > length:
		n.t.Errorf("dead after %s, want at most %s", took, length)
	default:
		n.t.Logf("dead after %s, elsewhere after %s", took.Round(10*time.Millisecond), time.Since(since).Round(10*time.Millisecond))
	}
	if took := time.Since(since); took > recovery {
		n.t.Errorf("elsewhere after %s, want at most %s", took, recovery)
	}
}

// back takes db-0 to the real node again.
func (n *lost) back() {
	n.t.Helper()
	n.until("the real node is there again, and runs nothing", func() bool {
		return len(n.processes()) == 0 && n.ready()
	})
	n.act("drain", n.other())
	n.until("db-0 is back on the real node", func() bool { return n.runsOn() == "real" && len(n.processes()) > 0 })
	n.act("uncordon", n.other())
}

// TestLostNode loses a real node in the ways that its own agent can't answer
// for: a fencer ends the identity in time, and one copy runs at any time.
func TestLostNode(t *testing.T) {
	class, length, recovery := "failover-fast", 20*time.Second, 30*time.Second
	if os.Getenv("TANDEM_SOAK") == "1" {
		class, length, recovery = "failover", 60*time.Second, 75*time.Second
	}
	n := newLost(t, class)
	before := n.processes()

	t.Log("the controller is killed, and another goes on at once")
	_ = n.controller.Process.Kill()
	_ = n.controller.Wait()
	n.control()
	n.until("the node is ready", func() bool { return n.runsOn() == "real" })

	t.Log("the agent hangs")
	if err := n.agent.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if now := n.processes(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("a killed controller restarted the identity: processes %v, then %v", before, now)
	}
	n.fenced(time.Now(), length, recovery)
	if err := n.agent.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	n.back()

	t.Log("the network is cut, and containerd is gone for good")
	n.wire.cut.Store(true)
	cut := time.Now()
	n.spoil()
	n.fenced(cut, length, recovery)
	n.mend()
	n.wire.drop()
	n.wire.cut.Store(false)
	n.back()

	t.Log("the controller stops cleanly, and comes back after the lease")
	before = n.processes()
	if err := n.controller.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = n.controller.Wait()
	for end := time.Now().Add(length + 3*time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := n.processes(); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Fatalf("the identity was restarted while the controller was parked: processes %v, then %v", before, now)
		}
	}
	n.control()
	n.until("db-0 is still there", func() bool { return n.runsOn() == "real" })
	if now := n.processes(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the identity was restarted: processes %v, then %v", before, now)
	}
}

// TestLostWindowsNode loses a Windows node in the ways that its own agent can't
// answer for: its fencer ends the identity in time, through the compute service
// and past it, and one copy runs at any time.
func TestLostWindowsNode(t *testing.T) {
	class, length, recovery := "failover-fast", 20*time.Second, 30*time.Second
	if os.Getenv("TANDEM_SOAK") == "1" {
		class, length, recovery = "failover", 60*time.Second, 75*time.Second
	}
	n := newLostWindows(t, class)

	t.Log("the agent hangs")
	if err := n.agent.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.fenced(time.Now(), length, recovery)
	if err := n.agent.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	n.back()

	t.Log("the agent is killed, and so are Windows' services")
	_ = n.agent.Process.Kill()
	_ = n.agent.Wait()
	killed := time.Now()
	if err := n.windows.KillBroker(); err != nil {
		t.Fatal(err)
	}
	n.fenced(killed, length, recovery)
	if err := n.windows.StartBroker(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.join()
	n.back()

	t.Log("the network is cut")
	n.wire.cut.Store(true)
	n.fenced(time.Now(), length, recovery)
	n.wire.drop()
	n.wire.cut.Store(false)
	n.back()

	t.Log("an agent that is killed and back within its lease restarts nothing")
	before := n.processes()
	_ = n.agent.Process.Kill()
	_ = n.agent.Wait()
	n.join()
	for end := time.Now().Add(length + 3*time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := n.processes(); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Fatalf("the identity was restarted: processes %v, then %v", before, now)
		}
	}
	n.until("db-0 is still there", func() bool { return n.runsOn() == "real" })
}
