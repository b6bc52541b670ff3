package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The mono-repo: so many applications, found by one ApplicationSet, six files each.
const (
	monoApps  = 10_000
	monoEach  = 6
	monoNodes = 200 // of 110 pods; every other one is Windows, and all pods are Linux
)

const monoSet = `apiVersion: tandem.dev/v1
kind: ApplicationSet
metadata: {name: prod}
spec:
  paths: [apps/*/prod]
  template:
    metadata: {name: "{1}"}
    spec: {namespace: "{1}"}
`

// monoRepo is a repository on disk, written with git fast-import.
type monoRepo struct {
	root, dir string
	clock     int
}

func monoApp(n int) string { return fmt.Sprintf("a%05d", n) }

// monoFiles are the files of one application.
func monoFiles(n, version int) map[string]string {
	app := "apps/" + monoApp(n)
	return map[string]string{
		app + "/README.md":               fmt.Sprintf("# %s\n", monoApp(n)),
		app + "/base/kustomization.yaml": "resources: [web.yaml, service.yaml]\nconfigMapGenerator:\n- {name: settings, files: [settings.ini]}\n",
		app + "/base/web.yaml":           strings.ReplaceAll(webYAML, "bench.example/web:1", fmt.Sprintf("bench.example/web:%d", version)),
		app + "/base/service.yaml":       "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n",
		app + "/base/settings.ini":       fmt.Sprintf("name = %s\n", monoApp(n)),
		app + "/prod/kustomization.yaml": "resources: [../base]\nlabels:\n- {pairs: {env: prod}, includeSelectors: false}\n",
	}
}

// newMonoRepo makes a repository of so many applications.
func newMonoRepo(ctx context.Context, apps int) (*monoRepo, error) {
	root, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return nil, err
	}
	r := &monoRepo{root: root, dir: filepath.Join(root, "mono.git")}
	if err := r.git(ctx, nil, "init", "-q", "--bare", "-b", "main", r.dir); err != nil {
		return r, err
	}
	files := map[string]string{"tandem/apps.yaml": monoSet}
	for n := range apps {
		maps.Copy(files, monoFiles(n, 1))
	}
	err = r.commit(ctx, files)
	return r, err
}

func (r *monoRepo) git(ctx context.Context, in []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.root, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull}
	cmd.Stdin = bytes.NewReader(in)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, said.String())
	}
	return nil
}

// commit puts files on top of main.
func (r *monoRepo) commit(ctx context.Context, files map[string]string) error {
	r.clock++
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit refs/heads/main\ncommitter Bench <bench@bench.example> %d +0000\ndata 1\nx\n", 1_700_000_000+r.clock)
	if r.clock > 1 {
		b.WriteString("from refs/heads/main^0\n")
	}
	for path, text := range files {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
	}
	err := r.git(ctx, b.Bytes(), "--git-dir", r.dir, "fast-import", "--quiet", "--force")
	return err
}

// serve serves the repository over HTTP with git http-backend.
func (r *monoRepo) serve(ctx context.Context) (url string, stop func(), err error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return "", nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &cgi.Handler{
		Path: program, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + r.root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + r.root, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}}
	done := make(chan struct{})
	go func() {
		_ = server.Serve(l) // ends with Close
		close(done)
	}()
	return "http://" + l.Addr().String() + "/mono.git", func() { _ = server.Close(); <-done }, nil
}

func (r *monoRepo) remove() error {
	if r == nil {
		return nil
	}
	return os.RemoveAll(r.root)
}
