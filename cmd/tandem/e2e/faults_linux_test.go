package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      os: {name: linux}
      nodeSelector: {kubernetes.io/hostname: %[3]s}
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "shop.example/web:1.0.0"}]
`

// deploy writes a Deployment whose pods belong on one node.
func (n *lost) deploy(name string, replicas int, node string) {
	n.t.Helper()
	if err := os.WriteFile(n.in("root/"+name+".yaml"), fmt.Appendf(nil, deployment, name, replicas, node), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// life is what must not change of a pod that nothing happens to.
type life struct {
	node, uid string
	restarts  int32
}

// lives waits until so many pods are ready, and none else is there.
func (n *lost) lives(count int) map[string]life {
	n.t.Helper()
	var found map[string]life
	n.until(fmt.Sprintf("%d pods are ready", count), func() bool {
		found = map[string]life{}
		list, err := n.pods()
		if err != nil {
			return false
		}
		ready := 0
		for i := range list.Items {
			p := &list.Items[i]
			one := life{node: p.Spec.NodeName, uid: string(p.UID)}
			for _, c := range p.Status.ContainerStatuses {
				one.restarts += c.RestartCount
				if c.Ready {
					ready++
				}
			}
			found[p.Name] = one
		}
		return ready == count && len(found) == count
	})
	return found
}

// TestRebootedNode cuts a real node's power under its agent and a controller that
// goes on: the node's pods are the same ones and each container is started again
// once, as Kubernetes does, what runs elsewhere isn't touched, and nothing of the
// time before is left.
func TestRebootedNode(t *testing.T) {
	n := makeFaulty(t)
	n.begin()
	n.deploy("web", 2, "real")
	n.deploy("beside", 1, n.other())
	before := n.lives(4)
	for boot := range 2 {
		_ = n.agent.Process.Kill()
		_ = n.agent.Wait()
		n.machine().Wipe(t.Context()) // processes, namespaces, mounts, control groups, links, rules, what lies in memory
		if left, err := n.machine().Things(t.Context()); err != nil || len(left) > 0 {
			t.Fatalf("the power cut left (%v):\n%s", err, strings.Join(left, "\n"))
		}
		n.bootID = fmt.Sprintf("boot-%d", boot+2)
		n.join()
		want := int32(boot + 1)
		n.until("all were started again", func() bool {
			list, err := n.pods()
			again := 0
			for i := range list.Items {
				for _, c := range list.Items[i].Status.ContainerStatuses {
					if c.Ready && c.RestartCount >= want {
						again++
					}
				}
			}
			return err == nil && again == 3
		})
		for name, now := range n.lives(4) {
			was := before[name]
			if was.node == "real" {
				was.restarts = want
			}
			if now != was {
				t.Errorf("boot %d: %s is %+v, want %+v", boot+2, name, now, was)
			}
		}
		list, err := n.pods()
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			p := &list.Items[i]
			last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated
			if p.Spec.NodeName == "real" && (last == nil || last.ExitCode != 255 || last.Reason != "NodeRestarted") {
				t.Errorf("%s ended before: %+v, want exit code 255 by NodeRestarted", p.Name, last)
			}
		}
	}
	n.verify()
}

// makeFaulty is a controller with a node that faults happen to, and whose
// identities wait for it.
func makeFaulty(t *testing.T) *lost {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "containerd", "runc", "nft")
	n := makeLost(t, "wait", "linux")
	n.mend()
	return n
}

// verify stops the controller and has its log checked.
func (n *lost) verify() {
	n.t.Helper()
	if err := n.controller.Process.Signal(os.Interrupt); err != nil {
		n.t.Fatal(err)
	}
	_ = n.controller.Wait()
	n.tandem("verify", n.in("controller"))
}
