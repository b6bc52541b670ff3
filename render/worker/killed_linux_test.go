package worker_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/worker"
	"github.com/tandem-gitops/tandem/sources"
)

// meeting is a tree whose first readers wait for each other.
type meeting struct {
	sources.Tree
	met func()
}

// Stat implements fs.StatFS.
func (m meeting) Stat(name string) (fs.FileInfo, error) {
	m.met()
	return m.Tree.Stat(name)
}

// children are the worker processes of this test program.
func children(t *testing.T) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		raw, _ := os.ReadFile(file) // it may have ended
		before, after, _ := strings.Cut(string(raw), ") ")
		if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			pid, err := strconv.Atoi(strings.Fields(before)[0])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// weighs waits until the kernel weighs a process so where memory is short: a
// worker that was started beforehand may still be confining itself.
func weighs(t *testing.T, pid int, want string) {
	t.Helper()
	var got string
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		if got = strings.TrimSpace(string(raw)); got == want {
			return
		}
	}
	t.Errorf("a machine without memory weighs worker %d with %s, want %s", pid, got, want)
}

// TestKilledWhileIdle: workers that something else ends, the kernel for want of
// memory say, are no fault of the text that is rendered next.
func TestKilledWhileIdle(t *testing.T) {
	p := pool(t, "render-overlay", worker.Options{Workers: 2})
	tree := rendertest.FromFiles(map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"})
	var met, all sync.WaitGroup
	met.Add(2)
	for i := range 2 {
		all.Go(func() {
			first := sync.OnceFunc(func() { met.Done(); met.Wait() })
			app := state.Application{Name: state.AppName(fmt.Sprintf("app-%d", i))}
			if result, err := p.Render(t.Context(), sources.Snapshot{FS: meeting{tree, first}}, app); err != nil || result.Manifest == nil {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
	all.Wait()
	found := children(t)
	if len(found) < 2 {
		t.Fatalf("two renders at once had the processes %v", found)
	}
	for _, pid := range found {
		weighs(t, pid, "1000")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if result := renderWith(t, p, tree, state.Application{Name: "app"}); result.Manifest == nil {
		t.Errorf("got %+v", result.Problems)
	}
}

// TestQuiet: kustomize's own warnings do not reach the standard error of a worker,
// which is for the last words of its runtime.
func TestQuiet(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(t.TempDir(), "said") // no file: a worker writes to none
	if err := syscall.Mkfifo(said, 0o600); err != nil {
		t.Fatal(err)
	}
	words, err := syscall.Open(said, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(words) }()
	p := pool(t, "", worker.Options{Command: []string{"sh", "-c", `exec "$0" render-overlay 2>"$1"`, self, said}, Workers: 1})
	tree := rendertest.FromFiles(map[string]string{
		"kustomization.yaml":   "bases: [b]\ncommonLabels: {a: b}\nsortOptions: {order: fifo}\n",
		"b/kustomization.yaml": "commonLabels: {c: d}\nresources: [c.yaml]\n", "b/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
	})
	if res := renderWith(t, p, tree, state.Application{Name: "test"}); res.Manifest == nil || len(res.Manifest.Warnings) != 3 {
		t.Errorf("want three warnings, got %+v", res)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if n, err := syscall.Read(words, buf); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("standard error got %q, %v", buf[:max(n, 0)], err)
	}
}

// TestKilledForMemory: a render whose processes the kernel kills, as it does where
// memory is short, is no problem of the text, and a later one goes on.
func TestKilledForMemory(t *testing.T) {
	p := pool(t, "render-overlay", worker.Options{Workers: 1})
	tree := rendertest.FromFiles(map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"})
	kill := func() {
		for _, pid := range children(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
	result, err := p.Render(t.Context(), sources.Snapshot{FS: meeting{tree, kill}}, state.Application{Name: "app"})
	if err == nil || !strings.Contains(err.Error(), "memory is short") || len(result.Problems) > 0 {
		t.Errorf("got %+v, %v, want an error that says that memory is short", result.Problems, err)
	}
	if result := renderWith(t, p, tree, state.Application{Name: "app"}); result.Manifest == nil {
		t.Errorf("afterwards: %+v", result.Problems)
	}
}
