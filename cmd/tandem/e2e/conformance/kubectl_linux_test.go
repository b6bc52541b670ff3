package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// stockKubectl is the public program: `make test` has it, otherwise it is built
// once for all checks, which go on beside each other.
func stockKubectl() (string, error) {
	if path := os.Getenv("TANDEM_KUBECTL"); path != "" {
		return path, nil
	}
	return buildKubectl()
}

var buildKubectl = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "tandem-test", "kubectl-e2e")
	cmd := exec.Command("go", "build", "-o", binary, "./kubectl")
	cmd.Dir = filepath.Join("..", "..", "..", "..", ".config") // from this package's, where tests run
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kubectl: %w\n%s", err, out)
	}
	return binary, nil
})

// A client is a command line against the cluster: tandem's or kubectl's.
type client struct {
	name string
	make func(args ...string) *exec.Cmd
}

// clients of both programs, for the namespace of the check.
func (k *kit) programs() []client {
	k.Helper()
	kubectl, err := stockKubectl()
	if err != nil {
		k.Fatal(err)
	}
	home := k.TempDir()
	return []client{
		{"kubectl", func(args ...string) *exec.Cmd {
			cmd := exec.CommandContext(k.Context(), kubectl, append([]string{"-n", k.ns}, args...)...)
			cmd.Env = []string{"KUBECONFIG=" + k.c.kube, "HOME=" + home, "PATH=" + os.Getenv("PATH")}
			return cmd
		}},
		{"tandem", func(args ...string) *exec.Cmd {
			cmd := exec.CommandContext(k.Context(), k.c.binary, append([]string{"-n", k.ns, "--data", filepath.Dir(k.c.kube)}, args...)...)
			cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
			return cmd
		}},
	}
}

// prints runs a command that must succeed.
func (k *kit) prints(cmd *exec.Cmd) string {
	k.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		k.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errs.String())
	}
	return out.String()
}

// background starts a command, whose output is shown as it comes, and ends it
// with the check.
func (k *kit) background(cmd *exec.Cmd) *syncBuffer {
	k.Helper()
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			k.Errorf("%s did not end when interrupted", cmd)
		}
	})
	return out
}

// shows waits until the output of a program has a text.
func (k *kit) shows(out *syncBuffer, text string) string {
	k.Helper()
	found := regexp.MustCompile(text)
	end := time.After(patience)
	for {
		if s := out.String(); found.MatchString(s) {
			return s
		}
		select {
		case <-time.After(20 * time.Millisecond): // between two looks
		case <-end:
			k.Fatalf("no %q in\n%s", text, out)
		}
	}
}

// pty makes a terminal of a size: its two ends.
func pty(w, h uint16) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err := size(master, w, h); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func size(master *os.File, w, h uint16) error {
	return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: h, Col: w})
}

func streamChecks() []check {
	each := func(name string, do func(k *kit, c client)) check {
		return check{name, func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				// The first line comes before the others by more than a second.
				sh(c, "echo first; sleep 2; echo second; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done")
				srv := *c.DeepCopy()
				srv.Name = "server"
				serves(&srv)
				srv.ReadinessProbe = &corev1.Probe{ // a server that runs may not listen yet
					ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1,
				}
				p.Spec.Containers = append(p.Spec.Containers, srv)
			}))
			k.ready("web")
			for _, c := range k.programs() {
				do(k, c)
			}
		}}
	}
	return []check{
		each("[sig-cli] Kubectl logs should be able to retrieve and filter logs: since, tail, follow", func(k *kit, c client) {
			out := k.background(c.make("logs", "web", "-c", "main", "-f"))
			k.shows(out, `(?s)^first\nsecond\nline 1\n.*line 9\n`)
			if got := k.prints(c.make("logs", "web", "-c", "main", "--tail", "1")); !strings.HasPrefix(got, "line ") || strings.Count(got, "\n") != 1 {
				k.Errorf("%s logs --tail 1: %q", c.name, got)
			}
			if got := k.prints(c.make("logs", "web", "-c", "main", "--since", "1s")); strings.Contains(got, "first") || !strings.Contains(got, "line ") {
				k.Errorf("%s logs --since 1s: %q", c.name, got)
			}
			if got := k.prints(c.make("logs", "web", "-c", "main", "--timestamps")); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z first\n`).MatchString(got) {
				k.Errorf("%s logs --timestamps: %q", c.name, got)
			}
		}),
		each("[sig-cli] Kubectl client should support exec: exit codes, and input to its end", func(k *kit, c client) {
			cmd := c.make("exec", "-i", "web", "-c", "main", "--", "/bin/sh", "-c", "cat; exit 42")
			cmd.Stdin = strings.NewReader(strings.Repeat("0123456789abcde\n", 1<<16))
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != 42 || out.Len() != 1<<20 {
				k.Errorf("%s: %d bytes, %v", c.name, out.Len(), err)
			}
		}),
		each("[sig-cli] Kubectl client should support exec with a terminal that changes its size", func(k *kit, c client) {
			master, slave, err := pty(100, 40)
			if err != nil {
				k.Fatal(err)
			}
			defer master.Close()
			cmd := c.make("exec", "-it", "web", "-c", "main", "--", "/bin/sh", "-c", "trap 'stty size' WINCH; stty size; while :; do read -r l && echo \"got $l\"; done")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				k.Fatal(err)
			}
			_ = slave.Close()
			out := &syncBuffer{}
			done := make(chan struct{})
			go func() { defer close(done); _, _ = io.Copy(out, master) }()
			k.shows(out, "40 100\r\n")
			if _, err := master.WriteString("hello\n"); err != nil {
				k.Fatal(err)
			}
			k.shows(out, "got hello\r\n")
			if err := size(master, 81, 25); err != nil {
				k.Fatal(err)
			}
			// A shell looks at its traps between commands.
			if _, err := master.WriteString("\n"); err != nil {
				k.Fatal(err)
			}
			k.shows(out, "25 81\r\n")
			if _, err := master.WriteString("\x03"); err != nil { // Ctrl-C is the container's to take
				k.Fatal(err)
			}
			_ = cmd.Wait()
			_ = master.Close()
			<-done
		}),
		each("[sig-cli] Kubectl Port forwarding should support forwarding over websockets", func(k *kit, c client) {
			out := k.background(c.make("port-forward", "web", ":8080"))
			said := k.shows(out, `Forwarding from 127\.0\.0\.1:\d+ -> 8080`)
			at := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(said)
			for range 3 {
				req, err := http.NewRequestWithContext(k.Context(), http.MethodGet, "http://"+at+"/", http.NoBody)
				if err != nil {
					k.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					k.Fatalf("%s: %v\n%s", c.name, err, out)
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(body) != "web\n" {
					k.Errorf("%s: %q, %v", c.name, body, err)
				}
			}
		}),
		{"[sig-cli] Kubectl cp should copy files both ways where there is tar", func(k *kit) {
			k.apply(k.pod("web", nil))
			k.ready("web")
			from := filepath.Join(k.TempDir(), "from")
			if err := os.WriteFile(from, []byte(strings.Repeat("copied\n", 1000)), 0o600); err != nil {
				k.Fatal(err)
			}
			c := k.programs()[0]
			k.prints(c.make("cp", from, "web:/tmp/there"))
			back := from + "-back"
			k.prints(c.make("cp", "web:/tmp/there", back))
			if b, err := os.ReadFile(back); err != nil || string(b) != strings.Repeat("copied\n", 1000) {
				k.Errorf("got %d bytes, %v", len(b), err)
			}
		}},
		{"[sig-cli] Kubectl logs should tell of the life before this one", func(k *kit) {
			k.apply(k.pod("web", func(p *corev1.Pod, c *corev1.Container) {
				inits("true")(p, c)
				sh(c, "echo . >>/state/lives; echo life $(wc -l </state/lives); if [ $(wc -l </state/lives) = 1 ]; then exit 1; fi; "+idle)
			}))
			k.until("web", "restarted", restarted)
			k.says("web", "life 2\n", nil)
			for _, c := range k.programs() {
				k.equal(c.name, k.prints(c.make("logs", "web", "--previous")), "life 1\n")
			}
		}},
	}
}
