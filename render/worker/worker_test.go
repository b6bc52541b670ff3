package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/render/worker"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/sources"
)

// A worker of these tests is this test program: the first argument says which
// renderer it has.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "render-") {
		make := worker.Overlay
		if os.Args[1] == "render-hostile" {
			make = func(manifest.Tokens, *sops.Keys) render.Renderer { return hostile{} }
		}
		if err := worker.Serve(os.Stdin, os.Stdout, make); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// work is what loops write to, so that nobody compiles them away.
var work int

// hostile is a renderer that a text has taken over: it does what the path says.
type hostile struct{}

func (hostile) Render(ctx context.Context, _ sources.Snapshot, app state.Application) (render.Result, error) {
	said := func(err error) (render.Result, error) {
		if err == nil {
			return render.Result{}, errors.New("it did it")
		}
		return render.Result{Problems: []state.Problem{{Cause: err.Error()}}}, nil
	}
	if call := systemCalls()[app.Path]; call != nil {
		return said(call())
	}
	switch app.Path {
	case "hang":
		select {}
	case "spin":
		for i := 0; ; i++ {
			work = i
		}
	case "grow":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
			work = len(all)
		}
	case "grow-at-once":
		return said(fmt.Errorf("%d", len(bytes.Repeat([]byte{1}, 4<<30))))
	case "exit":
		os.Exit(3)
	case "crash":
		go func() { panic("a goroutine of a library") }()
		select {}
	case "exec":
		return said(exec.CommandContext(ctx, "/bin/true").Run())
	case "dial":
		_, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:9")
		return said(err)
	case "listen":
		_, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		return said(err)
	case "open":
		_, err := os.ReadFile("/etc/passwd")
		return said(err)
	case "create":
		return said(os.WriteFile(filepath.Join(os.TempDir(), "tandem-worker-was-here"), nil, 0o600))
	}
	return render.Result{}, nil
}

func pool(t testing.TB, kind string, o worker.Options) *worker.Pool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.Command == nil {
		o.Command = []string{self, kind}
	}
	o.Tokens = rendertest.Tokens{}
	p := worker.New(o)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func renderWith(t testing.TB, r render.Renderer, tree sources.Tree, app state.Application) render.Result {
	t.Helper()
	result, err := r.Render(t.Context(), sources.Snapshot{Revision: "main@sha1:3f2a91c", FS: tree}, app)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestSameAsInProcess: for every tree of the golden tests a worker gives what a
// call in this process gives: the same manifest, byte for byte, or the same
// problems.
func TestSameAsInProcess(t *testing.T) {
	p := pool(t, "render-overlay", worker.Options{})
	here := overlay.New(overlay.Options{Tokens: rendertest.Tokens{}})
	files, err := filepath.Glob("../testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tree := rendertest.FromArchive(archive)
		for _, app := range []state.Application{{Name: state.RootApp}, {Name: "app"}, {Name: "app", Path: "prod", Namespace: "shop"}, {Name: "app", Path: "windows"}, {Name: "app", Path: "../out"}} {
			want, got := renderWith(t, here, tree, app), renderWith(t, p, tree, app)
			if diff := cmp.Diff(printed(t, &want), printed(t, &got)); diff != "" {
				t.Errorf("%s, %s at %q: (-in process +worker)\n%s", filepath.Base(file), app.Name, app.Path, diff)
			}
		}
	}
}

// printed is all that a result says.
func printed(t *testing.T, r *render.Result) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n%+v\n%+v\n%+v\n", r.Apps, r.Pipelines, r.Access, r.Problems)
	if r.Manifest != nil {
		raw, err := manifest.Encode(r.Manifest, rendertest.Secrets{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n%x\n%x\n", raw, r.Manifest.Digest, manifest.Digest(r.Manifest.Objects))
	}
	return b.String()
}

// TestSecrets: keys stay on this side; what they open is the same as without a
// worker, and where there are none it is the same problem.
func TestSecrets(t *testing.T) {
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	tree := rendertest.FromFiles(map[string]string{"s.yaml": rendertest.SOPS(t, mine.Recipient(), "pass", "password", "correct horse")})
	for name, keys := range map[string]*sops.Keys{"mine": sops.KeysOf(other, mine), "other": sops.KeysOf(other), "none": nil} {
		p := pool(t, "render-overlay", worker.Options{Keys: keys, Workers: 1})
		here := overlay.New(overlay.Options{Tokens: rendertest.Tokens{}, Keys: keys})
		want, got := renderWith(t, here, tree, state.Application{Name: "app"}), renderWith(t, p, tree, state.Application{Name: "app"})
		if diff := cmp.Diff(printed(t, &want), printed(t, &got)); diff != "" || (name == "mine") != (got.Manifest != nil) {
			t.Errorf("%s: (-in process +worker)\n%s", name, diff)
		}
	}
}

// TestLimits: a render that passes a limit is a problem that names it, and the
// next one gets a worker.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		path, want string
		limits     worker.Limits
	}{
		{"hang", "takes longer than 2s to render (limit worker.MaxTime)", worker.Limits{Time: 2 * time.Second}},
		{"spin", "takes more than 300ms of processor time to render (limit worker.MaxCPU)", worker.Limits{CPU: 300 * time.Millisecond}},
		{"grow", "takes more than 256 MiB of memory to render (limit worker.MaxMemory)", worker.Limits{Memory: 256 << 20}},
		{"grow-at-once", "takes more than 256 MiB of memory to render (limit worker.MaxMemory)", worker.Limits{Memory: 256 << 20}},
		{"exit", "ends the process that renders it, twice", worker.Limits{}},
		{"crash", "ends the process that renders it, twice", worker.Limits{}},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			p := pool(t, "render-hostile", worker.Options{Limits: c.limits, Workers: 1})
			got := renderWith(t, p, rendertest.FromFiles(nil), state.Application{Name: "app", Path: c.path})
			if len(got.Problems) != 1 || got.Problems[0].Cause != c.want || got.Problems[0].At.Path != c.path {
				t.Errorf("got %+v, want %q", got.Problems, c.want)
			}
			if got := renderWith(t, p, rendertest.FromFiles(nil), state.Application{Name: "app", Path: "nothing"}); len(got.Problems) > 0 {
				t.Errorf("the next render has problems: %v", got.Problems)
			}
		})
	}
}

// TestConfined: whatever code a text could get to run in a worker, it runs no
// program, makes no connection, opens no file and reaches no other process.
func TestConfined(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Windows has no filter of system calls")
	}
	p := pool(t, "render-hostile", worker.Options{Workers: 1})
	for _, what := range append([]string{"exec", "dial", "listen", "open", "create"}, slices.Sorted(maps.Keys(systemCalls()))...) {
		got := renderWith(t, p, rendertest.FromFiles(nil), state.Application{Name: "app", Path: what})
		if len(got.Problems) != 1 || !strings.Contains(got.Problems[0].Cause, "operation not permitted") {
			t.Errorf("%s: got %+v, want: operation not permitted", what, got.Problems)
		}
	}
}

// TestTraced: what a worker that renders asks of the kernel, seen from outside.
func TestTraced(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Windows has no filter of system calls")
	}
	hosttest.Need(t, "strace")
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "trace")
	tree, err := rendertest.FromFS(os.DirFS("../../examples/shop"))
	if err != nil {
		t.Fatal(err)
	}
	// A trace for each worker: a second one may begin before the first is idle.
	p := pool(t, "", worker.Options{Command: []string{"sh", "-c", `exec "$0" -f -qq -o "$1.$$" "$2" render-overlay`, strace, out, self}, Workers: 1})
	after := ""
	for end := time.Now().Add(time.Minute); len(after) < 1000; { // strace keeps what fills no block, and is killed with it
		for _, path := range []string{"prod", "../../etc", "dev"} {
			renderWith(t, p, tree, state.Application{Name: "shop", Path: path})
		}
		traces, err := filepath.Glob(out + ".*")
		if err != nil {
			t.Fatal(err)
		}
		after = ""
		for _, trace := range traces {
			raw, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			_, said, _ := strings.Cut(string(raw), "SECCOMP_SET_MODE_FILTER")
			after += said + "\n"
		}
		if len(after) < 1000 && time.Now().After(end) {
			t.Fatalf("the traces have no filter, or nothing after it: %q", traces)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	forbidden := regexp.MustCompile(`(?m)^\d+ +(exec\w+|socket\w*|connect|bind|sendto|sendmsg|open\w*|creat|stat\w*|lstat|newfstatat|readlink\w*|unlink\w*|mkdir\w*|rename\w*|fork|vfork|ptrace)\(.*`)
	if found := forbidden.FindAllString(after, -1); len(found) > 0 {
		t.Errorf("a worker that renders did this:\n%s", strings.Join(found[:min(20, len(found))], "\n"))
	}
}

// TestBodiesStay: an object that a render has in common with the one before is
// the same one in memory.
func TestBodiesStay(t *testing.T) {
	p := pool(t, "render-overlay", worker.Options{Workers: 1})
	file := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: %q}\n"
	tree := rendertest.FromFiles(map[string]string{"a.yaml": fmt.Sprintf(file, "a", "1"), "b.yaml": fmt.Sprintf(file, "b", "1")})
	first := renderWith(t, p, tree, state.Application{Name: "app"})
	tree = rendertest.FromFiles(map[string]string{"a.yaml": fmt.Sprintf(file, "a", "1"), "b.yaml": fmt.Sprintf(file, "b", "2")})
	second := renderWith(t, p, tree, state.Application{Name: "app"})
	if a, b := first.Manifest.Objects[0].First(), second.Manifest.Objects[0].First(); a != b {
		t.Error("what didn't change was decoded again")
	}
	if a, b := first.Manifest.Objects[1].First(), second.Manifest.Objects[1].First(); a == b {
		t.Error("what changed is what it was")
	}
}

// TestManyAtOnce: renders of several callers don't meet.
func TestManyAtOnce(t *testing.T) {
	var said bytes.Buffer
	var mu sync.Mutex
	p := pool(t, "render-overlay", worker.Options{Workers: 2, Logger: slog.New(slog.NewTextHandler(locked{&mu, &said}, nil))})
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			name := fmt.Sprintf("web-%02d", i)
			tree := rendertest.FromFiles(map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"})
			result, err := p.Render(t.Context(), sources.Snapshot{Revision: "r", FS: tree}, state.Application{Name: "app"})
			if err != nil || result.Manifest == nil || result.Manifest.Objects[0].Ref.Name != name {
				t.Errorf("%s: %v, %+v", name, err, result)
			}
		})
	}
	all.Wait()
	if said.Len() > 0 {
		t.Errorf("it was logged: %s", &said)
	}
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestStopped: a render whose caller gives up ends, and so does its worker.
func TestStopped(t *testing.T) {
	p := pool(t, "render-hostile", worker.Options{Workers: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := p.Render(ctx, sources.Snapshot{FS: rendertest.FromFiles(nil)}, state.Application{Name: "app", Path: "hang"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Render(t.Context(), sources.Snapshot{}, state.Application{}); err == nil {
		t.Error("rendered after Close")
	}
}

// BenchmarkRender has a render of the example in this process and in a worker.
func BenchmarkRender(b *testing.B) {
	tree, err := rendertest.FromFS(os.DirFS("../../examples/shop"))
	if err != nil {
		b.Fatal(err)
	}
	app := state.Application{Name: "shop", Path: "prod"}
	b.Run("process", func(b *testing.B) {
		r := overlay.New(overlay.Options{Tokens: rendertest.Tokens{}})
		for b.Loop() {
			renderWith(b, r, tree, app)
		}
	})
	b.Run("worker", func(b *testing.B) {
		p := pool(b, "render-overlay", worker.Options{Workers: 1})
		renderWith(b, p, tree, app)
		for b.Loop() {
			renderWith(b, p, tree, app)
		}
	})
}
