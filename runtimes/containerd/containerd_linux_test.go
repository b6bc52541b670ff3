package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const busybox = "shop.example/busybox:1"

// need skips where something is truly absent, unless TANDEM_REQUIRE forbids.
func need(t testing.TB) {
	t.Helper()
	for _, f := range containerd.Check() {
		if f.Fatal && !f.OK {
			hosttest.Lacks(t, f.Name+": "+f.Detail+"; "+f.Remedy)
		}
	}
	hosttest.Need(t, "/bin/busybox")
}

// ranges are given out so that tests run beside each other, also in other
// processes: the process's number chooses where they begin.
var ranges atomic.Uint32

func nextRange() netip.Prefix {
	n := uint32(os.Getpid())*4 + ranges.Add(1)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88 + byte(n>>8)%32, byte(n), 0}), 24)
}

// A node is a Runtime with its options, so that it can be opened again.
type node struct {
	*containerd.Runtime
	o     containerd.Options
	image runtimes.Image
	dir   string
}

// layout writes a busybox image and returns its Linux manifest.
func layout(t testing.TB, dir string, change func(*images.Variant)) (*images.Store, runtimes.Image) {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	v := images.Variant{
		OS: state.Linux, Arch: "amd64", Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin", "FROM=image"},
		Files: []images.File{
			{Path: "bin/busybox", Mode: 0o755, Data: program},
			{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:::\nweb:x:1234:2345:::\n")},
			{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nweb:x:2345:\nlogs:x:3456:web\n")},
			{Path: "tmp/.keep", Mode: 0o644},
		},
	}
	for _, name := range []string{"sh", "sleep", "cat", "id", "hostname", "env", "echo", "true", "false", "ls", "touch", "ip", "nc", "wc", "dd", "stty", "kill", "grep"} {
		v.Files = append(v.Files, images.File{Path: "bin/" + name, Mode: 0o755, Data: []byte("#!/bin/busybox sh\nexec /bin/busybox " + name + " \"$@\"\n")})
	}
	// A script can't be the interpreter of itself.
	v.Files = slices.DeleteFunc(v.Files, func(f images.File) bool { return f.Path == "bin/sh" })
	v.Files = append(v.Files, images.File{Path: "bin/sh", Mode: 0o755, Data: program})
	if change != nil {
		change(&v)
	}
	if _, err := images.Write(dir, images.Spec{Name: busybox, Variants: []images.Variant{v}}); err != nil {
		t.Fatal(err)
	}
	store := images.New(images.Options{Dirs: []string{dir}, Offline: true})
	found, err := store.Look(t.Context(), busybox)
	if err != nil {
		t.Fatal(err)
	}
	return store, runtimes.Image{Name: busybox, Digest: found.Platforms[0].Digest}
}

func open(t testing.TB, change func(*images.Variant)) *node {
	t.Helper()
	return openIn(t, t.TempDir(), change)
}

// openIn keeps the node's things in a directory, which may be a file system of
// its own.
func openIn(t testing.TB, dir string, change func(*images.Variant)) *node {
	t.Helper()
	need(t)
	store, image := layout(t, filepath.Join(dir, "images"), change)
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	n := &node{dir: dir, image: image, o: containerd.Options{
		Node: "test", Dir: filepath.Join(dir, "node"), Range: nextRange(), Images: store, Logger: logger,
	}}
	before := n.things(t)
	t.Cleanup(func() { // before TempDir's own, also after a failure
		n.shutdown(t)
		n.nothingLeft(t, before)
	})
	n.open(t)
	if err := n.Pull(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) tryOpen(ctx context.Context) (*containerd.Runtime, error) {
	return containerd.Open(ctx, n.o)
}

func (n *node) open(t testing.TB) {
	t.Helper()
	r, err := n.tryOpen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.Runtime = r
}

func (n *node) shutdown(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if n.Runtime == nil {
		r, err := containerd.Open(ctx, n.o)
		if err != nil {
			t.Error(err)
			return
		}
		n.Runtime = r
	}
	if err := n.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// host is what on this machine is this node's.
func (n *node) host() hosttest.Node {
	h := hosttest.Node{Marks: []string{n.dir + "/", filepath.Base(n.runDir()), n.marker()}, Daemon: n.runDir() + "/containerd.sock"}
	for i := range 64 {
		h.Pods = append(h.Pods, uid(i).String())
	}
	return h
}

// things are what of the node is on the machine.
func (n *node) things(t testing.TB) []string {
	t.Helper()
	things, err := n.host().Things(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return things
}

func (n *node) nothingLeft(t testing.TB, before []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	left, err := n.host().Left(ctx, before)
	if err != nil {
		t.Error(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		n.host().Wipe(ctx)
	}
}

// runDir is where a node keeps what must not survive a reboot; one is alive for
// each directory.
func (n *node) runDir() string {
	return "/run/tandem/" + hosttest.ID(n.o.Dir)
}

// marker is in the command line of processes that tests start.
func (n *node) marker() string { return "mark-" + filepath.Base(n.runDir()) }

func uid(i int) (u state.UID) {
	u[0], u[14], u[15] = 7, byte(i>>8), byte(i)
	return u
}

func (n *node) pod(t testing.TB, i int) state.UID {
	t.Helper()
	_, err := n.Sandbox(t.Context(), runtimes.Sandbox{
		UID: uid(i), Key: state.PodKey{Namespace: "prod", Name: fmt.Sprintf("web-%d", i)}, Hostname: fmt.Sprintf("web-%d", i),
	})
	if err != nil {
		t.Fatal(err)
	}
	return uid(i)
}

func (n *node) container(u state.UID, name, script string) runtimes.Container {
	return runtimes.Container{
		UID: u, Name: name, Image: n.image, Command: []string{"/bin/sh", "-c"}, Args: []string{script, n.marker()},
		LogPath: filepath.Join(n.dir, "logs", u.String(), name+".log"),
	}
}

const forever = "trap 'exit 7' TERM; echo ready; while true; do sleep 3600 & wait; done"

func (n *node) run(t testing.TB, c runtimes.Container) {
	t.Helper()
	if err := n.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// runAnyway tries again while the daemon is away, as the agent does.
func (n *node) runAnyway(t testing.TB, c runtimes.Container) {
	t.Helper()
	for {
		err := n.Run(t.Context(), c)
		if err == nil {
			return
		}
		if !errors.Is(err, runtimes.ErrUnavailable) || t.Context().Err() != nil {
			t.Error(err)
			return
		}
	}
}

// until waits for an observation that satisfies ok.
func (n *node) until(t testing.TB, what string, ok func(runtimes.Observation) bool) runtimes.Observation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	after := uint64(0)
	for {
		o, err := n.Observe(ctx, after)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if ok(o) {
			return o
		}
		after = o.Version
	}
}

func find(o runtimes.Observation, u state.UID, name string) (runtimes.ContainerObserved, bool) {
	i := slices.IndexFunc(o.Containers, func(c runtimes.ContainerObserved) bool { return c.UID == u && c.Name == name })
	if i < 0 {
		return runtimes.ContainerObserved{}, false
	}
	return o.Containers[i], true
}

func (n *node) ended(t testing.TB, u state.UID, name string) runtimes.ContainerObserved {
	t.Helper()
	o := n.until(t, "the end of "+name, func(o runtimes.Observation) bool {
		c, ok := find(o, u, name)
		return ok && !c.Running
	})
	c, _ := find(o, u, name)
	return c
}

func (n *node) log(t testing.TB, c runtimes.Container) string {
	t.Helper()
	raw, err := os.ReadFile(c.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// untilLog waits until a container has written text.
func (n *node) untilLog(t testing.TB, c runtimes.Container, text string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(n.log(t, c), text) {
		if time.Now().After(deadline) {
			t.Fatalf("%s never wrote %q", c.Name, text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// sh runs a script in a container and returns its output.
func (n *node) sh(t testing.TB, u state.UID, name, script string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	code, err := n.Exec(t.Context(), u, name, runtimes.Exec{Command: []string{"/bin/sh", "-c", script}, Stdout: &out, Stderr: &errOut})
	if err != nil || code != 0 {
		t.Fatalf("exec %q: exit %d, %v: %s", script, code, err, errOut.String())
	}
	return strings.TrimSpace(out.String())
}

func TestContainerLife(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	once := n.container(u, "once", "echo hello; echo problem >&2; exit 3")
	n.run(t, once)
	c := n.ended(t, u, "once")
	if c.ExitCode != 3 || c.OOMKilled || c.StartedAt.IsZero() || c.FinishedAt.Before(c.StartedAt.Add(-time.Second)) {
		t.Errorf("ended as %+v", c)
	}
	if got := n.log(t, once); !strings.Contains(got, "hello\n") || !strings.Contains(got, "problem\n") {
		t.Errorf("log %q", got)
	}
	n.run(t, once) // the same attempt is found again
	if c := n.ended(t, u, "once"); c.ExitCode != 3 || c.Attempt != 0 {
		t.Errorf("the same attempt ran again: %+v", c)
	}
	once.Attempt, once.Args = 1, []string{"exit 4"}
	n.run(t, once)
	if c := n.ended(t, u, "once"); c.ExitCode != 4 || c.Attempt != 1 {
		t.Errorf("the next attempt: %+v", c)
	}

	main := n.container(u, "main", forever)
	n.run(t, main)
	n.untilLog(t, main, "ready") // the first process of a container ignores signals until it handles them
	if err := n.Stop(t.Context(), u, "main", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if c := n.ended(t, u, "main"); c.ExitCode != 7 {
		t.Errorf("asked to stop, it ended with %d, want 7", c.ExitCode)
	}
	stubborn := n.container(u, "stubborn", "trap '' TERM; echo deaf; while true; do sleep 3600 & wait; done")
	n.run(t, stubborn)
	n.untilLog(t, stubborn, "deaf")
	if err := n.Stop(t.Context(), u, "stubborn", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if c := n.ended(t, u, "stubborn"); c.ExitCode != 137 {
		t.Errorf("a deaf one ended with %d, want 137", c.ExitCode)
	}
	if err := n.Stop(t.Context(), u, "nobody", time.Second); err != nil {
		t.Errorf("stop of what isn't there: %v", err)
	}
	for range 2 {
		if err := n.Remove(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	if o := n.until(t, "anything", func(runtimes.Observation) bool { return true }); len(o.Sandboxes)+len(o.Containers) > 0 {
		t.Errorf("after Remove: %+v", o)
	}
	if err := n.Run(t.Context(), main); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("run without sandbox: %v", err)
	}
}

func TestInsideOfContainer(t *testing.T) {
	t.Parallel()
	n := open(t, func(v *images.Variant) { v.User = "web"; v.WorkingDir = "/tmp" })
	u := n.pod(t, 1)
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := n.container(u, "main", forever)
	c.Env = []string{"FROM=pod", "MORE=1"}
	c.Mounts = []runtimes.Mount{{Source: data, Target: "/data", ReadOnly: true}}
	c.Limits = runtimes.Limits{CPULimit: 500, CPURequest: 250, Memory: 64 << 20, PIDs: 50, OOMScore: 321}
	c.Security = runtimes.Security{RunAsNonRoot: true, NoNewPrivileges: true, ReadOnlyRoot: true, Groups: []int64{4567}, Drop: []string{"ALL"}}
	n.run(t, c)
	for script, want := range map[string]string{
		"hostname":                           "web-1",
		"id -u":                              "1234",
		"id -g":                              "2345",
		"id -G":                              "2345 3456 4567",
		"echo $FROM$MORE":                    "pod1",
		"echo $HOSTNAME":                     "web-1",
		"echo $PWD":                          "/tmp",
		"cat /data/file":                     "content",
		"touch /data/x 2>/dev/null; echo $?": "1",
		"touch /tmp/x 2>/dev/null; echo $?":  "1",
		"cat /proc/self/oom_score_adj":       "321",
		"grep -c . /etc/resolv.conf >/dev/null; echo ok":     "ok",
		"grep -o 'NoNewPrivs:.*1' /proc/self/status | wc -l": "1",
		"grep -o 'CapEff:.0*$' /proc/self/status | wc -l":    "1",
		"grep -o 'Seccomp:.2' /proc/self/status | wc -l":     "1",
		"touch /dev/shm/x; echo $?":                          "0",
		"ip -4 addr show eth0 | grep -c /32":                 "1",
	} {
		if got := n.sh(t, u, "main", script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	second := n.container(u, "second", forever)
	n.run(t, second)
	if got := n.sh(t, u, "second", "ls /dev/shm; hostname"); got != "x\nweb-1" {
		t.Errorf("containers of a pod don't share /dev/shm and hostname: %q", got)
	}
	group := "tandem/test." + filepath.Base(n.runDir()) + "/" + u.String() + "/main/"
	for file, want := range map[string][2]string{
		"memory": {"memory.limit_in_bytes", "67108864"}, "pids": {"pids.max", "50"}, "cpu": {"cpu.cfs_quota_us", "50000"},
	} {
		raw, err := os.ReadFile("/sys/fs/cgroup/" + file + "/" + group + want[0])
		if errors.Is(err, os.ErrNotExist) { // version 2
			name := map[string]string{"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}[file]
			raw, err = os.ReadFile("/sys/fs/cgroup/" + group + name)
		}
		if got, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " "); err != nil || got != want[1] {
			t.Errorf("%s: %q, want %q (%v)", want[0], got, want[1], err)
		}
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	a, b := n.pod(t, 1), n.pod(t, 2)
	n.run(t, n.container(a, "main", "echo answer | nc -l -p 8080; "+forever))
	n.run(t, n.container(b, "main", forever))
	o := n.until(t, "addresses", func(o runtimes.Observation) bool { return len(o.Sandboxes) == 2 })
	if o.Sandboxes[0].IP == o.Sandboxes[1].IP || !n.o.Range.Contains(netip.MustParseAddr(o.Sandboxes[0].IP)) {
		t.Fatalf("addresses %+v", o.Sandboxes)
	}
	script := fmt.Sprintf("until nc %s 8080 </dev/null; do sleep 0.02; done", o.Sandboxes[0].IP)
	if got := n.sh(t, b, "main", script); got != "answer" {
		t.Errorf("pod to pod: %q", got)
	}
	again, err := n.Sandbox(t.Context(), runtimes.Sandbox{UID: a, Key: state.PodKey{Namespace: "prod", Name: "web-1"}, Hostname: "web-1"})
	if err != nil || again.IP != o.Sandboxes[0].IP {
		t.Errorf("found again with %+v, %v", again, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	change := func(f func(*runtimes.Container)) error {
		c := n.container(u, "main", forever)
		f(&c)
		return n.Run(t.Context(), c)
	}
	for what, test := range map[string]struct {
		err  error
		want error
	}{
		"root where it must not be": {change(func(c *runtimes.Container) { c.Security.RunAsNonRoot = true }), runtimes.ErrRejected},
		"a user that isn't there": {change(func(c *runtimes.Container) {
			c.Command = nil
			c.Args = nil
			c.Image.Digest = state.DigestOf([]byte("no such image"))
		}), runtimes.ErrNotFound},
		"a program that isn't there": {change(func(c *runtimes.Container) { c.Command = []string{"/no/such"} }), runtimes.ErrUnavailable},
		"a terminal":                 {change(func(c *runtimes.Container) { c.TTY = true }), runtimes.ErrUnsupported},
		"no digest":                  {n.Pull(t.Context(), runtimes.Image{Name: busybox}), runtimes.ErrRejected},
		"no such image":              {n.Pull(t.Context(), runtimes.Image{Name: busybox, Digest: uidDigest()}), runtimes.ErrNotFound},
		"never pulled":               {n.Pull(t.Context(), runtimes.Image{Name: busybox, Digest: uidDigest(), Policy: "Never"}), runtimes.ErrNotFound},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", what, test.err, test.want)
		}
	}
	if o := n.until(t, "anything", func(runtimes.Observation) bool { return true }); len(o.Containers) > 0 {
		t.Errorf("refused containers left %+v", o.Containers)
	}
	c := n.container(u, "main", "exit 0")
	n.run(t, c)
	n.ended(t, u, "main")
	if _, err := n.Exec(t.Context(), u, "main", runtimes.Exec{Command: []string{"true"}}); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("exec in an ended container: %v", err)
	}
	if _, err := containerd.Open(t.Context(), n.o); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("a second agent on the same directory: %v", err)
	}
}

func uidDigest() state.Digest { return state.DigestOf([]byte("another")) }

func TestOOMKilled(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	c := n.container(u, "hungry", "")
	c.Command, c.Args = []string{"/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}, nil
	c.Limits.Memory = 20 << 20
	n.run(t, c)
	if got := n.ended(t, u, "hungry"); !got.OOMKilled || got.ExitCode != 137 {
		t.Errorf("out of memory: %+v", got)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	n.run(t, n.container(u, "main", forever))
	var out, errOut bytes.Buffer
	code, err := n.Exec(t.Context(), u, "main", runtimes.Exec{
		Command: []string{"/bin/sh", "-c", "cat; echo bad >&2; exit 5"}, Stdin: strings.NewReader("typed"), Stdout: &out, Stderr: &errOut,
	})
	if code != 5 || err != nil || out.String() != "typed" || errOut.String() != "bad\n" {
		t.Errorf("exit %d, %v, %q, %q", code, err, out.String(), errOut.String())
	}
	size := make(chan runtimes.Size, 1)
	size <- runtimes.Size{Width: 91, Height: 37}
	out.Reset()
	_, err = n.Exec(t.Context(), u, "main", runtimes.Exec{
		Command: []string{"/bin/sh", "-c", "until stty size | grep '37 91'; do sleep 0.02; done"}, Stdout: &out, TTY: true, Resize: size,
	})
	if err != nil || !strings.Contains(out.String(), "37 91") {
		t.Errorf("terminal: %v, %q", err, out.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = n.Exec(ctx, u, "main", runtimes.Exec{Command: []string{"/bin/sleep", "4321"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cut off: %v", err)
	}
	if got := n.sh(t, u, "main", "grep -l '432[1]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"); got != "0" {
		t.Errorf("%s processes of a command that was cut off", got)
	}
}

func (n *node) daemonPid(t testing.TB) int {
	t.Helper()
	pid := n.findDaemon()
	if pid == 0 {
		t.Fatal("containerd does not run")
	}
	return pid
}

func (n *node) findDaemon() int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		raw, _ := os.ReadFile(file)
		if bytes.Contains(raw, []byte("--config\x00"+n.runDir()+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	return 0
}

// The agent goes and comes back: nothing is restarted, and what ended meanwhile
// is told.
func TestAdoption(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	n.run(t, n.container(u, "main", forever))
	n.run(t, n.container(u, "other", "until [ -e /dev/shm/end ]; do sleep 0.02; done; exit 9"))
	before := n.until(t, "both", func(o runtimes.Observation) bool { return len(o.Containers) == 2 })
	pid := n.daemonPid(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.runDir(), "pods", u.String(), "shm", "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	if now := n.daemonPid(t); now != pid {
		t.Errorf("containerd was started again: %d, then %d", pid, now)
	}
	if c := n.ended(t, u, "other"); c.ExitCode != 9 {
		t.Errorf("what ended while nobody looked: %+v", c)
	}
	after := n.until(t, "anything", func(runtimes.Observation) bool { return true })
	a, _ := find(before, u, "main")
	b, _ := find(after, u, "main")
	if !b.Running || !a.StartedAt.Equal(b.StartedAt) || after.Sandboxes[0].IP != before.Sandboxes[0].IP {
		t.Errorf("before %+v, after %+v", a, b)
	}
	n.sh(t, u, "main", "true")
}

func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	n.run(t, n.container(u, "main", forever))
	n.run(t, n.container(u, "ends", "until [ -e /dev/shm/end ]; do sleep 0.02; done; exit 9"))
	pid := n.daemonPid(t)
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.runDir(), "pods", u.String(), "shm", "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.runAnyway(t, n.container(u, "third", forever)) // waits for the new daemon
	t.Logf("a container ran %v after the daemon was killed", time.Since(begin))
	if n.daemonPid(t) == pid {
		t.Error("the daemon was not killed")
	}
	if c := n.ended(t, u, "ends"); c.ExitCode != 9 {
		t.Errorf("what ended meanwhile: %+v", c)
	}
	if c, _ := find(n.until(t, "anything", func(runtimes.Observation) bool { return true }), u, "main"); !c.Running || c.Attempt != 0 {
		t.Errorf("the daemon's death reached a container: %+v", c)
	}
}

// The daemon is killed again and again while pods start; in the end all run once
// and removing them leaves nothing.
func TestDaemonKilledWhileStarting(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	const pods, kills = 6, 4
	stop := make(chan struct{})
	var killer, starters sync.WaitGroup
	killer.Go(func() {
		for range kills {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
				if pid := n.findDaemon(); pid > 0 { // else it is just being started again
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	})
	for i := range pods {
		starters.Go(func() {
			u := n.pod(t, i)
			n.runAnyway(t, n.container(u, "main", forever))
		})
	}
	starters.Wait()
	close(stop)
	killer.Wait()
	n.until(t, "all", func(o runtimes.Observation) bool {
		return len(o.Containers) == pods && !slices.ContainsFunc(o.Containers, func(c runtimes.ContainerObserved) bool { return !c.Running })
	})
	n.untilCount(t, pods)
}

// count says how many main processes of containers run.
func (n *node) count(script string) (sum int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		raw, _ := os.ReadFile(file)
		if bytes.HasPrefix(raw, []byte("/bin/sh\x00-c\x00"+script)) && bytes.Contains(raw, []byte(n.marker())) {
			sum++
		}
	}
	return sum
}

// untilCount waits until so many main processes run: one that was just started
// is runc for another moment.
func (n *node) untilCount(t testing.TB, want int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for n.count("trap 'exit 7'") != want {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes for %d containers", n.count("trap 'exit 7'"), want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestMain is also the agent of TestAgentKilled: a process of its own that can
// be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TANDEM_TEST_AGENT"); dir != "" {
		if err := agent(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// agent starts pods until it is killed.
func agent(dir string) error {
	ctx := context.Background()
	store := images.New(images.Options{Dirs: []string{filepath.Join(dir, "images")}, Offline: true})
	image, err := store.Look(ctx, busybox)
	if err != nil {
		return err
	}
	r, err := containerd.Open(ctx, containerd.Options{
		Node: "test", Dir: filepath.Join(dir, "node"), Range: netip.MustParsePrefix(os.Getenv("TANDEM_TEST_RANGE")), Images: store,
	})
	if err != nil {
		return err
	}
	n := &node{Runtime: r, dir: dir, image: runtimes.Image{Name: busybox, Digest: image.Platforms[0].Digest}, o: containerd.Options{Dir: filepath.Join(dir, "node")}}
	fmt.Println("ready")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for {
				_, err := r.Sandbox(ctx, runtimes.Sandbox{UID: uid(i), Key: state.PodKey{Namespace: "prod", Name: "x"}, Hostname: "x"})
				if err == nil {
					err = r.Run(ctx, n.container(uid(i), "main", forever))
				}
				if err == nil {
					err = r.Run(ctx, n.container(uid(i), "side", forever))
				}
				if err == nil && i%2 == 1 {
					err = r.Remove(ctx, uid(i))
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		})
	}
	all.Wait()
	return nil
}

func TestAgentKilled(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.Runtime = nil
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "TANDEM_TEST_AGENT="+n.dir, "TANDEM_TEST_RANGE="+n.o.Range.String())
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 6)
		_, readErr := out.Read(line)
		timer := time.NewTimer(time.Duration(40+round*70) * time.Millisecond)
		<-timer.C // the instant of the kill: another in each round
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if readErr != nil {
			t.Fatalf("the agent did not get ready: %v", readErr)
		}
		n.open(t)
		o := n.until(t, "anything", func(runtimes.Observation) bool { return true })
		runs := 0
		for _, c := range o.Containers {
			if c.Running {
				runs++
			}
		}
		n.untilCount(t, runs)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n.Runtime = nil
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	facts, err := n.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if facts.OS != state.Linux || facts.Capacity.MilliCPU == 0 || facts.Capacity.Memory == 0 || facts.Kernel == "" ||
		!strings.HasPrefix(facts.Runtime, "containerd://") || !facts.Capacity.Fits(facts.Allocatable) {
		t.Errorf("%+v", facts)
	}
}

// A container that ends at once is started again and again: every attempt runs,
// although the pod's shim ends with each.
func TestRestarts(t *testing.T) {
	t.Parallel()
	n := open(t, nil)
	u := n.pod(t, 1)
	c := n.container(u, "main", "exit 3")
	for c.Attempt = range 10 {
		n.run(t, c)
		if got := n.ended(t, u, "main"); got.Attempt != c.Attempt || got.ExitCode != 3 {
			t.Fatalf("attempt %d: %+v", c.Attempt, got)
		}
	}
}

// BenchmarkPods starts pods eight at a time, image present, from nothing to
// running.
func BenchmarkPods(b *testing.B) {
	n := open(b, nil)
	const pods, parallel = 20, 8
	for b.Loop() {
		next := make(chan int)
		var all sync.WaitGroup
		for range parallel {
			all.Go(func() {
				for i := range next {
					u := n.pod(b, i)
					if err := n.Run(b.Context(), n.container(u, "main", forever)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for i := range pods {
			next <- i
		}
		close(next)
		all.Wait()
		b.StopTimer()
		for i := range pods {
			if err := n.Remove(b.Context(), uid(i)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}
