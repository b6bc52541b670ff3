package hcstest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	brokerTimeout = time.Minute
	callTimeout   = 30 * time.Second
	endTimeout    = 20 * time.Second
)

// A Machine is a Wine prefix with a broker.
type Machine struct {
	prefix string
	exe    string // of the broker
	stderr io.Writer

	mu     sync.Mutex
	broker *exec.Cmd
	input  io.Closer
	port   string
	said   sync.WaitGroup // what copies stderr
	heard  []io.Closer    // where it copies from

	way    sync.Mutex // guards what follows
	routes []*netlink.Route
	closed bool
}

// Open makes a machine in dir, which it creates. stderr gets what the broker
// complains about; nil: nobody.
func Open(ctx context.Context, dir string, stderr io.Writer) (*Machine, error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("make a Windows machine: not installed: %s; apt-get install %s", strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	from, err := template(ctx)
	if err != nil {
		return nil, fmt.Errorf("make a Windows machine: %w", err)
	}
	m := &Machine{prefix: filepath.Join(dir, "prefix"), exe: filepath.Join(dir, "broker.exe"), stderr: stderr}
	if m.stderr == nil {
		m.stderr = io.Discard
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := m.copyPrefix(ctx, from); err != nil {
		return nil, fmt.Errorf("make a Windows machine: %w", err)
	}
	if err := Build(ctx, m.exe, "github.com/tandem-gitops/tandem/runtimes/hcs/hcstest/broker"); err != nil {
		return nil, fmt.Errorf("make a Windows machine: %w", err)
	}
	if err := m.StartBroker(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make a Windows machine: %w", err), m.Close())
	}
	return m, nil
}

// Build builds a Go program for Windows.
func Build(ctx context.Context, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// copyPrefix links the template's files, except the registry: Wine writes into
// it in place when it has several names.
func (m *Machine) copyPrefix(ctx context.Context, from string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-al", from, m.prefix).CombinedOutput(); err != nil {
		return fmt.Errorf("copy Wine's template: %w: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(from, "*.reg"))
	if err != nil {
		return err
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		to := filepath.Join(m.prefix, filepath.Base(f))
		if err := errors.Join(os.Remove(to), os.WriteFile(to, raw, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// Command is a Windows program on this machine. Its arguments aren't changed:
// use Path for those that are paths.
func (m *Machine) Command(ctx context.Context, exe string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, wine, append([]string{exe}, args...)...)
	cmd.Env = environment(m.prefix)
	cmd.WaitDelay = endTimeout
	return cmd
}

// Path is a path of Linux as programs on this machine know it.
func (m *Machine) Path(path string) string { return windowsPath(path) }

// Drive is where the machine's drive C lies.
func (m *Machine) Drive() string { return filepath.Join(m.prefix, "drive_c") }

// StartBroker starts the double of the services again after KillBroker.
func (m *Machine) StartBroker(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broker != nil {
		return nil
	}
	cmd := m.Command(context.WithoutCancel(ctx), m.exe)
	// A pipe of our own: what the broker runs holds it too, and Wait would wait
	// for all of that.
	complaints, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	m.heard = append(m.heard, complaints)
	m.said.Go(func() {
		defer complaints.Close()
		_, _ = io.Copy(m.stderr, complaints) // Close waits for its end
	})
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	m.broker, m.input = cmd, in
	said := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		lines.Scan() // nothing means that it ended
		said <- strings.TrimSpace(lines.Text())
		for lines.Scan() {
			if network, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "network "); ok {
				if err := m.route(network); err != nil {
					_, _ = fmt.Fprintln(m.stderr, err) // the broker complains too
				}
			}
		}
	}()
	select {
	case line := <-said:
		port, ok := strings.CutPrefix(line, "port ")
		if !ok {
			return fmt.Errorf("start the broker: it said %q", line)
		}
		m.port = port
		return nil
	case <-time.After(brokerTimeout):
		return errors.New("start the broker: it says nothing")
	}
}

// KillBroker ends the double as a crash of the services would: what it runs goes
// on.
func (m *Machine) KillBroker() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broker == nil {
		return nil
	}
	err := m.broker.Process.Kill()
	_ = m.broker.Wait() // killed
	_ = m.input.Close()
	m.broker = nil
	return err
}

// Programs are the command lines of the Windows programs that run on this
// machine: neither Wine's own nor the broker.
func (m *Machine) Programs() ([]string, error) {
	running, err := m.Processes()
	return slices.Collect(maps.Values(running)), err
}

// Processes are the Programs with their numbers at Linux.
func (m *Machine) Processes() (map[int]string, error) {
	found := map[int]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), "WINEPREFIX="+m.prefix) {
			continue // it has ended, or is of another
		}
		raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		line := strings.Join(strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00"), " ")
		if err != nil || line == "" || strings.Contains(line, `C:\windows\system32\`) || strings.Contains(line, filepath.Base(wineserver)) || strings.Contains(line, m.exe) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		found[pid] = line
	}
	return found, nil
}

// Close ends every process of the machine and removes its drive.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broker != nil {
		_ = m.input.Close() // it kills what it runs and leaves
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = m.broker.Wait()
		}()
		select {
		case <-done:
		case <-time.After(endTimeout):
			_ = m.broker.Process.Kill()
			<-done
		}
		m.broker = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	// -k fails where no server runs any more.
	_ = inPrefix(ctx, m.prefix, wineserver, "-k")
	err := inPrefix(ctx, m.prefix, wineserver, "-w")
	if err != nil { // somebody still runs and holds it
		for _, c := range m.heard {
			_ = c.Close()
		}
	}
	m.said.Wait()
	return errors.Join(err, m.unroute(), removeAll(m.prefix))
}

// removeAll removes a tree that Windows programs may have made read-only.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // of directories
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// A Fault is the answer of the next calls of a name.
type Fault struct {
	Call    string        `json:"call"` // "HcsStartComputeSystem"
	HRESULT uint32        `json:"hresult"`
	Times   int           `json:"times"`
	Delay   time.Duration `json:"delay"`
	Late    bool          `json:"late"` // the call is taken, and its operation ends so
}

// Fault makes calls fail, or take long.
func (m *Machine) Fault(ctx context.Context, f Fault) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	_, err = m.call(ctx, "test.fault", string(raw))
	return err
}

// Crash ends a compute system by itself.
func (m *Machine) Crash(ctx context.Context, id string) error {
	_, err := m.call(ctx, "test.crash", id)
	return err
}

// ResetNetworks makes the network service forget everything.
func (m *Machine) ResetNetworks(ctx context.Context) error {
	_, err := m.call(ctx, "test.reset")
	return err
}

// Reach makes the addresses of networks that are made from now on this machine's,
// as the switch of Windows' network service would: processes of pods listen at
// their pod's address, and everybody in this network namespace reaches them. It
// needs root. Close takes the addresses away.
func (m *Machine) Reach(ctx context.Context) error {
	_, err := m.call(ctx, "test.reach")
	return err
}

// route makes a network's addresses this machine's, and tells the broker.
func (m *Machine) route(network string) error {
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		return err
	}
	m.way.Lock()
	defer m.way.Unlock()
	if m.closed {
		return nil
	}
	route, err := localRoute(prefix)
	if err == nil {
		err = netlink.RouteReplace(route)
	}
	if err != nil {
		return fmt.Errorf("make the addresses of %s this machine's: %w", network, err)
	}
	m.routes = append(m.routes, route)
	return os.WriteFile(filepath.Join(m.Drive(), "hcstest", "route-"+strings.ReplaceAll(network, "/", "-")), nil, 0o600)
}

func localRoute(prefix netip.Prefix) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	block := &net.IPNet{IP: prefix.Masked().Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	const local = 255 // the table of addresses that are the machine's
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: block, Table: local, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}, nil
}

// unroute takes the addresses away.
func (m *Machine) unroute() error {
	m.way.Lock()
	defer m.way.Unlock()
	m.closed = true
	var errs []error
	for _, r := range m.routes {
		if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("take the addresses of %s away: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// DropObjects makes the network service forget all objects of a kind, such as
// LoadBalancers.
func (m *Machine) DropObjects(ctx context.Context, kind string) error {
	_, err := m.call(ctx, "test.drop", kind)
	return err
}

// LeakObject makes one that no program asked for.
func (m *Machine) LeakObject(ctx context.Context, kind, document string) error {
	_, err := m.call(ctx, "test.leak", kind, document)
	return err
}

// Objects are the documents of all objects of a kind, as JSON.
func (m *Machine) Objects(ctx context.Context, kind string) (string, error) {
	return m.call(ctx, "test.objects", kind)
}

// Left counts what programs have left: systems, volumes, Endpoints, ….
func (m *Machine) Left(ctx context.Context) (map[string]int, error) {
	raw, err := m.call(ctx, "test.left")
	if err != nil {
		return nil, err
	}
	var left map[string]int
	err = json.Unmarshal([]byte(raw), &left)
	return left, err
}

// A Note is a call that the double has heard, with its texts.
type Note struct {
	Call  string   `json:"call"`
	Texts []string `json:"texts"`
}

// Notes are the calls with texts since the broker started, documents among them.
func (m *Machine) Notes(ctx context.Context) ([]Note, error) {
	raw, err := m.call(ctx, "test.notes")
	if err != nil {
		return nil, err
	}
	var notes []Note
	err = json.Unmarshal([]byte(raw), &notes)
	return notes, err
}

func (m *Machine) call(ctx context.Context, name string, texts ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m.mu.Lock()
	port := m.port
	m.mu.Unlock()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return "", fmt.Errorf("ask the broker: %w", err)
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(until); err != nil {
			return "", err
		}
	}
	answer, err := Call(c, name, texts...)
	if err != nil {
		return "", fmt.Errorf("ask the broker: %w", err)
	}
	return answer, nil
}
