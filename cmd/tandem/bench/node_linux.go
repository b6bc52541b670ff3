package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/containerd/floor"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const (
	machineAddress = "192.0.2.1" // of the documentation's (RFC 5737), in a network of our own
	nodeImage      = "bench.example/prog:1"
	nodeName       = state.NodeName("bench")
	atOnce         = 8 // as many calls of its runtime as an agent makes
	inside         = "TANDEM_TEST_BENCH_INSIDE"
)

// ownNetwork begins this program anew in a network namespace of its own where
// the node is to be measured: its addresses, routes and rules touch nobody's,
// and go with the last process.
func ownNetwork(only string) error {
	if os.Getenv(inside) != "" {
		return loopback()
	}
	if !slices.ContainsFunc(suites(), func(s suite) bool { return strings.HasPrefix(s.name, "node-") && chosen(s.name, only) }) || len(nodeLacks()) > 0 {
		return nil
	}
	runtime.LockOSThread() // the program that replaces this one has this thread's namespaces
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), inside+"=1")) //nolint:gosec // this very program
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(machineAddress + "/32")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, addr))
}

// nodeLacks is what keeps this machine from being a node.
func nodeLacks() []string {
	if ok, why := serve.Usable(); !ok {
		return why
	}
	if os.Geteuid() != 0 {
		return []string{"root"}
	}
	return nil
}

// nodeNetwork measures how Services come into this kernel.
func nodeNetwork(ctx context.Context, b *board) error {
	if lacks := nodeLacks(); len(lacks) > 0 {
		return notMeasured(lacks)
	}
	return endpoints(ctx, b)
}

// nodeStart measures how pods start on one real Linux node: this machine's
// containerd and runc under the agent as a process of its own, and a controller
// here.
func nodeStart(ctx context.Context, b *board) error {
	return onNode(ctx, b, (*nodeWorld).beginFloor, (*nodeWorld).starts)
}

// nodeRest measures how soon pods are Ready, and what an agent costs that just
// has them.
func nodeRest(ctx context.Context, b *board) error {
	return onNode(ctx, b, (*nodeWorld).readiness, (*nodeWorld).resting)
}

func onNode(ctx context.Context, b *board, steps ...func(*nodeWorld, context.Context, *board) error) (err error) {
	if lacks := nodeLacks(); len(lacks) > 0 {
		return notMeasured(lacks)
	}
	w, err := newNodeWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	for _, step := range steps {
		if err := step(w, ctx, b); err != nil {
			return fmt.Errorf("%w\nthe agent said: %s", err, w.said())
		}
	}
	return nil
}

func notMeasured(lacks []string) error {
	_, err := fmt.Fprintf(os.Stderr, "node: not measured, this machine lacks: %s\n", strings.Join(lacks, "; "))
	return err
}

// nodeWorld is a controller, and an agent on this machine.
type nodeWorld struct {
	world

	image    runtimeImage
	wire     *wire
	cancel   context.CancelFunc
	all      sync.WaitGroup
	failure  error
	agent    *exec.Cmd
	gate     *gate
	floor    *floor.Floor
	beside   *containerd.Runtime // what the floor uses
	commits  int
	standing []*state.Object // in every commit
}

type runtimeImage struct {
	store  *images.Store
	digest state.Digest
}

// Look implements act.Images.
func (r runtimeImage) Look(ctx context.Context, name string, _ []*state.Object) state.Image {
	im, err := r.store.Look(ctx, name)
	if err != nil {
		im.Name, im.Failure = name, state.LookupUnavailable
	}
	return im
}

func newNodeWorld(ctx context.Context) (w *nodeWorld, err error) {
	w = &nodeWorld{}
	if w.dir, err = os.MkdirTemp("", "tandem-bench-"); err != nil {
		return nil, err
	}
	for _, begin := range []func(context.Context) error{w.build, w.beginController, w.beginAgent} {
		if err := begin(ctx); err != nil {
			return nil, errors.Join(err, w.end())
		}
	}
	return w, nil
}

// build makes the program under test, and an image.
func (w *nodeWorld) build(ctx context.Context) error {
	for out, what := range map[string]string{"tandem": "cmd/tandem", "prog": "runtimes/runtimetest/prog"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(w.dir, out), "github.com/tandem-gitops/tandem/"+what)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", what, err, text)
		}
	}
	program, err := os.ReadFile(filepath.Join(w.dir, "prog"))
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, "images")
	_, err = images.Write(dir, images.Spec{Name: nodeImage, Variants: []images.Variant{{
		OS: state.Linux, Arch: runtime.GOARCH, Entrypoint: []string{"/prog"}, Cmd: []string{"wait"}, Env: []string{"PATH=/"},
		Files: []images.File{{Path: "prog", Mode: 0o755, Data: program}},
	}}})
	if err != nil {
		return err
	}
	w.image.store = images.New(images.Options{Dirs: []string{dir}, Offline: true})
	found, err := w.image.store.Look(ctx, nodeImage)
	if err != nil {
		return err
	}
	w.image.digest = found.Platforms[0].Digest
	return nil
}

// said is the end of what the agent logged.
func (w *nodeWorld) said() string {
	raw, err := os.ReadFile(w.agentLog())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2000):])
}

func (w *nodeWorld) agentLog() string { return filepath.Join(w.dir, "agent.log") }

func (w *nodeWorld) beginController(ctx context.Context) (err error) {
	if w.data, err = serve.OpenData(filepath.Join(w.dir, "controller"), false); err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	hub := agent.NewHub(agent.HubConfig{Submit: func(e ...state.Event) { w.ctl.Submit(e...) }, Logger: logger})
	w.ctl, err = act.New(ctx, act.Config{
		Log: w.data.Store, Library: w.data.Library, Texts: w.data.Store.Texts(), Nodes: hub, Images: w.image,
		LogID: w.data.Store.ID(), Version: "bench", Logger: logger,
	})
	if err != nil {
		return err
	}
	if w.wire, err = newWire(hub, filepath.Join(w.dir, "controller")); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	w.all.Go(func() { w.failure = w.ctl.Run(run) })
	return nil
}

func (w *nodeWorld) beginAgent(ctx context.Context) error {
	tokens := join.OpenTokens(filepath.Join(w.dir, "controller"), w.wire.authority.Pin())
	drawn, token, err := tokens.Draw("bench", time.Hour, 1, nodeName)
	if err == nil {
		err = tokens.Keep(drawn)
	}
	if err != nil {
		return err
	}
	joining := w.tandem(ctx, "agent", "join", "--server", w.wire.address, "--token", token, "--name", string(nodeName))
	if text, err := joining.CombinedOutput(); err != nil {
		return fmt.Errorf("join: %w\n%s", err, text)
	}
	out, err := os.Create(w.agentLog())
	if err != nil {
		return err
	}
	defer out.Close()
	w.agent = w.tandem(context.WithoutCancel(ctx), "agent", "run", "--address", machineAddress, "--images", filepath.Join(w.dir, "images"), "--log-level", "warn")
	w.agent.Stdout, w.agent.Stderr = out, out
	w.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is ours to answer
	if err := w.agent.Start(); err != nil {
		return err
	}
	err = w.until(ctx, func(s *state.State) bool { n := s.Nodes[nodeName]; return n != nil && n.Ready })
	if err != nil {
		return fmt.Errorf("%w\nthe agent said: %s", err, w.said())
	}
	return nil
}

func (w *nodeWorld) tandem(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(w.dir, "tandem"), append(args, "--data", filepath.Join(w.dir, "agent"))...)
}

// beginFloor opens a containerd that is set up as the agent's is.
func (w *nodeWorld) beginFloor(ctx context.Context, _ *board) (err error) {
	w.beside, err = containerd.Open(ctx, containerd.Options{
		Node: "floor", Dir: filepath.Join(w.dir, "floor"), Images: w.image.store, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := w.beside.Pull(ctx, containerdImage(w.image.digest)); err != nil {
		return err
	}
	w.floor, err = floor.Open(ctx, floor.Options{RunDir: w.beside.RunDir(), Group: w.beside.Group(), Image: w.image.digest})
	return err
}

// end stops everything and leaves nothing, however far it came.
func (w *nodeWorld) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	if w.agent != nil && w.agent.Process != nil {
		errs = append(errs, w.agent.Process.Signal(syscall.SIGTERM), w.agent.Wait())
		if text, err := w.tandem(ctx, "agent", "leave").CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("leave: %w\n%s", err, text))
		}
	}
	if w.gate != nil {
		errs = append(errs, w.gate.server.Close())
	}
	if w.floor != nil {
		errs = append(errs, w.floor.Close())
	}
	if w.beside != nil {
		errs = append(errs, w.beside.Shutdown(ctx))
	}
	if w.cancel != nil {
		w.cancel()
		w.all.Wait()
		errs = append(errs, w.failure, w.wire.close())
	}
	if w.data != nil {
		errs = append(errs, w.data.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// want commits what stands and more.
func (w *nodeWorld) want(more ...*state.Object) {
	w.commits++
	w.commit(w.commits, slices.Concat(w.standing, more)...)
}

// starts measures how long pods take until they are durably Running, of a
// Deployment whose image is present, against containers made by hand. What else
// the machine does changes from second to second, so each round is held against
// its own floor, which comes before the pods and after them in turns.
func (w *nodeWorld) starts(ctx context.Context, b *board) error {
	w.want(plain("start", 1))
	if err := w.untilRunning(ctx, 1); err != nil { // the image is there now
		return err
	}
	for _, n := range []int{1, 20, 50} {
		rounds := 10
		if n == 1 {
			rounds = 20
		}
		var byHand, pods, times []time.Duration
		for round := range rounds {
			low, took, err := w.round(ctx, n, round%2 == 0)
			if err != nil {
				return err
			}
			byHand, pods, times = append(byHand, low), append(pods, took), append(times, time.Duration(float64(took)/float64(low)*float64(time.Second)))
		}
		b.atMost(fmt.Sprintf("floor: %d containers by hand, median of %d", n, rounds), ms(median(byHand)), "ms", 0)
		b.atMost(fmt.Sprintf("%d pods from the commit to Running, durable", n), ms(median(pods)), "ms", 0)
		b.atMost(fmt.Sprintf("%d pods against the floor", n), median(times).Seconds(), "times", 1.2)
	}
	w.want(plain("start", 0))
	return w.untilRunning(ctx, 0)
}

// round starts n containers by hand and n pods, one after the other.
func (w *nodeWorld) round(ctx context.Context, n int, handFirst bool) (byHand, pods time.Duration, err error) {
	hand := func() (err error) {
		if byHand, err = w.floor.Start(ctx, n, atOnce); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
		return nil
	}
	w.want(plain("start", 0))
	if err := w.untilRunning(ctx, 0); err != nil {
		return 0, 0, err
	}
	if handFirst {
		if err := hand(); err != nil {
			return 0, 0, err
		}
	}
	start := time.Now()
	w.want(plain("start", int32(n))) //nolint:gosec // up to 50
	if err := w.untilRunning(ctx, n); err != nil {
		return 0, 0, err
	}
	pods = time.Since(start)
	if handFirst {
		return byHand, pods, nil
	}
	w.want(plain("start", 0))
	if err := w.untilRunning(ctx, 0); err != nil {
		return 0, 0, err
	}
	return byHand, pods, hand()
}

// untilRunning waits until the Deployment "start" has so many pods, and all of them run.
func (w *nodeWorld) untilRunning(ctx context.Context, n int) error {
	err := w.until(ctx, func(s *state.State) bool {
		all, run := 0, 0
		for _, p := range s.Pods {
			if p.Workload.Name != "start" {
				continue
			}
			all++
			if p.Phase == state.Running && !p.Stopping {
				run++
			}
		}
		return all == n && run == n
	})
	if err != nil {
		return fmt.Errorf("%d pods of start: %w", n, err)
	}
	return nil
}
