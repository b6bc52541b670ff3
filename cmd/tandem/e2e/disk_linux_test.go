package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// TestFullDisk fills a real node's disk under its agent, with a controller that
// has work for it: what runs goes on, also where agent and containerd are killed
// meanwhile, what can't start says why, and does once there is room.
func TestFullDisk(t *testing.T) {
	n := makeFaulty(t)
	small := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=96m,nr_inodes=8192"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink(small, n.in("agent")); err != nil {
		t.Fatal(err)
	}
	n.begin()
	n.deploy("web", 2, "real")
	before := n.lives(3)

	filler := filepath.Join(small, "filler")
	hosttest.Fill(t, filler)
	n.deploy("late", 1, "real")
	said := ""
	defer func() { t.Log("the pod that can't start said ", said) }()
	n.until("the pod says why it can't start", func() bool {
		said = n.waits("late")
		return strings.Contains(said, "no space left on device")
	})
	if err := syscall.Kill((&run{data: small}).containerd(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = n.agent.Process.Kill()
	_ = n.agent.Wait()
	processes := n.processes()
	n.join()
	ended := make(chan struct{})
	go func() { _ = n.agent.Wait(); close(ended) }()
	n.until("the agent is back, or says that the disk is full", func() bool {
		select {
		case <-ended:
			said, err := os.ReadFile(n.in("agent.log"))
			return err == nil && strings.Contains(string(said), "no space left on device")
		default:
			return n.ready()
		}
	})
	if now := n.processes(); fmt.Sprint(now) != fmt.Sprint(processes) || len(now) != 3 {
		t.Errorf("the full disk reached what runs: processes %v, then %v", processes, now)
	}
	if err := os.RemoveAll(filler); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended: // a supervisor starts it again
		n.join()
	default:
	}
	for name, now := range n.lives(4) {
		if was, had := before[name]; had && now != was || now.restarts > 0 {
			t.Errorf("%s is %+v, want %+v", name, now, was)
		}
	}
	n.verify()
}

// waits is what the container of a Deployment's pod waits for.
func (n *lost) waits(name string) string {
	list, err := n.pods()
	if err != nil {
		return ""
	}
	for i := range list.Items {
		p := &list.Items[i]
		if !strings.HasPrefix(p.Name, name+"-") {
			continue
		}
		said := string(p.Status.Phase) + " " + p.Status.Reason + ": " + p.Status.Message
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil {
				said += "; " + w.Reason + ": " + w.Message
			}
		}
		for _, c := range p.Status.Conditions {
			said += "; " + c.Reason + ": " + c.Message
		}
		return said
	}
	return ""
}
