package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// git runs git in a work tree that no configuration of this machine reaches.
func (r *run) git(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// edits changes a file of the work tree, and pushes the commit to a branch.
func (r *run) edits(file, from, to, branch string) {
	r.t.Helper()
	name := filepath.Join(r.dir, filepath.FromSlash(file))
	text, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, bytes.ReplaceAll(text, []byte(from), []byte(to)), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.git("commit", "-qam", to)
	r.git("push", "-q", "../shop.git", "main:"+branch)
}

// tree is that of a branch of the bare repository.
func (r *run) tree(branch string) string {
	return r.git("--git-dir", "../shop.git", "rev-parse", branch+"^{tree}")
}

// asks runs the command line against this run's controller.
func (r *run) asks(args ...string) (string, error) {
	cmd := exec.CommandContext(context.WithoutCancel(r.t.Context()), r.bin, append(args, "--data", r.data)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestJobJudgesOnContainerd: a gate's Job runs in a container of a real node; its exit
// status lets a commit go to prod, or doesn't. Another text of the Job in the root judges
// anew, and the controller is killed while it does.
func TestJobJudgesOnContainerd(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		hosttest.Lacks(t, "this test needs git")
	}
	r := newBusy(t, "judge")
	bare := filepath.Join(filepath.Dir(r.dir), "shop.git")
	r.git("init", "-q", "--bare", "-b", "main", bare)
	r.git("init", "-q", "-b", "main")
	r.git("add", "-A")
	r.git("commit", "-qm", "one")
	r.git("push", "-q", bare, "main", "main:dev", "main:prod")
	r.where = []string{bare, "--ref", "main", "--path", "root"}
	r.up()
	says := func(want string) {
		t.Helper()
		r.until(func() string {
			out, err := r.asks("pipeline", "shop")
			if err == nil && strings.Contains(out, want) {
				return ""
			}
			return fmt.Sprintf("the pipeline doesn't say %q: %v\n%s", want, err, out)
		})
	}
	goes := func() {
		t.Helper()
		r.until(func() string {
			if r.tree("prod") == r.tree("dev") {
				return ""
			}
			out, _ := r.asks("pipeline", "shop")
			return "prod isn't at what dev has:\n" + out
		})
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := r.asks("history", "--all")
			lines := strings.Split(out, "\n")
			t.Logf("history:\n%s", strings.Join(lines[:min(60, len(lines))], "\n"))
		}
	})
	r.until(func() string {
		if out, err := r.asks("history", "--kind", "Converged"); err != nil || !strings.Contains(out, "shop-prod") || !strings.Contains(out, "shop-dev") {
			return "the stages have not converged: " + out
		}
		return ""
	})

	r.edits("app/web.yaml", "page: one", "page: two", "dev")
	says("dev/smoke failed")
	if r.tree("prod") == r.tree("dev") {
		t.Fatal("prod went to a commit whose Job failed")
	}

	r.edits("root/all.yaml", "echo smoke sees a fault; exit 3", "/bin/busybox sleep 3; echo all is well", "main")
	says("dev/smoke runs")
	r.kill()
	r.up()
	goes()

	// What led to the push is written down: the Job, its pod, what it said.
	out, err := r.asks("history", "--kind", "GateJobEnded")
	if err != nil || strings.Count(out, " failed ") != 1 || strings.Count(out, " succeeded ") != 1 {
		t.Errorf("the history of judges: %v\n%s", err, out)
	}
	if out, err = r.asks("history", "--kind", "PromotionEnded"); err != nil || strings.Count(out, "done") != 1 {
		t.Errorf("the history of promotions: %v\n%s", err, out)
	}
}
