package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// run is one life of `tandem up` and what it keeps.
type run struct {
	t        *testing.T
	bin      string
	dir      string   // the manifests
	where    []string // what up follows, with its flags; nil: dir
	data     string
	images   string
	cmd      *exec.Cmd
	out      *bytes.Buffer
	versions int
}

// patience bounds every wait of these tests.
const patience = 2 * time.Minute

func newRun(t *testing.T) *run {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "containerd", "runc", "nft")
	r := &run{t: t, dir: filepath.Join(t.TempDir(), "shop"), data: filepath.Join(t.TempDir(), "data"), images: t.TempDir(), out: new(bytes.Buffer)}
	r.bin = filepath.Join(t.TempDir(), "tandem")
	goTool(t, "build", "-o", r.bin, "github.com/tandem-gitops/tandem/cmd/tandem")
	for i := range 3 {
		goTool(t, "run", "github.com/tandem-gitops/tandem/examples/shop/images/mkimages",
			"-out", r.images, "-web", fmt.Sprintf("1.0.%d", i), "-db", fmt.Sprintf("2.0.%d", i))
	}
	if err := os.CopyFS(r.dir, os.DirFS("../../../examples/shop/base")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	return r
}

func goTool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// commit writes another version of both images into the directory.
func (r *run) commit() {
	r.t.Helper()
	v := r.versions % 3
	r.versions++
	text, err := os.ReadFile("../../../examples/shop/base/kustomization.yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	text = fmt.Appendf(text, "\nnamespace: shop\nimages:\n  - {name: shop.example/web, newTag: 1.0.%d}\n  - {name: shop.example/db, newTag: 2.0.%d}\n", v, v)
	if err := os.WriteFile(filepath.Join(r.dir, "kustomization.yaml"), text, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// up starts the program.
func (r *run) up() {
	r.t.Helper()
	// Not bound to the test's context: it is ended in order, or killed on purpose.
	where := r.where
	if where == nil {
		where = []string{r.dir}
	}
	r.cmd = exec.CommandContext(context.WithoutCancel(r.t.Context()), r.bin, append(append([]string{"up"}, where...),
		"--simulate", "windows=1", "--images", r.images, "--data", r.data, "--listen", "127.0.0.1:0", "--log-level", "debug")...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// dump makes the program and its containerd say where they hang, and ends the
// program.
func (r *run) dump() {
	if pid := r.containerd(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGUSR1) // its stacks go to its log
	}
	_ = r.cmd.Process.Signal(syscall.SIGQUIT)
	_ = r.cmd.Wait()
	said, _ := os.ReadFile(filepath.Join(r.data, "node", "containerd", "containerd.log"))
	tree, _ := exec.CommandContext(context.WithoutCancel(r.t.Context()), "ps", "axfo", "pid,ppid,stat,wchan:24,args").Output()
	r.t.Logf("containerd said:\n%s\nprocesses:\n%s", said, tree)
}

// kill ends the program as a power cut would, without the machine.
func (r *run) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// end takes everything down, however the test went.
func (r *run) end() {
	if r.cmd != nil {
		r.kill()
	}
	// It gives up by itself after two minutes and says why.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), patience+time.Minute)
	defer cancel()
	down := exec.CommandContext(ctx, r.bin, "down", "--data", r.data)
	down.Cancel = func() error { return down.Process.Signal(syscall.SIGQUIT) } // its stacks say where it hangs
	down.WaitDelay = 10 * time.Second
	out, err := down.CombinedOutput()
	if err != nil {
		r.t.Errorf("tandem down: %v\n%s", err, out)
	}
	if r.t.Failed() {
		r.t.Logf("tandem up said:\n%s", r.out)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(r.t.Context()), patience)
	defer cancel()
	left, err := r.node().Left(ctx, nil)
	if err != nil {
		r.t.Error(err)
	}
	if len(left) > 0 {
		r.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		r.node().Wipe(ctx)
	}
}

// node is whatever on this machine is this run's: its directory, and how its
// runtime and its network mark what they have elsewhere.
func (r *run) node() hosttest.Node {
	dir := filepath.Join(r.data, "node")
	return hosttest.Node{Marks: []string{r.data, hosttest.ID(filepath.Join(dir, "containerd")), hosttest.ID(dir)}}
}

// containerd is the pid of this run's private daemon: the one that logs into
// its data directory.
func (r *run) containerd() int {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/1")
	for _, l := range links {
		to, err := os.Readlink(l)
		pid := strings.Split(l, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		if err == nil && strings.HasPrefix(to, r.data) && strings.TrimSpace(string(name)) == "containerd" {
			n, _ := strconv.Atoi(pid)
			return n
		}
	}
	return 0
}

// pods asks the API.
func (r *run) pods(ctx context.Context) (list corev1.PodList, err error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(r.data, "kubeconfig"))
	if err != nil {
		return list, err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return list, err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/api/v1/namespaces/shop/pods", http.NoBody)
	if err != nil {
		return list, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return list, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	return list, err
}

// converged waits until all pods run the newest version and are ready.
func (r *run) converged() corev1.PodList {
	r.t.Helper()
	v := (r.versions - 1) % 3
	want := map[string]int{fmt.Sprintf("shop.example/web:1.0.%d", v): 4, fmt.Sprintf("shop.example/db:2.0.%d", v): 3}
	var last string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		list, err := r.pods(ctx)
		cancel()
		if err != nil {
			last = err.Error()
			continue
		}
		have := map[string]int{}
		for i := range list.Items {
			p := &list.Items[i]
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
					have[p.Spec.Containers[0].Image]++
				}
			}
		}
		last = fmt.Sprintf("%d pods, ready %v, want %v", len(list.Items), have, want)
		if len(list.Items) == 7 && fmt.Sprint(have) == fmt.Sprint(want) {
			return list
		}
	}
	r.dump()
	r.t.Fatalf("not converged after %s: %s", patience, last)
	return corev1.PodList{}
}

func (r *run) killContainerd() {
	r.t.Helper()
	pid := r.containerd()
	if pid == 0 {
		r.t.Fatal("no containerd of this run was found")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
}

// killCount is how often the program is killed, or its containerd, or both.
var killCount = flag.Int("kills", 4, "how often TestKilledAtRandomInstants kills")

// TestKilledAtRandomInstants kills the controller with its agent in the midst of
// rollouts, containerd, and both at once: it converges, nothing is restarted
// that need not be, nothing leaks, and the log verifies.
func TestKilledAtRandomInstants(t *testing.T) {
	r := newRun(t)
	kills := hosttest.Soak(*killCount, max(*killCount, 100))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r.commit()
	r.up()
	r.converged()
	for i := range kills {
		r.commit()
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond) // the random instant itself
		if i%3 == 0 {
			r.killContainerd()
		}
		if i%3 != 0 || i%2 == 0 { // both at once too
			r.kill()
			r.up()
		}
		if i%4 == 3 { // again, while it takes over
			time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
			r.kill()
			r.up()
		}
		for _, p := range r.converged().Items {
			// Simulated pods end with their process.
			if strings.HasPrefix(p.Spec.NodeName, "windows") {
				continue
			}
			for _, c := range p.Status.ContainerStatuses {
				if c.RestartCount > 0 {
					t.Errorf("kill %d: %s was restarted %d times", i, p.Name, c.RestartCount)
				}
			}
		}
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	out, err := exec.CommandContext(t.Context(), r.bin, "verify", r.data).CombinedOutput()
	if err != nil {
		t.Fatalf("tandem verify: %v\n%s", err, out)
	}
}
