package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A Case is a runtime under test.
type Case struct {
	// Open opens the runtime; opened again after Close, it finds what runs.
	Open func(t *testing.T) runtimes.Runtime
	// Close lets go of a runtime without ending what runs; nil: nothing to do.
	Close func(t *testing.T, r runtimes.Runtime)
	// Image is one whose entrypoint is the program prog, and present to Pull.
	Image runtimes.Image
	// Absent is an image that doesn't exist.
	Absent runtimes.Image
	// OS of the node; Linux where empty.
	OS state.OS
	// Simulated: nothing really runs, so exec, output and networks are not looked at.
	Simulated bool
}

// Build builds prog for an operating system, statically, and returns its path.
func Build(t *testing.T, goos string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prog")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path,
		"github.com/tandem-gitops/tandem/runtimes/runtimetest/prog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build prog: %v\n%s", err, out)
	}
	return path
}

const patience = 30 * time.Second

type suite struct {
	Case

	r   runtimes.Runtime
	dir string
	n   byte
}

// Run holds a runtime to its contract.
func Run(t *testing.T, c Case) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *suite){
		"describe": describe, "pull": pull, "sandbox": sandbox, "run": run, "exit codes": exitCodes, "stop": stop, "grace": grace,
		"remove": remove, "observe": observe, "exec": execute, "reopen": reopen, "together": together, "missing": missing, "output": output,
	} {
		t.Run(name, func(t *testing.T) {
			s := &suite{Case: c, r: c.Open(t), dir: t.TempDir()}
			t.Cleanup(func() {
				if c.Close != nil {
					c.Close(t, s.r)
				}
			})
			test(t, s)
		})
	}
}

func (s *suite) ctx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// pod makes a sandbox that the test's end removes.
func (s *suite) pod(t *testing.T) state.UID {
	t.Helper()
	s.n++
	sum := state.DigestOf([]byte(t.Name() + string(rune(s.n))))
	uid := state.UID(sum[:16])
	return s.podAs(t, uid)
}

func (s *suite) sandboxOf(uid state.UID) runtimes.Sandbox {
	return runtimes.Sandbox{UID: uid, Key: state.PodKey{Namespace: "test", Name: "pod-" + uid.String()[:8]}, Hostname: "pod"}
}

func (s *suite) podAs(t *testing.T, uid state.UID) state.UID {
	t.Helper()
	if err := s.r.Pull(s.ctx(t), s.Image); err != nil {
		t.Fatalf("pull: %v", err)
	}
	if _, err := s.r.Sandbox(s.ctx(t), s.sandboxOf(uid)); err != nil {
		t.Fatalf("sandbox: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.r.Remove(ctx, uid); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return uid
}

func (s *suite) container(uid state.UID, name string, attempt int32, args ...string) runtimes.Container {
	return runtimes.Container{
		UID: uid, Name: name, Attempt: attempt, Image: s.Image, Args: args,
		// stdout and stderr share a file here; apart they are in the agent's suite.
		LogPath: filepath.Join(s.dir, name+"-"+uid.String()[:8]+"-"+strconv.Itoa(int(attempt))+".log"),
	}
}

func (s *suite) start(t *testing.T, uid state.UID, name string, attempt int32, args ...string) runtimes.ContainerObserved {
	t.Helper()
	if err := s.r.Run(s.ctx(t), s.container(uid, name, attempt, args...)); err != nil {
		t.Fatalf("run %s: %v", name, err)
	}
	c := s.find(t, uid, name)
	if c == nil {
		t.Fatalf("container %s isn't observed after Run returned", name)
	}
	return *c
}

func (s *suite) find(t *testing.T, uid state.UID, name string) *runtimes.ContainerObserved {
	t.Helper()
	o, err := s.r.Observe(s.ctx(t), 0)
	if err != nil {
		t.Fatalf("observe: %v", err)
	}
	return in(&o, uid, name)
}

func in(o *runtimes.Observation, uid state.UID, name string) *runtimes.ContainerObserved {
	for i := range o.Containers {
		if c := &o.Containers[i]; c.UID == uid && c.Name == name {
			return c
		}
	}
	return nil
}

// until observes until holds, level-triggered.
func (s *suite) until(t *testing.T, what string, holds func(*runtimes.Observation) bool) {
	t.Helper()
	ctx := s.ctx(t)
	var after uint64
	for {
		o, err := s.r.Observe(ctx, after)
		if err != nil {
			t.Fatalf("never: %s: %v", what, err)
		}
		if holds(&o) {
			return
		}
		after = o.Version
	}
}

func (s *suite) ended(t *testing.T, uid state.UID, name string) (c runtimes.ContainerObserved) {
	t.Helper()
	s.until(t, name+" ends", func(o *runtimes.Observation) bool {
		if x := in(o, uid, name); x != nil {
			c = *x
		}
		return c.Name != "" && !c.Running
	})
	return c
}

func describe(t *testing.T, s *suite) {
	f, err := s.r.Describe(s.ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	if f.OS == "" || f.Arch == "" || f.Runtime == "" || f.Capacity.MilliCPU <= 0 || f.Capacity.Memory <= 0 || f.Capacity.Pods <= 0 {
		t.Errorf("facts are incomplete: %+v", f)
	}
	if !f.Capacity.Fits(f.Allocatable) {
		t.Errorf("allocatable %+v is above capacity %+v", f.Allocatable, f.Capacity)
	}
}

func pull(t *testing.T, s *suite) {
	for range 2 {
		if err := s.r.Pull(s.ctx(t), s.Image); err != nil {
			t.Fatalf("pull: %v", err)
		}
	}
	never := s.Absent
	never.Policy = "Never"
	if err := s.r.Pull(s.ctx(t), never); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("an absent image that is never pulled: %v, want ErrNotFound", err)
	}
	if s.Simulated {
		return
	}
	if err := s.r.Pull(s.ctx(t), s.Absent); !errors.Is(err, runtimes.ErrNotFound) && !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("an image that doesn't exist: %v, want ErrNotFound or ErrUnavailable", err)
	}
}

func sandbox(t *testing.T, s *suite) {
	uid := s.pod(t)
	a, err := s.r.Sandbox(s.ctx(t), s.sandboxOf(uid))
	if err != nil {
		t.Fatalf("the same sandbox again: %v", err)
	}
	b, err := s.r.Sandbox(s.ctx(t), s.sandboxOf(uid))
	if err != nil || a != b {
		t.Errorf("sandbox is %+v, then %+v (%v)", a, b, err)
	}
	s.until(t, "sandbox is observed", func(o *runtimes.Observation) bool {
		for _, x := range o.Sandboxes {
			if x.UID == uid {
				return x.IP == a.IP && x.Key == s.sandboxOf(uid).Key
			}
		}
		return false
	})
}

func run(t *testing.T, s *suite) {
	uid := s.pod(t)
	first := s.start(t, uid, "main", 0, "wait")
	if !first.Running || first.Attempt != 0 || first.StartedAt.IsZero() {
		t.Errorf("observed %+v", first)
	}
	again := s.start(t, uid, "main", 0, "wait")
	if again != first {
		t.Errorf("the same attempt began anew: %+v, then %+v", first, again)
	}
	second := s.start(t, uid, "main", 1, "wait")
	if !second.Running || second.Attempt != 1 {
		t.Errorf("the next attempt is %+v", second)
	}
}

func exitCodes(t *testing.T, s *suite) {
	uid := s.pod(t)
	for name, code := range map[string]int32{"zero": 0, "three": 3} {
		s.start(t, uid, name, 0, "exit", strconv.Itoa(int(code)))
		if c := s.ended(t, uid, name); c.ExitCode != code || c.FinishedAt.IsZero() {
			t.Errorf("%s: %+v", name, c)
		}
		if err := s.r.Run(s.ctx(t), s.container(uid, name, 0, "exit", strconv.Itoa(int(code)))); err != nil {
			t.Errorf("the same ended attempt again: %v", err)
		}
		if c := s.find(t, uid, name); c == nil || c.Running {
			t.Errorf("an ended attempt began anew: %+v", c)
		}
	}
}

func stop(t *testing.T, s *suite) {
	uid := s.pod(t)
	s.start(t, uid, "main", 0, "wait")
	started := time.Now()
	if err := s.r.Stop(s.ctx(t), uid, "main", 20*time.Second); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("a willing container took %v to stop", took)
	}
	if c := s.find(t, uid, "main"); c == nil || c.Running {
		t.Errorf("after Stop: %+v", c)
	}
	for _, name := range []string{"main", "other"} {
		if err := s.r.Stop(s.ctx(t), uid, name, time.Second); err != nil {
			t.Errorf("stop of %s, which doesn't run: %v", name, err)
		}
	}
	if err := s.r.Stop(s.ctx(t), state.UID{0xfe}, "main", time.Second); err != nil {
		t.Errorf("stop in a pod that isn't there: %v", err)
	}
}

func grace(t *testing.T, s *suite) {
	uid := s.pod(t)
	s.start(t, uid, "main", 0, "stubborn", "say", "ready", "sleep", "1h")
	if !s.Simulated {
		s.says(t, uid, "main", 0, "ready")
	}
	started := time.Now()
	if err := s.r.Stop(s.ctx(t), uid, "main", 500*time.Millisecond); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if took := time.Since(started); took < 400*time.Millisecond {
		t.Errorf("killed after %v, before its grace", took)
	}
	if c := s.find(t, uid, "main"); c == nil || c.Running || s.OS != state.Windows && c.ExitCode != 137 {
		t.Errorf("after the grace: %+v", c)
	}
}

func remove(t *testing.T, s *suite) {
	uid := s.pod(t)
	s.start(t, uid, "a", 0, "wait")
	s.start(t, uid, "b", 0, "stubborn", "sleep", "1h")
	for range 2 {
		if err := s.r.Remove(s.ctx(t), uid); err != nil {
			t.Fatalf("remove: %v", err)
		}
	}
	o, err := s.r.Observe(s.ctx(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range o.Sandboxes {
		if x.UID == uid {
			t.Errorf("the sandbox is left")
		}
	}
	for _, x := range o.Containers {
		if x.UID == uid {
			t.Errorf("container %s is left", x.Name)
		}
	}
}

func observe(t *testing.T, s *suite) {
	uid := s.pod(t)
	o, err := s.r.Observe(s.ctx(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- s.r.Run(context.WithoutCancel(t.Context()), s.container(uid, "main", 0, "wait")) }()
	s.until(t, "main runs", func(o *runtimes.Observation) bool { c := in(o, uid, "main"); return c != nil && c.Running })
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	late, err := s.r.Observe(s.ctx(t), o.Version)
	if err != nil || late.Version == o.Version || in(&late, uid, "main") == nil {
		t.Errorf("an old version waits although something changed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.r.Observe(ctx, late.Version); err == nil {
		now, err := s.r.Observe(s.ctx(t), 0)
		if err != nil || now.Version == late.Version {
			t.Errorf("a cancelled Observe returned nothing new and no error")
		}
	}
}

func execute(t *testing.T, s *suite) {
	x, ok := s.r.(runtimes.Execer)
	if !ok {
		t.Fatal("the runtime has no Exec: it is to refuse by name")
	}
	uid := s.pod(t)
	s.start(t, uid, "main", 0, "wait")
	if s.Simulated {
		_, err := x.Exec(s.ctx(t), uid, "main", runtimes.Exec{Command: []string{"x"}})
		if !errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), "simulated") {
			t.Errorf("exec where nothing runs: %v", err)
		}
		return
	}
	var out, errs bytes.Buffer
	code, err := x.Exec(s.ctx(t), uid, "main", runtimes.Exec{
		Command: []string{"/prog", "say", "hello", "warn", "careful", "exit", "7"}, Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 7 || strings.TrimSpace(out.String()) != "hello" || strings.TrimSpace(errs.String()) != "careful" {
		t.Errorf("exec: code %d, out %q, err %q: %v", code, out.String(), errs.String(), err)
	}
	if _, err := x.Exec(s.ctx(t), uid, "other", runtimes.Exec{Command: []string{"/prog"}}); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("exec in a container that isn't there: %v, want ErrNotFound", err)
	}
}

func reopen(t *testing.T, s *suite) {
	uid := s.pod(t)
	before := s.start(t, uid, "main", 0, "wait")
	s.start(t, uid, "short", 0, "exit", "5")
	s.ended(t, uid, "short")
	if s.Close != nil {
		s.Close(t, s.r)
		s.r = s.Open(t)
	}
	after := s.find(t, uid, "main")
	if after == nil || !after.Running || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("after opening again: %+v, before: %+v", after, before)
	}
	if c := s.find(t, uid, "short"); c == nil || c.Running || c.ExitCode != 5 {
		t.Errorf("the ended one: %+v", c)
	}
	if err := s.r.Stop(s.ctx(t), uid, "main", 10*time.Second); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func together(t *testing.T, s *suite) {
	var all sync.WaitGroup
	for range 4 {
		uid := s.pod(t)
		for _, name := range []string{"a", "b"} {
			for range 2 { // twice the same
				all.Go(func() {
					if err := s.r.Run(s.ctx(t), s.container(uid, name, 0, "wait")); err != nil {
						t.Errorf("run: %v", err)
					}
				})
			}
		}
		all.Go(func() {
			if _, err := s.r.Sandbox(s.ctx(t), s.sandboxOf(uid)); err != nil {
				t.Errorf("sandbox: %v", err)
			}
		})
	}
	all.Wait()
	o, err := s.r.Observe(s.ctx(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	for _, c := range o.Containers {
		if c.Running {
			runs++
		}
	}
	if runs < 8 {
		t.Errorf("%d containers run, want 8", runs)
	}
}

func missing(t *testing.T, s *suite) {
	err := s.r.Run(s.ctx(t), s.container(state.UID{0xfd}, "main", 0, "wait"))
	if !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("run without a sandbox: %v, want ErrNotFound", err)
	}
	uid := s.pod(t)
	c := s.container(uid, "main", 0, "wait")
	c.Image = s.Absent
	if err := s.r.Run(s.ctx(t), c); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("run of an image that wasn't pulled: %v, want ErrNotFound", err)
	}
}

func (s *suite) says(t *testing.T, uid state.UID, name string, attempt int32, want string) {
	t.Helper()
	path := s.container(uid, name, attempt).LogPath
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never said %q: %q, %v", name, want, b, err)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func output(t *testing.T, s *suite) {
	uid := s.pod(t)
	if s.Simulated {
		s.start(t, uid, "main", 0, "wait")
		s.says(t, uid, "main", 0, "simulated")
		return
	}
	// What ends or closes one stream loses nothing of the other, though both go to one file.
	c := s.container(uid, "main", 0, "say", "to out", "env", "hush", "sleep", "100ms", "warn", "to err", "exit", "0")
	c.Env = []string{"GREETING=hello there"}
	if err := s.r.Run(s.ctx(t), c); err != nil {
		t.Fatal(err)
	}
	s.ended(t, uid, "main")
	for _, want := range []string{"to out", "to err", "GREETING=hello there"} {
		s.says(t, uid, "main", 0, want)
	}
	apart := s.container(uid, "apart", 0, "say", "to out", "warn", "to err", "exit", "0")
	apart.ErrPath = apart.LogPath + ".err"
	if err := s.r.Run(s.ctx(t), apart); err != nil {
		t.Fatal(err)
	}
	s.ended(t, uid, "apart")
	for path, want := range map[string]string{apart.LogPath: "to out\n", apart.ErrPath: "to err\n"} {
		s.holds(t, path, want)
	}
}

// holds waits until a file holds nothing else.
func (s *suite) holds(t *testing.T, path, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(path)
		if err == nil && string(b) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s holds %q, %v, want %q", filepath.Base(path), b, err, want)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}
