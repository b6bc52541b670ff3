package audit_test

import (
	"context"
	"crypto/sha1" //nolint:gosec // a commit's name
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
	"github.com/tandem-gitops/tandem/sources"
)

// world is a real controller with a real renderer and log, and simulated nodes.
type world struct {
	t    testing.TB
	dir  string
	data *serve.Data
	ctl  *act.Controller
	keys *sops.Keys // open encrypted Secrets; may be nil
	end  func()
}

// registry resolves every name, each to its own digests.
type registry struct{}

// Look implements act.Images.
func (registry) Look(_ context.Context, name string, _ []*state.Object) state.Image {
	return state.Image{Name: name, Index: state.DigestOf([]byte(name)), Platforms: []state.Platform{
		{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name + " linux"))},
		{OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.2113", Digest: state.DigestOf([]byte(name + " windows"))},
	}}
}

// newWorld starts a controller over a directory, new or left by another, with a
// Linux and a Windows node.
func newWorld(t testing.TB, dir string, logger *slog.Logger) *world {
	t.Helper()
	w := &world{t: t, dir: dir}
	var err error
	if w.data, err = serve.OpenData(dir, false); err != nil {
		t.Fatal(err)
	}
	var ctl *act.Controller
	hub := agent.NewHub(agent.HubConfig{Submit: func(e ...state.Event) { ctl.Submit(e...) }, Logger: logger})
	if ctl, err = act.New(t.Context(), act.Config{
		Log: w.data.Store, Library: w.data.Library, Texts: w.data.Store.Texts(), Nodes: hub, Images: registry{},
		LogID: w.data.Store.ID(), Version: "test", Logger: logger,
	}); err != nil {
		t.Fatal(err)
	}
	w.ctl = ctl
	ctx, cancel := context.WithCancel(context.Background())
	var nodes, core sync.WaitGroup
	core.Go(func() {
		if err := ctl.Run(ctx); err != nil {
			t.Errorf("the controller ended: %v", err)
		}
	})
	fleet := simulated.NewFleet(simulated.FleetOptions{Logger: logger})
	room := state.Resources{MilliCPU: 16_000, Memory: 64 << 30, Ephemeral: 100 << 30, Pods: 110}
	fleet.Add("linux-1", state.NodeFacts{OS: state.Linux, Arch: "amd64", Allocatable: room, Capacity: room}, hub.Link())
	fleet.Add("windows-1", state.NodeFacts{
		OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.2113", Isolations: []state.Isolation{state.Process}, Allocatable: room, Capacity: room,
	}, hub.Link())
	nodes.Go(func() { _ = fleet.Run(ctx) })
	w.end = sync.OnceFunc(func() {
		cancel()
		nodes.Wait()
		core.Wait()
		if err := w.data.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.end)
	w.until("nodes", func(s *state.State) bool {
		return len(s.Nodes) == 2 && s.Nodes["linux-1"].Ready && s.Nodes["windows-1"].Ready
	})
	return w
}

// until waits for a state at the watermark.
func (w *world) until(what string, holds func(*state.State) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		var seq state.Seq
		done := false
		w.ctl.View(func(s *state.State) { seq, done = s.Seq, holds(s) })
		if done {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s at record %d", what, seq)
		case <-w.ctl.Changed(seq):
		}
	}
}

func hashOf(message string) string {
	return fmt.Sprintf("%x", sha1.Sum([]byte(message))) //nolint:gosec // a commit's name
}

// push renders a tree as a commit by somebody.
func (w *world) push(by, message string, files map[string]string) {
	w.t.Helper()
	hash := hashOf(message)
	snap := sources.Snapshot{Revision: state.Revision("main@sha1:" + hash), FS: rendertest.FromFiles(files)}
	r, err := overlay.New(overlay.Options{Tokens: w.data.Secrets, Keys: w.keys}).Render(w.t.Context(), snap, state.Application{Name: state.RootApp})
	if err != nil {
		w.t.Fatal(err)
	}
	commit := state.Commit{Hash: hash, Author: w.ctl.Text(by), Committer: w.ctl.Text(by), Message: w.ctl.Text(message), Signer: w.ctl.Text(by), Parents: 1}
	e := &state.RootRendered{Revision: snap.Revision, Commit: commit, Apps: r.Apps, Manifest: r.Manifest, Problems: r.Problems}
	for _, p := range r.Problems {
		w.t.Logf("%s: %v", message, p)
		e.Detail = w.ctl.Text(p.Error())
	}
	w.ctl.Submit(e)
}

// pushApp renders a tree as a commit of an Application other than the root.
func (w *world) pushApp(app state.Application, message string, files map[string]string) []state.Problem {
	w.t.Helper()
	hash := hashOf(message)
	snap := sources.Snapshot{Revision: state.Revision("main@sha1:" + hash), FS: rendertest.FromFiles(files)}
	r, err := overlay.New(overlay.Options{Tokens: w.data.Secrets, Keys: w.keys}).Render(w.t.Context(), snap, app)
	if err != nil {
		w.t.Fatal(err)
	}
	e := &state.Rendered{App: app.Name, Revision: snap.Revision, Commit: state.Commit{Hash: hash}, Manifest: r.Manifest, Problems: r.Problems}
	for _, p := range r.Problems {
		e.Detail = w.ctl.Text(p.Error())
	}
	w.ctl.Submit(e)
	return r.Problems
}

// converged waits until a commit runs everywhere.
func (w *world) converged(message string) {
	w.t.Helper()
	hash := hashOf(message)
	w.until(message, func(s *state.State) bool {
		a := s.Apps[state.RootApp]
		for _, w := range s.Workloads {
			if len(w.Pods) != int(w.Replicas()) {
				return false // one still stops
			}
		}
		return a != nil && a.Converged && a.Revision.Commit() == hash
	})
}

// snapshot keeps the state at the watermark, as a controller does now and then.
func (w *world) snapshot() {
	w.t.Helper()
	var snap *state.Snapshot
	w.ctl.View(func(s *state.State) { snap = s.Snapshot() })
	raw, err := recordpb.Marshal(snap)
	if err == nil {
		err = w.data.Store.SaveSnapshot(history.Snapshot{Seq: snap.Seq, Digest: state.DigestOf(raw), State: raw})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// do asks for something as a person.
func (w *world) do(c *state.Command) state.Reply {
	w.t.Helper()
	reply, err := w.ctl.Do(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply
}

const canary = "canary-7c1e5f0a-do-not-tell"

// shop is a tree: web on both systems, an ordered db, and a Secret.
func shop(image string, replicas int) map[string]string {
	return map[string]string{
		"kustomization.yaml": "resources: [web.yaml, db.yaml, secret.yaml]\n",
		"secret.yaml": `apiVersion: v1
kind: Secret
metadata: {name: till, namespace: default}
stringData: {password: ` + canary + `}
`,
		"db.yaml": `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      os: {name: linux}
      containers:
        - name: db
          image: shop.example/db:1
          env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: till, key: password}}}]
`,
		"web.yaml": fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      os: {name: windows}
      containers: [{name: web, image: %q}]
`, replicas, image),
	}
}

// lived is a stopped directory with two commits, a restart and a refused commit.
func lived(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	w.push("Ada <ada@shop.example>", "first", shop("shop.example/web:1", 2))
	w.converged("first")
	w.snapshot()
	w.push("Bob <bob@shop.example>", "second", shop("shop.example/web:2", 3))
	w.converged("second")
	w.do(&state.Command{
		Verb: state.CmdRestart, Object: state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}, Actor: w.ctl.Text("eva"), Reason: w.ctl.Text("it leaks"),
	})
	w.until("the restart", func(s *state.State) bool {
		wl := s.Workloads[state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}]
		return wl.Restart > 0 && wl.Complete && len(wl.Pods) == 3 && s.Apps[state.RootApp].Converged
	})
	w.push("Ada <ada@shop.example>", "third", map[string]string{"kustomization.yaml": "resources: [gone.yaml]\n"})
	w.until("the rejection", func(s *state.State) bool { return s.Apps[state.RootApp].Rejected != nil })
	w.end()
	return dir
}

// copied is another directory with the same files.
func copied(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
