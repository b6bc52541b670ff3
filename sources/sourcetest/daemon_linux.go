package sourcetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// ServeDaemon serves a repository over git:// with git's own daemon.
func ServeDaemon(t testing.TB, repo *Repo) *Daemon {
	t.Helper()
	hosttest.Need(t, "git")
	d := newDaemon(t, repo)
	program := filepath.Join(repo.run(nil, "--exec-path"), "git-daemon")
	if _, err := os.Stat(program); err != nil {
		hosttest.Lacks(t, "this test needs git daemon, which is not installed")
	}
	d.run(func(port string) *exec.Cmd {
		cmd := exec.Command(program, "--listen=127.0.0.1", "--port="+port, "--reuseaddr", "--export-all", "--base-path="+filepath.Dir(repo.Dir)) //nolint:noctx // ended by stop
		cmd.Env = d.environment
		// Its upload-packs are of its process group, and end with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	})
	d.URL = "git://" + d.address + "/" + filepath.Base(repo.Dir)
	return d
}

// A Daemon is a Server that is a process of its own.
type Daemon struct {
	*Server

	dir         string
	environment []string
}

func newDaemon(t testing.TB, repo *Repo) *Daemon {
	t.Helper()
	d := &Daemon{Server: &Server{t: t}, dir: t.TempDir()}
	hook := filepath.Join(d.dir, "hook")
	d.write("hook", strings.ReplaceAll(`#!/bin/sh
if [ -e DIR/stall ]; then "$@" | { head -c 20000; : >DIR/stalled; exec sleep 600; }; exit; fi
if [ -e DIR/slow ]; then "$@" | { for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do head -c 2000; sleep 0.1; done; exec cat; }; exit; fi
exec "$@"
`, "DIR", d.dir))
	if err := os.Chmod(hook, 0o755); err != nil { //nolint:gosec // git runs it
		t.Fatal(err)
	}
	for _, e := range environment(repo.home) {
		if !strings.HasPrefix(e, "GIT_CONFIG_COUNT=") {
			d.environment = append(d.environment, e)
		}
	}
	d.environment = append(d.environment, "GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_1=uploadpack.packObjectsHook", "GIT_CONFIG_VALUE_1="+hook)
	return d
}

// Stall makes every transfer stand still after 20,000 bytes, Slow send 2,000 of
// them ten times a second; Well ends both.
func (d *Daemon) Stall() { d.write("stall", "") }

// Slow is told with Stall.
func (d *Daemon) Slow() { d.write("slow", "") }

// Well is told with Stall.
func (d *Daemon) Well() {
	for _, name := range []string{"stall", "stalled", "slow"} {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// Stalled says whether a transfer stands still.
func (d *Daemon) Stalled() bool {
	_, err := os.Stat(filepath.Join(d.dir, "stalled"))
	return err == nil
}

func (d *Daemon) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Daemon) read(path string) string {
	d.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(raw)
}
