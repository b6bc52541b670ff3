package hcs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
)

const aborted = 1067 // what the double ends processes with

// ask asks the double that runs beside us.
func ask(t *testing.T, name string, texts ...string) string {
	t.Helper()
	port, err := os.ReadFile(`C:\hcstest\port`)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:"+string(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := hcstest.Call(c, name, texts...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// A node is a runtime with an image and one pod.
type node struct {
	*hcs.Runtime
	dir string
	uid state.UID
	img runtimes.Image
}

func newNode(t *testing.T) *node {
	t.Helper()
	sum := state.DigestOf([]byte(t.Name()))
	n := &node{dir: filepath.Join(t.TempDir(), "node"), uid: state.UID(sum[:16]), img: found(t)}
	n.Runtime = open(t, n.dir)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	if err := n.Pull(t.Context(), n.img); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Sandbox(t.Context(), n.sandbox(n.uid)); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) sandbox(uid state.UID) runtimes.Sandbox {
	return runtimes.Sandbox{UID: uid, Key: state.PodKey{Namespace: "test", Name: "pod"}, Hostname: "pod"}
}

func (n *node) container(args ...string) runtimes.Container {
	return runtimes.Container{UID: n.uid, Name: "main", Image: n.img, Args: args, LogPath: filepath.Join(n.dir, "logs", "main.log")}
}

func (n *node) ended(t *testing.T) runtimes.ContainerObserved {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var after uint64
	for {
		o, err := n.Observe(ctx, after)
		if err != nil {
			t.Fatalf("it never ended: %v", err)
		}
		if len(o.Containers) == 1 && !o.Containers[0].Running {
			return o.Containers[0]
		}
		after = o.Version
	}
}

// system is the ID of the pod's one compute system, from its record.
func (n *node) system(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.dir, "pods", n.uid.String(), "c-main.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ ID string }
	if err := json.Unmarshal(raw, &record); err != nil {
		t.Fatal(err)
	}
	return record.ID
}

func TestCrashIsSeen(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("wait")); err != nil {
		t.Fatal(err)
	}
	ask(t, "test.crash", n.system(t))
	if c := n.ended(t); c.ExitCode == 0 {
		t.Errorf("a crash looks like success: %+v", c)
	}
}

// until waits for a file of a keeper.
func (n *node) until(t *testing.T, pattern string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		seen, err := filepath.Glob(filepath.Join(n.dir, "pods", n.uid.String(), pattern))
		if err == nil && len(seen) == 1 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("there is never a file %s", pattern)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// What ends while no agent runs is known by its keeper.
func TestEndWhileAway(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("say", "begun", "wait")); err != nil {
		t.Fatal(err)
	}
	n.until(t, "*.exit.waiting")
	id := n.system(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	ask(t, "test.crash", id)
	n.until(t, "*.exit")
	n.Runtime = open(t, n.dir)
	if c := n.ended(t); c.ExitCode != aborted || c.Error != "" {
		t.Errorf("it ended as %+v", c)
	}
	log, err := os.ReadFile(n.container().LogPath)
	if err != nil || !strings.Contains(string(log), "begun") {
		t.Errorf("its log is %q: %v", log, err)
	}
}

// The network is made again after the network service has lost everything.
func TestNetworkReset(t *testing.T) {
	n := newNode(t)
	ask(t, "test.reset")
	other := n.uid
	other[0]++
	if _, err := n.Sandbox(t.Context(), n.sandbox(other)); err != nil {
		t.Errorf("a pod after the reset: %v", err)
	}
	for _, uid := range []state.UID{n.uid, other} {
		if err := n.Remove(t.Context(), uid); err != nil {
			t.Errorf("remove %s: %v", uid, err)
		}
	}
}

// restart kills the services and waits until they are there again.
func restart(t *testing.T) {
	t.Helper()
	wish := os.Getenv("HCSTEST_RESTART")
	if wish == "" {
		t.Fatal("HCSTEST_RESTART isn't set")
	}
	port, err := os.Open(`C:\hcstest\port`) // as one who dials the services does meanwhile
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = port.Close() })
	begin := time.Now()
	if err := os.WriteFile(wish, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(wish); os.IsNotExist(err) {
			t.Logf("the services were away for %v", time.Since(begin).Round(time.Millisecond))
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the services never came back")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A crash of the services ends no container: the same life goes on, further
// processes start in it, and its end is still seen.
func TestServicesRestart(t *testing.T) {
	n := newNode(t)
	if err := n.Run(t.Context(), n.container("say", "begun", "wait")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.until(t, "*.exit.waiting")
		for begin := time.Now(); ; time.Sleep(time.Millisecond) { // the keeper may be at it
			err := os.Remove(filepath.Join(n.dir, "pods", n.uid.String(), n.system(t)+".exit.waiting"))
			if err == nil {
				break
			}
			if time.Since(begin) > 30*time.Second {
				t.Fatal(err)
			}
		}
		restart(t)
		var out bytes.Buffer
		code, err := n.Exec(t.Context(), n.uid, "main", runtimes.Exec{Command: []string{"/prog", "say", "inside"}, Stdout: &out})
		if code != 0 || err != nil || !strings.Contains(out.String(), "inside") {
			t.Errorf("a process of a container that has outlived the services: %d, %v, %q", code, err, &out)
		}
		o, err := n.Observe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Containers) != 1 || !o.Containers[0].Running {
			t.Fatalf("after a restart of the services: %+v", o.Containers)
		}
	}
	n.until(t, "*.exit.waiting") // the keeper has found it again
	ask(t, "test.crash", n.system(t))
	if c := n.ended(t); c.ExitCode != aborted || c.Error != "" {
		t.Errorf("it ended as %+v", c)
	}
}
