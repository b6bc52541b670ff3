package kubeapi

import (
	"bytes"
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// A kubectl is the stock program, talking to one server.
type kubectl struct {
	t      *testing.T
	binary string
	config string
}

func stockKubectl(t *testing.T, config string) *kubectl {
	t.Helper()
	binary, err := build()
	if err != nil {
		hosttest.Lacks(t, "build kubectl: "+err.Error())
	}
	return &kubectl{t: t, binary: binary, config: config}
}

// build makes kubectl from its public module once; the build cache keeps what
// it compiles.
func build() (string, error) { return buildOnce() }

var buildOnce = sync.OnceValues(func() (string, error) {
	here, err := os.Getwd() // the package's, where the sources may not say
	if err != nil {
		return "", err
	}
	root := filepath.Join(here, "..", "..", "..", ".config")
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "tandem-test", "kubectl")
	const version = "k8s.io/component-base/version."
	cmd := exec.Command("go", "build", "-o", binary, "-ldflags", "-s -w -X "+version+"gitVersion=v1.37.2 -X "+version+"gitMajor=1 -X "+version+"gitMinor=37", "./kubectl")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return binary, nil
})

func (k *kubectl) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	k.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, k.binary, args...)
	home := k.t.TempDir()
	cmd.Env = []string{"KUBECONFIG=" + k.config, "HOME=" + home, "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// run wants the command to succeed.
func (k *kubectl) run(args ...string) string {
	k.t.Helper()
	out, err := k.command(args...).CombinedOutput()
	if err != nil {
		k.t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fails wants it to fail.
func (k *kubectl) fails(args ...string) string {
	k.t.Helper()
	out, err := k.command(args...).CombinedOutput()
	if err == nil {
		k.t.Errorf("kubectl %s: succeeded\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// want checks that each expression is found in the output.
func (k *kubectl) want(out string, expressions ...string) {
	k.t.Helper()
	for _, e := range expressions {
		if !regexp.MustCompile(e).MatchString(out) {
			k.t.Errorf("no %s in\n%s", e, out)
		}
	}
}

func TestKubectlReads(t *testing.T) {
	w := shop(t)
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	k.want(k.run("version"), `Client Version: v1\.37\.2`, `Server Version: v1\.37\.0\+tandem-test`)
	k.want(k.run("get", "deploy", "-n", "shop"), `NAME +READY +UP-TO-DATE +AVAILABLE +LINUX +WINDOWS +AGE`, `web +3/3 +3 +3 +2/2 +1/1 `)
	k.want(k.run("get", "pods", "-n", "shop", "-o", "wide"), `NODE +OS`, `db-0 +1/1 +Running +0 .*10\.1\.0\.\d+ +linux-1 +linux`, `web-\w+-ccccc .* windows-1 +windows`)
	k.want(k.run("get", "nodes"), `linux-1 +Ready,Simulated +linux/amd64`, `windows-1 +Ready,Simulated +windows/amd64`)
	w.write(state.RootApp, &state.ServiceAddressed{Service: state.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, IP: "10.96.7.7"})
	k.want(k.run("get", "sts,rs,controllerrevisions,svc,cm,secrets,endpointslices", "-A"), `statefulset.apps/db +1/3`, `replicaset.apps/web-\w+ +2 +2 +2 +linux`, `configmap/web-config +1`, `service/web +ClusterIP +10\.96\.7\.7 +80/TCP`)
	k.want(k.run("get", "applications.tandem.dev"), `root +main@3f2a91c +held: no room for 2 linux pods now +4/6 +3/5 +1/1`)
	k.want(k.run("get", "all", "-n", "shop"), `pod/db-0`, `deployment.apps/web`, `service/web`)
	k.want(k.run("get", "pods", "-A", "-l", "app=db", "-o", "name"), `^pod/db-0\n$`)
	k.want(k.run("get", "pods", "-A", "--field-selector", "spec.nodeName=windows-1", "-o", "name"), `^pod/web-\w+-ccccc\n$`)
	k.want(k.run("get", "ns"), `shop +Active`)
	k.want(k.run("api-resources"), `applications +app,apps +tandem.dev/v1`)
	secret := k.run("get", "secret", "web-key", "-n", "shop", "-o", "yaml")
	k.want(secret, `tandem.dev/redacted: "true"`)
	if strings.Contains(secret, "Y29ycmVjdCBob3JzZ") || strings.Contains(secret, secretValue) {
		t.Error("a secret value is shown")
	}
	k.want(k.run("get", "deploy", "web", "-n", "shop", "-o", "yaml"), `tandem.dev/variants: '\{"linux":2,"windows":1\}'`, `replicas: 3`, `tandem.dev/origin: base/web.yaml:3`)
	k.want(k.run("describe", "pod", "db-0", "-n", "shop"), `Node: +linux-1`, `Controlled By: +StatefulSet/db`, `PodPlaced +\S+ +tandem +on linux-1`)
	k.want(k.run("describe", "node", "linux-1"), `Non-terminated Pods: +\(3 in total\)`, `memory +192Mi`, `NodeReady`)
	k.want(k.run("describe", "deploy", "web", "-n", "shop"), `Replicas: +3 desired \| 3 updated \| 3 total \| 3 available`, `web-\w+ \(2/2 replicas created\)`)
	k.want(k.run("describe", "sts", "db", "-n", "shop"), `Pods Status: +1 Running`, `Held`)
	k.want(k.run("describe", "svc", "web", "-n", "shop"), `Endpoints: +10\.1\.0\.`)
	k.want(k.run("events", "-n", "shop", "--for", "pod/db-0"), `PodObserved`)
	k.want(k.run("rollout", "status", "deploy/web", "-n", "shop"), `successfully rolled out`)
	k.want(k.run("rollout", "history", "deploy/web", "-n", "shop"), `(?m)^1 `)
	k.want(k.run("wait", "--for=condition=Ready", "pod/db-0", "-n", "shop", "--timeout=10s"), `condition met`)
	k.want(k.run("auth", "whoami"), `admin`, `tandem:admin`)
	k.want(k.fails("auth", "can-i", "update", "deployments"), `no - what Git owns is changed in Git`)
	k.want(k.run("auth", "can-i", "delete", "pods"), `yes`)
}

func TestKubectlLogsAndExec(t *testing.T) {
	w := shop(t)
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	k.want(k.run("logs", "db-0", "-n", "shop"), `^db on linux-1 starts\nready\n$`)
	k.want(k.run("logs", "db-0", "-n", "shop", "--tail=1"), `^ready\n$`)
	k.want(k.run("logs", "db-0", "-n", "shop", "-p"), `^the life before\n$`)
	k.want(k.run("logs", "deploy/web", "-n", "shop"), `web on linux-1 starts`)
	k.want(k.fails("logs", "db-0", "-n", "shop", "-c", "nope"), `container nope is not valid|has no container nope`)
	k.want(k.run("exec", "db-0", "-n", "shop", "--", "echo", "a b"), `^ran echo a b\n$`)
	cmd := k.command("exec", "-i", "db-0", "-n", "shop", "--", "cat")
	cmd.Stdin = strings.NewReader("some input")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "read \"some input\"\nran cat\n" {
		t.Errorf("exec -i: %v\n%s", err, out)
	}
	out, err = k.command("exec", "db-0", "-n", "shop", "--", "false").CombinedOutput()
	if k.want(string(out), `it failed`, `exit code 3`); err == nil || err.(*exec.ExitError).ExitCode() != 3 { //nolint:errorlint // Run returns nothing else here
		t.Errorf("exec false: %v, want exit code 3", err)
	}
	for _, sockets := range []string{"true", "false"} { // then it is SPDY
		cmd := k.command("exec", "db-0", "-n", "shop", "--", "interrupted")
		cmd.Env = append(cmd.Environ(), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+sockets)
		out, err := cmd.CombinedOutput()
		if k.want(string(out), `tandem: the command ended with exit code -1073741510 \(0xc000013a\); it is reported as 255\n`); err == nil || err.(*exec.ExitError).ExitCode() != 255 { //nolint:errorlint // as above
			t.Errorf("exec of 32 bits, websockets %s: %v, want exit code 255\n%s", sockets, err, out)
		}
	}
	if ends := w.ended(5); ends[4].Code != -1073741510 {
		t.Errorf("recorded %+v", ends)
	}
	if ends := w.ended(3); ends[0].Code != 0 || ends[2].Code != 3 || ends[2].Outcome != state.SessionDone {
		t.Errorf("recorded %+v", ends)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var said []string
	for _, c := range w.commands {
		if c.Verb == state.CmdExec {
			said = append(said, w.Words(c.Actor)+" "+w.Words(c.Detail))
		}
	}
	if len(said) != 5 || said[0] != "admin db: echo a b" {
		t.Errorf("recorded %q", said)
	}
}

func TestKubectlWrites(t *testing.T) {
	w := shop(t)
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	owned := `is written in Git: change base/web\.yaml:3:1 in https://git\.example/shop\.git, branch main`
	k.want(k.fails("scale", "deploy/web", "--replicas=9", "-n", "shop"), `Forbidden`, owned)
	k.want(k.fails("delete", "deploy", "web", "-n", "shop"), `Forbidden`, owned)
	k.want(k.fails("label", "deploy", "web", "a=b", "-n", "shop"), `Forbidden`, owned)
	k.want(k.fails("create", "cm", "x", "-n", "shop", "--validate=false"), `does not create configmaps: write them in Git`)
	k.want(k.fails("label", "node", "linux-1", "a=b"), `Forbidden`, `only spec.unschedulable`)
	k.want(k.run("cordon", "linux-1"), `node/linux-1 cordoned`)
	k.want(k.run("get", "node", "linux-1"), `SchedulingDisabled`)
	k.want(k.run("uncordon", "linux-1"), `node/linux-1 uncordoned`)
	if out := k.run("get", "node", "linux-1"); strings.Contains(out, "SchedulingDisabled") {
		t.Errorf("still cordoned:\n%s", out)
	}
	k.want(k.run("delete", "pod", "db-0", "-n", "shop", "--timeout=20s"), `pod "db-0" deleted`)
	k.want(k.fails("get", "pod", "db-0", "-n", "shop"), `NotFound`)
}

func TestKubectlWatch(t *testing.T) {
	w := shop(t)
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	cmd := k.command("get", "pods", "-n", "shop", "-w", "-l", "app=db")
	out := &lines{seen: make(chan string, 100)}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	out.wait(t, `db-0 +1/1 +Running`)
	db := state.Ref{Kind: "StatefulSet", Namespace: "shop", Name: "db"}
	w.run(db, "db-1", "linux-1", state.Linux, w.state.Workloads[db].Variants[0].Update, 1)
	out.wait(t, `db-1 +1/1 +Running`)
	w.write(state.RootApp, &state.PodStopping{UID: w.state.ByName[state.PodKey{Namespace: "shop", Name: "db-1"}].UID, Why: state.StopRequested})
	out.wait(t, `db-1 +1/1 +Terminating`)
}

// lines hands on what a program prints, line by line.
type lines struct {
	rest []byte
	seen chan string
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.seen <- string(line)
		l.rest = rest
	}
}

func (l *lines) wait(t *testing.T, expression string) {
	t.Helper()
	want := regexp.MustCompile(expression)
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		select {
		case line := <-l.seen:
			if want.MatchString(line) {
				return
			}
		case <-limit.C:
			t.Fatalf("no line like %s", expression)
		}
	}
}
