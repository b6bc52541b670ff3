package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// patience bounds every wait of these tests.
const patience = time.Minute

// Where the machines of the test are (RFC 5737's addresses for documentation).
const (
	hubAddress = "192.0.2.1"
	farAddress = "198.51.100.1" // the hub's on the other segment
	apiPort    = "7443"
	// outsidePort of the hub answers over HTTP with the address that it was asked from.
	outsidePort = "8000"
)

// A machine is one node: a network namespace, a data directory, an agent.
type machine struct {
	*space
	name, address string
	data          string
	agent         *process
}

// A cluster is a controller and three machines.
type cluster struct {
	dir      string // everything is below it
	binary   string // tandem
	root     string // what the controller follows
	hub      *space
	machines []*machine
	control  *process
	api      *apiClient
	relay    net.Listener
	names    *dns.Server
	outside  *http.Server
	registry *http.Server
	mended   atomic.Bool // the registry gives all that it has
	tasks    sync.WaitGroup
	kube     string // path of a kubeconfig that works from here
}

// A process is one that the test started.
type process struct {
	cmd *exec.Cmd
	out *syncBuffer
}

// A syncBuffer keeps what a process says.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stop ends a process and waits for it.
func (p *process) stop(sig os.Signal) error {
	if p == nil || p.cmd.ProcessState != nil {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = p.cmd.Wait() }()
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not end", p.cmd), p.cmd.Process.Kill())
	}
}

// start makes the cluster, and ends it with the test.
func start(t *testing.T) *cluster {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "containerd", "runc", "nft", "busybox")
	c := &cluster{dir: t.TempDir()}
	c.root, c.binary = filepath.Join(c.dir, "root"), filepath.Join(c.dir, "tandem")
	t.Cleanup(func() { c.end(t) })
	begin := time.Now()
	var all errgroup.Group
	all.Go(func() error { return goBuild(t.Context(), c.binary, "github.com/tandem-gitops/tandem/cmd/tandem") })
	all.Go(func() error { return writeImages(t.Context(), c.dir) })
	all.Go(func() error { return c.wire() })
	if err := errors.Join(all.Wait(), c.follow()); err != nil {
		t.Fatal(err)
	}
	t.Logf("built after %s", time.Since(begin).Round(time.Millisecond))
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("three nodes after %s", time.Since(begin).Round(time.Millisecond))
	return c
}

func goBuild(ctx context.Context, out, what string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, what)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", what, err, text)
	}
	return nil
}

// wire makes the namespaces and the segment that joins them.
func (c *cluster) wire() error {
	var err error
	if c.hub, err = newSpace(); err != nil {
		return err
	}
	// Two nodes are on one segment, the third is behind a router.
	if err := errors.Join(c.hub.bridge("seg0", hubAddress+"/24"), c.hub.bridge("seg1", farAddress+"/24")); err != nil {
		return err
	}
	for i := range 3 {
		m := &machine{name: fmt.Sprintf("node-%d", i+1), address: fmt.Sprintf("192.0.2.%d", 11+i)}
		m.data = filepath.Join(c.dir, m.name)
		if m.space, err = newSpace(); err != nil {
			return err
		}
		c.machines = append(c.machines, m)
		segment, router := "seg0", hubAddress
		if i == 2 {
			m.address, segment, router = "198.51.100.13", "seg1", farAddress
		}
		if err := c.hub.plug(segment, m.space, m.name, m.address+"/24", router); err != nil {
			return err
		}
	}
	return c.serveNames()
}

// follow writes the root: every directory of checks is an Application.
func (c *cluster) follow() error {
	const set = `apiVersion: tandem.dev/v1
kind: ApplicationSet
metadata: {name: checks}
spec:
  paths: [checks/*]
  template:
    metadata: {name: "{1}"}
    spec: {namespace: "{1}"}
`
	return errors.Join(
		os.MkdirAll(filepath.Join(c.root, "checks"), 0o755),
		os.WriteFile(filepath.Join(c.root, "set.yaml"), []byte(set), 0o644),
		os.WriteFile(filepath.Join(c.dir, "resolv.conf"), []byte("nameserver "+hubAddress+"\nsearch corp.example\n"), 0o644),
	)
}

// tandem is a command of the program under test.
func (c *cluster) tandem(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "SSL_CERT_FILE="+c.caFile())
	return cmd
}

// launch starts a process that outlives the test's context: it is ended in order.
func (c *cluster) launch(s *space, args ...string) (*process, error) {
	p := &process{cmd: c.tandem(context.Background(), args...), out: &syncBuffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the test's to answer
	return p, s.start(p.cmd)
}

// in runs a command of the program to its end in a namespace.
func (c *cluster) in(ctx context.Context, s *space, args ...string) (string, error) {
	cmd := c.tandem(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("tandem %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

func (c *cluster) run(ctx context.Context) (err error) {
	data, server := filepath.Join(c.dir, "controller"), net.JoinHostPort(hubAddress, apiPort)
	c.control, err = c.launch(c.hub, "controller", c.root, "--data", data, "--listen", server, "--images", filepath.Join(c.dir, "images"), "--log-level", "warn")
	if err != nil {
		return err
	}
	if err := c.dial(ctx, filepath.Join(data, "kubeconfig"), server); err != nil {
		return errors.Join(err, errors.New(c.control.out.String()))
	}
	token, err := c.in(ctx, c.hub, "agent", "token", "create", "--data", data, "--uses", fmt.Sprint(len(c.machines)))
	if err != nil {
		return err
	}
	var all errgroup.Group
	for _, m := range c.machines {
		all.Go(func() error {
			if _, err := c.in(ctx, m.space, "agent", "join", "--server", server, "--token", strings.TrimSpace(token), "--name", m.name, "--data", m.data); err != nil {
				return err
			}
			var err error
			m.agent, err = c.launch(m.space, "agent", "run", "--data", m.data, "--address", m.address, "--images", filepath.Join(c.dir, "images"),
				"--resolv-conf", filepath.Join(c.dir, "resolv.conf"), "--log-level", "debug")
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return c.awaitNodes(ctx)
}

// dial makes the API reachable from the test's own namespace, for kubectl too.
func (c *cluster) dial(ctx context.Context, kubeconfig, server string) (err error) {
	if c.relay, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	c.tasks.Go(func() {
		for {
			near, err := c.relay.Accept()
			if err != nil {
				return
			}
			c.tasks.Go(func() { c.join(near, server) })
		}
	})
	limit := time.After(patience)
	for {
		raw, err := os.ReadFile(kubeconfig)
		if err == nil {
			c.kube = filepath.Join(c.dir, "cli", "kubeconfig")
			if err := os.MkdirAll(filepath.Dir(c.kube), 0o700); err != nil {
				return err
			}
			text := strings.ReplaceAll(string(raw), server, c.relay.Addr().String())
			if err := os.WriteFile(c.kube, []byte(text), 0o600); err != nil {
				return err
			}
			config, err := clientcmd.BuildConfigFromFlags("", c.kube)
			if err == nil {
				c.api, err = newAPIClient(config)
			}
			if err == nil {
				if err = c.api.ping(ctx); err == nil {
					c.tasks.Go(func() { c.api.watch(context.WithoutCancel(ctx)) })
					return nil
				}
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			return fmt.Errorf("the controller did not answer: %w", err)
		}
	}
}

// join passes bytes between a connection here and one in the hub.
func (c *cluster) join(near net.Conn, server string) {
	defer near.Close()
	var far net.Conn
	err := c.hub.Do(func() (err error) {
		far, err = (&net.Dialer{Timeout: patience}).Dial("tcp", server)
		return err
	})
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // an end that broke is an end
		if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pass(far, near)
	go pass(near, far)
	<-done
	<-done
}

// awaitNodes waits until every machine is a node that takes pods.
func (c *cluster) awaitNodes(ctx context.Context) error {
	limit := time.After(patience)
	for {
		ready, err := c.api.readyNodes(ctx)
		if err == nil && len(ready) == len(c.machines) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit:
			var said []string
			for _, m := range c.machines {
				said = append(said, m.name+": "+m.agent.out.String())
			}
			return fmt.Errorf("ready are %v: %w\n%s\n%s", ready, err, c.control.out, strings.Join(said, "\n"))
		}
	}
}

// serveNames answers questions about the world outside, as the machines' own
// name server does.
func (c *cluster) serveNames() error {
	mux := dns.NewServeMux()
	mux.HandleFunc(".", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		switch name := strings.ToLower(q.Question[0].Name); {
		case q.Question[0].Qtype != dns.TypeA:
		case name == "www.example.com." || name == "intranet.corp.example.":
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.ParseIP(hubAddress)}}
		default:
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m) // whoever asked may have gone
	})
	started := make(chan struct{})
	var packets net.PacketConn
	err := c.hub.Do(func() (err error) {
		packets, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp4", hubAddress+":53")
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(c.serveOutside(), c.serveRegistry()); err != nil {
		return errors.Join(err, packets.Close())
	}
	c.names = &dns.Server{PacketConn: packets, Handler: mux, NotifyStartedFunc: func() { close(started) }}
	c.tasks.Go(func() { _ = c.names.ActivateAndServe() })
	<-started
	return nil
}

// serveOutside is the world outside, which says who asks.
func (c *cluster) serveOutside() error {
	var listener net.Listener
	err := c.hub.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp4", net.JoinHostPort(hubAddress, outsidePort))
		return err
	})
	if err != nil {
		return err
	}
	c.outside = &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, from)
	})}
	c.tasks.Go(func() { _ = c.outside.Serve(listener) })
	return nil
}

// end takes everything down, however the test went, and looks what is left.
func (c *cluster) end(t *testing.T) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
	defer cancel()
	if c.api != nil {
		c.api.close()
	}
	if err := c.control.stop(os.Interrupt); err != nil {
		t.Error(err)
	}
	var all errgroup.Group
	for _, m := range c.machines {
		all.Go(func() error {
			err := m.agent.stop(syscall.SIGTERM)
			if _, left := os.Stat(filepath.Join(m.data, "agent.json")); left == nil {
				_, e := c.in(ctx, m.space, "agent", "leave", "--data", m.data)
				err = errors.Join(err, e)
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		c.tell(t)
	}
	if c.names != nil {
		_ = c.names.Shutdown()
	}
	if c.outside != nil {
		_ = c.outside.Close()
	}
	if c.registry != nil {
		_ = c.registry.Close()
	}
	if c.relay != nil {
		_ = c.relay.Close()
	}
	c.tasks.Wait()
	left, err := c.left(ctx)
	if err != nil {
		t.Error(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		c.wipe(ctx)
	}
	for _, s := range append(slices.Collect(c.spaces()), c.hub) {
		if s != nil {
			_ = s.Close()
		}
	}
	t.Logf("taken down in %s", time.Since(begin).Round(time.Millisecond))
}

func (c *cluster) spaces() func(func(*space) bool) {
	return func(yield func(*space) bool) {
		for _, m := range c.machines {
			if m.space != nil && !yield(m.space) {
				return
			}
		}
	}
}
