package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// A mixed is `tandem up` with this machine's containerd, and beside it a Windows
// machine under Wine whose agent has joined.
type mixed struct {
	*run

	machine *hcstest.Machine
	exe     string // tandem.exe
	node    string // the agent's directory
	agent   *exec.Cmd
	heard   string // the file with what the agent says; a pipe is held by keepers too, and Wait would wait for them
}

const windowsNode = "win"

func newMixed(t *testing.T) *mixed {
	t.Helper()
	if missing := hcstest.Missing(); len(missing) > 0 {
		hosttest.Lacks(t, "not installed: apt-get install "+strings.Join(missing, " "))
	}
	m := &mixed{run: newRun(t), heard: filepath.Join(t.TempDir(), "agent.log"), node: filepath.Join(t.TempDir(), "node"), exe: filepath.Join(t.TempDir(), "tandem.exe")}
	if err := hcstest.Build(t.Context(), m.exe, "github.com/tandem-gitops/tandem/cmd/tandem"); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.machine, err = hcstest.Open(t.Context(), t.TempDir(), t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.machine.Close(); err != nil {
			t.Errorf("the Windows machine: %v", err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() && m.cmd != nil { // while the agent is there to remove its pods
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
			defer cancel()
			_ = exec.CommandContext(ctx, m.bin, "down", "--data", m.data).Run()
		}
		m.killAgent()
		if t.Failed() {
			said, err := os.ReadFile(m.heard)
			t.Logf("the Windows agent said (%v):\n%s", err, said)
		}
	})
	return m
}

// windows runs a command of tandem.exe to its end.
func (m *mixed) windows(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	out, err := m.machine.Command(ctx, m.exe, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("tandem.exe %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// tandem runs a command of the Linux program to its end.
func (m *mixed) tandem(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.bin, append([]string{"--data", m.data}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("tandem %s: %v\n%s%s", strings.Join(args, " "), err, out, &errs)
	}
	return string(out)
}

// start starts the controller with the Linux node, without a workload.
func (m *mixed) start() {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "kustomization.yaml"), []byte("resources: []\nconfigMapGenerator: [{name: empty, namespace: shop, literals: [a=b]}]\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.cmd = exec.CommandContext(context.WithoutCancel(m.t.Context()), m.bin, "up", m.dir,
		"--images", m.images, "--data", m.data, "--listen", "127.0.0.1:0", "--log-level", "debug")
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.until(func() string {
		var nodes corev1.NodeList
		if err := m.get("/api/v1/nodes", &nodes); err != nil {
			return err.Error()
		}
		if len(nodes.Items) != 1 || nodes.Items[0].Spec.PodCIDR == "" {
			return fmt.Sprintf("nodes: %d", len(nodes.Items))
		}
		return ""
	})
}

// join joins the Windows machine and starts its agent.
func (m *mixed) join() {
	m.t.Helper()
	token := strings.TrimSpace(m.tandem("agent", "token", "create"))
	m.windows("agent", "join", "--server", m.address(), "--token", token, "--name", windowsNode, "--data", m.machine.Path(m.node))
	if err := m.machine.Reach(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	m.refusesWithout("computecore.dll")
	if said := m.windows("agent", "doctor", "--data", m.machine.Path(m.node)); !regexp.MustCompile(`(?s)ok +windows +Windows Server 2022.*ok +computecore.*ok +fencer .*ok +certificate .*this machine can be a node`).MatchString(said) {
		m.t.Errorf("the doctor says of a Windows machine:\n%s", said)
	}
	m.startAgent()
	var node corev1.Node
	m.until(func() string {
		if err := m.get("/api/v1/nodes/"+windowsNode, &node); err != nil {
			return err.Error()
		}
		if node.Spec.PodCIDR == "" {
			return "the Windows node has no range"
		}
		return ""
	})
	info := node.Status.NodeInfo
	if info.OperatingSystem != "windows" || info.KernelVersion != "10.0.20348.2113" || !strings.HasPrefix(info.ContainerRuntimeVersion, "hcs://") ||
		info.OSImage != "Windows Server 2022 Datacenter" || node.Annotations["tandem.dev/isolations"] != "process" {
		m.t.Errorf("the Windows node says of itself: %+v, isolations %q", info, node.Annotations["tandem.dev/isolations"])
	}
}

// refusesWithout wants an agent that doesn't run where a library of Windows'
// feature Containers is missing, and says why and what to do.
func (m *mixed) refusesWithout(library string) {
	m.t.Helper()
	path := filepath.Join(m.machine.Drive(), "windows", "system32", library)
	if err := os.Rename(path, path+".away"); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	out, err := m.machine.Command(ctx, m.exe, "agent", "run", "--data", m.machine.Path(m.node)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil || !strings.Contains(string(out), library) ||
		!strings.Contains(string(out), "install the feature Containers of Windows Server 2019 or later: Install-WindowsFeature Containers") {
		m.t.Errorf("the agent without %s: %v\n%s", library, err, out)
	}
	if err := os.Rename(path+".away", path); err != nil {
		m.t.Fatal(err)
	}
}

// address is the controller's, as agents dial it.
func (m *mixed) address() string {
	m.t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.data, "kubeconfig"))
	if err != nil {
		m.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "server: https://")
	address, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(strings.TrimSpace(address), `"`)
}

func (m *mixed) startAgent() {
	m.t.Helper()
	m.agent = m.machine.Command(context.WithoutCancel(m.t.Context()), m.exe, "agent", "run", "--data", m.machine.Path(m.node),
		"--images", m.machine.Path(m.images), "--log-level", "debug")
	heard, err := os.OpenFile(m.heard, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer heard.Close()
	m.agent.Stdout, m.agent.Stderr = heard, heard
	if err := m.agent.Start(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mixed) killAgent() {
	if m.agent != nil {
		_ = m.agent.Process.Kill()
		_ = m.agent.Wait()
		m.agent = nil
	}
}

// webs are the ready pods of web on one operating system, of one version.
func (m *mixed) webs(system, version string) (found []corev1.Pod, why string) {
	var list corev1.PodList
	if err := m.get("/api/v1/namespaces/shop/pods", &list); err != nil {
		return nil, err.Error()
	}
	for i := range list.Items {
		p := &list.Items[i]
		if p.Labels["app"] != "web" || p.Spec.OS == nil || string(p.Spec.OS.Name) != system || p.DeletionTimestamp != nil {
			continue
		}
		ready := false
		for _, c := range p.Status.Conditions {
			ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}
		if !ready || !strings.HasSuffix(p.Spec.Containers[0].Image, ":"+version) {
			return nil, fmt.Sprintf("pod %s of image %s: ready %t: %+v", p.Name, p.Spec.Containers[0].Image, ready, p.Status.ContainerStatuses)
		}
		found = append(found, *p)
	}
	if len(found) != 2 {
		return nil, fmt.Sprintf("%d pods of web on %s, want 2", len(found), system)
	}
	return found, ""
}

// wantWebs waits until all pods of web are ready in a version, on both operating
// systems, and returns those on Windows.
func (m *mixed) wantWebs(version string) (pods []corev1.Pod) {
	m.t.Helper()
	m.until(func() string {
		if _, why := m.webs("linux", version); why != "" {
			return why
		}
		var why string
		pods, why = m.webs("windows", version)
		return why
	})
	for i := range pods {
		if pods[i].Spec.NodeName != windowsNode {
			m.t.Errorf("pod %s runs on %s", pods[i].Name, pods[i].Spec.NodeName)
		}
	}
	return pods
}

func ask(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, http.NoBody)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // another connection, maybe another pod
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return string(raw), err
}

// wantService waits until one Service has led to pods of both operating systems.
func (m *mixed) wantService(version string) {
	m.t.Helper()
	address := m.service() + ":80"
	seen := map[string]bool{}
	m.until(func() string {
		said, err := ask(m.t.Context(), address)
		if err != nil {
			return err.Error()
		}
		for _, system := range []string{"linux", "windows"} {
			if strings.Contains(said, "version "+version+" on "+system+"/") {
				seen[system] = true
			}
		}
		if len(seen) != 2 {
			return fmt.Sprintf("the Service led to %v alone, at last to %q", seen, said)
		}
		return ""
	})
}

func (m *mixed) service() string {
	m.t.Helper()
	var svc corev1.Service
	if err := m.get("/api/v1/namespaces/shop/services/web", &svc); err != nil {
		m.t.Fatal(err)
	}
	return svc.Spec.ClusterIP
}

// wantBalancer waits until the Windows machine's network service has one load
// balancer, which leads from the Service's address to all pods of web.
func (m *mixed) wantBalancer(version string) {
	m.t.Helper()
	m.until(func() string {
		var pods []corev1.Pod
		for _, system := range []string{"linux", "windows"} {
			some, why := m.webs(system, version)
			if why != "" {
				return why
			}
			pods = append(pods, some...)
		}
		var balancers []struct {
			HostComputeEndpoints, FrontendVIPs []string
			PortMappings                       []struct{ Protocol, InternalPort, ExternalPort int }
		}
		var endpoints []struct {
			ID               string
			Flags            int
			IPConfigurations []struct{ IPAddress string }
		}
		for kind, into := range map[string]any{"LoadBalancers": &balancers, "Endpoints": &endpoints} {
			text, err := m.machine.Objects(m.t.Context(), kind)
			if err == nil {
				err = json.Unmarshal([]byte(text), into)
			}
			if err != nil {
				return err.Error()
			}
		}
		if len(balancers) != 1 || !slices.Equal(balancers[0].FrontendVIPs, []string{m.service()}) || fmt.Sprint(balancers[0].PortMappings) != "[{6 8080 80}]" {
			return fmt.Sprintf("load balancers: %+v", balancers)
		}
		var leads, want []string
		for _, e := range endpoints {
			if slices.Contains(balancers[0].HostComputeEndpoints, e.ID) && len(e.IPConfigurations) > 0 {
				leads = append(leads, fmt.Sprint(e.IPConfigurations[0].IPAddress, " ", e.Flags))
			}
		}
		for i := range pods {
			remote := 1
			if pods[i].Spec.NodeName == windowsNode {
				remote = 0
			}
			want = append(want, fmt.Sprint(pods[i].Status.PodIP, " ", remote))
		}
		slices.Sort(leads)
		slices.Sort(want)
		if !slices.Equal(leads, want) {
			return fmt.Sprintf("the load balancer leads to %v, want %v", leads, want)
		}
		return ""
	})
}

// wantLog waits until a pod of web has said, by its node's agent, that it runs.
func (m *mixed) wantLog(pod string) {
	m.t.Helper()
	m.until(func() string {
		out, err := exec.CommandContext(m.t.Context(), m.bin, "logs", pod, "--data", m.data).CombinedOutput()
		if err != nil || !strings.Contains(string(out), ": listening on :8080") {
			return fmt.Sprintf("its log is %q, %v", out, err)
		}
		return ""
	})
}

// killAll kills the agent, the compute and network services, or both, n times at
// random instants, and wants the same lives of the same containers after each.
func (m *mixed) killAll(pods []corev1.Pod, n int) {
	m.t.Helper()
	seed := uint64(time.Now().UnixNano())
	m.t.Logf("kills of seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		what := []string{"the services", "the agent", "both"}[(i+int(seed%3))%3]
		if what != "the services" {
			m.killAgent()
		}
		if what != "the agent" {
			if err := m.machine.KillBroker(); err != nil {
				m.t.Fatal(err)
			}
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond) // a random instant, nothing is waited for
			if err := m.machine.StartBroker(m.t.Context()); err != nil {
				m.t.Fatal(err)
			}
		}
		if what != "the services" {
			m.startAgent()
		}
		for j := range pods {
			m.wantLog(pods[j].Name)
			m.until(func() string {
				out, err := exec.CommandContext(m.t.Context(), m.bin, "exec", pods[j].Name, "--data", m.data, "--", "cmd", "/c", "echo", "said inside").CombinedOutput()
				if err != nil || !strings.Contains(string(out), "said inside") {
					return fmt.Sprintf("exec after kill %d, of %s, gave %q, %v", i, what, out, err)
				}
				return ""
			})
		}
		for _, now := range m.wantWebs("1.0.0") {
			same := slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.UID == now.UID })
			if !same || now.Status.ContainerStatuses[0].RestartCount != 0 {
				m.t.Fatalf("kill %d, of %s, restarted %s: the same pod %t, %d restarts", i, what, now.Name, same, now.Status.ContainerStatuses[0].RestartCount)
			}
		}
		m.until(func() string { // each container has its process and its keeper, and nothing else runs
			programs, err := m.machine.Programs()
			if err != nil {
				return err.Error()
			}
			count := map[string]int{}
			for _, line := range programs {
				switch {
				case strings.Contains(line, " agent run "):
					count["agent"]++
				case strings.Contains(line, " agent keep "):
					count["keeper"]++
				case strings.Contains(line, " agent fence "):
					count["fencer"]++
				default:
					count["container"]++
				}
			}
			if want := map[string]int{"agent": 1, "fencer": 1, "keeper": len(pods), "container": len(pods)}; !maps.Equal(count, want) {
				return fmt.Sprintf("after kill %d, of %s, there run %q", i, what, programs)
			}
			return ""
		})
	}
}

// nothingLeft waits until the Windows machine has nothing of pods.
func (m *mixed) nothingLeft(but ...string) {
	m.t.Helper()
	m.until(func() string {
		left, err := m.machine.Left(m.t.Context())
		if err != nil {
			return err.Error()
		}
		for _, name := range but {
			delete(left, name)
		}
		programs, err := m.machine.Programs()
		if err != nil {
			return err.Error()
		}
		if m.agent != nil {
			programs = slices.DeleteFunc(programs, func(line string) bool { // the agent and its fencer are another matter
				return strings.Contains(line, " agent run ") || strings.Contains(line, " agent fence ")
			})
		}
		if len(left) > 0 || len(programs) > 0 {
			return fmt.Sprintf("left on the Windows machine: %v, %q", left, programs)
		}
		return ""
	})
}

// TestWindowsNode is one controller with a real Linux node and tandem.exe as the
// agent of a Windows machine: the shop runs on both, one Service leads to both,
// kills of the agent and of Windows' services restart nothing, both are rolled together, and nothing
// is left.
func TestWindowsNode(t *testing.T) {
	m := newMixed(t)
	m.start()
	m.join()
	m.commit()
	pods := m.wantWebs("1.0.0")
	m.wantService("1.0.0")

	pod := &pods[0]
	if said, err := ask(t.Context(), pod.Status.PodIP+":8080"); err != nil || !strings.Contains(said, "from "+pod.Name+", version 1.0.0 on windows/") {
		t.Errorf("the pod says %q, %v", said, err)
	}
	m.wantLog(pod.Name)
	if out := m.tandem("exec", pod.Name, "--", "cmd", "/c", "echo", "said inside"); !strings.Contains(out, "said inside") {
		t.Errorf("exec gave %q", out)
	}

	var exit *exec.ExitError
	wide, err := exec.CommandContext(t.Context(), m.bin, "exec", pod.Name, "--data", m.data, "--", "cmd", "/c", "exit", "70000").CombinedOutput()
	if !errors.As(err, &exit) || exit.ExitCode() != 255 || !strings.Contains(string(wide), "exit code 70000 (0x00011170)") {
		t.Errorf("exec of a code of 32 bits: %v\n%s", err, wide)
	}

	m.killAll(pods, hosttest.Soak(2, 100))

	m.wantBalancer("1.0.0")
	service := m.service()
	stale := fmt.Sprintf(`{"FrontendVIPs":["%s9"],"PortMappings":[{"Protocol":6,"InternalPort":1,"ExternalPort":80}]}`, service[:strings.LastIndexByte(service, '.')+1])
	if err := errors.Join(m.machine.DropObjects(t.Context(), "LoadBalancers"), m.machine.LeakObject(t.Context(), "LoadBalancers", stale)); err != nil {
		t.Fatal(err)
	}
	m.wantBalancer("1.0.0") // what was lost is made again, and what nobody asked for is gone

	if err := m.machine.ResetNetworks(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.wantBalancer("1.0.0") // pods that have lost their network are made again
	m.wantService("1.0.0")

	m.commit()
	m.wantWebs("1.0.1")
	m.wantService("1.0.1")
	m.wantBalancer("1.0.1")

	m.tandem("down")
	m.nothingLeft("Networks")
	m.killAgent()
	m.windows("agent", "leave", "--data", m.machine.Path(m.node))
	m.nothingLeft()
}
