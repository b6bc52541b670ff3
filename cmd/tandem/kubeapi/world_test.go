package kubeapi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A world is a controller made by hand: records are folded as they are written.
type world struct {
	t testing.TB

	mu        sync.Mutex
	state     *state.State
	records   []*state.Record
	changed   chan struct{}
	words     map[state.Text]string
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
	commands  []*state.Command
	stays     bool          // a pod that is deleted
	goesOn    chan struct{} // somebody is in a pod until they go
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, changed: make(chan struct{}), goesOn: make(chan struct{}, 8), words: map[state.Text]string{},
		manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{},
	}
	w.state = state.New(w)
	return w
}

func (w *world) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := w.manifests[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no manifest %s", d)
}

func (w *world) Template(d state.Digest) (*state.Template, error) {
	if m := w.templates[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no template %s", d)
}

// start is when every world begins.
func start() time.Time { return time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) }

// write folds facts, one second after the other.
func (w *world) write(app state.AppName, facts ...state.Fact) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range facts {
		n := time.Duration(len(w.records)) * time.Second
		r := &state.Record{Seq: w.state.Seq + 1, At: state.Instant{Mono: n, Wall: start().Add(n).UnixNano()}, App: app, Fact: f}
		if err := w.state.Apply(r); err != nil {
			w.t.Errorf("write %s: %v", f.Kind(), err)
			return
		}
		w.records = append(w.records, r)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) View(see func(*state.State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	see(w.state)
}

func (w *world) Changed(after state.Seq) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Seq > after {
		c := make(chan struct{})
		close(c)
		return c
	}
	return w.changed
}

func (w *world) Do(_ context.Context, c *state.Command) (state.Reply, error) {
	w.mu.Lock()
	w.commands = append(w.commands, c)
	w.mu.Unlock()
	var facts []state.Fact
	switch c.Verb {
	case state.CmdCordon, state.CmdUncordon:
		facts = append(facts, &state.NodeCordoned{Node: state.NodeName(c.Object.Name), On: c.Verb == state.CmdCordon})
	case state.CmdDeletePod:
		p := w.state.ByName[state.PodKey{Namespace: c.Object.Namespace, Name: c.Object.Name}]
		if p == nil {
			return state.Reply{Code: state.ReplyNotFound}, nil
		}
		if !w.stays {
			facts = append(facts, &state.PodStopping{UID: p.UID, Why: state.StopRequested}, &state.PodGone{UID: p.UID})
		}
	case state.CmdDropClaim:
		v := w.state.Claims[c.Object].Volume
		facts = append(facts, &state.ClaimDropped{Claim: c.Object, Volume: v, Why: state.DropRequested}, &state.VolumeGone{Volume: v})
	case state.CmdApprove:
		if w.state.Holds[c.Hold] == nil {
			return state.Reply{Code: state.ReplyNotFound}, nil
		}
	default:
	}
	w.write("", append([]state.Fact{&state.Commanded{Verb: c.Verb, Object: c.Object, Reason: c.Reason, Detail: c.Detail, ID: c.Hold}}, facts...)...)
	return state.Reply{Code: state.ReplyDone, Seq: w.state.Seq}, nil
}

// Submit records checks as the machine does.
func (w *world) Submit(events ...state.Event) {
	for _, e := range events {
		if x, ok := e.(*state.SessionOver); ok {
			w.write("", &state.SessionEnded{Session: x.Session, Outcome: x.Outcome, Code: x.Code, Detail: x.Detail})
			continue
		}
		c, ok := e.(*state.Checked)
		if !ok {
			continue
		}
		_, up := w.state.Lines[c.Pipeline].Stage(c.Stage)
		if had := up.Check(c.Name, c.Commit); had == nil || had.Time < c.Time {
			w.write("", &state.CheckReported{Pipeline: c.Pipeline, Stage: c.Stage, Name: c.Name, Commit: c.Commit, OK: c.OK, Detail: c.Detail, Time: c.Time})
		}
	}
}

// ended are the outcomes of what people did in pods; it waits for so many.
func (w *world) ended(n int) []*state.SessionEnded {
	w.t.Helper()
	late := time.After(time.Minute)
	for {
		var out []*state.SessionEnded
		w.mu.Lock()
		for _, r := range w.records {
			if f, ok := r.Fact.(*state.SessionEnded); ok {
				out = append(out, f)
			}
		}
		changed := w.changed
		w.mu.Unlock()
		if len(out) >= n {
			return out
		}
		select {
		case <-changed:
		case <-late:
			w.t.Fatalf("%d sessions ended, want %d", len(out), n)
		}
	}
}

func (w *world) Person(name string) state.Text { return w.Text(name) }

func (w *world) Text(clear string) state.Text {
	sum := sha256.Sum256([]byte(clear))
	t := state.Text(sum[:16])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.words[t] = clear
	return t
}

// Words may be called within View.
func (w *world) Words(t state.Text) string {
	if s, ok := w.words[t]; ok {
		return s
	}
	return "(erased)"
}

func (w *world) Records(_ context.Context, from state.Seq) iter.Seq2[*state.Record, error] {
	w.mu.Lock()
	records := w.records
	w.mu.Unlock()
	return func(yield func(*state.Record, error) bool) {
		for _, r := range records {
			if r.Seq >= from && !yield(r, nil) {
				return
			}
		}
	}
}

func (w *world) Logs(ctx context.Context, node state.NodeName, _ state.UID, container string, o LogOptions) (io.ReadCloser, error) {
	if node == "windows-1" {
		return nil, fmt.Errorf("node windows-1 is not connected: %w", runtimes.ErrUnavailable)
	}
	lines := []string{container + " on " + string(node) + " starts", "ready"}
	if o.Previous {
		lines = []string{"the life before"}
	}
	if o.Tail >= 0 {
		lines = lines[max(0, len(lines)-int(o.Tail)):]
	}
	text := strings.NewReader(strings.Join(lines, "\n") + "\n")
	if o.Follow { // more may come until the client goes
		more, end := io.Pipe()
		context.AfterFunc(ctx, func() { _ = end.Close() })
		return io.NopCloser(io.MultiReader(text, more)), nil
	}
	return io.NopCloser(text), nil
}

func (w *world) Exec(ctx context.Context, _ state.NodeName, _ state.UID, _ string, x runtimes.Exec) (int, error) {
	if x.Stdin != nil {
		in, err := io.ReadAll(x.Stdin)
		if err != nil {
			return 0, err
		}
		if _, err := fmt.Fprintf(x.Stdout, "read %q\n", in); err != nil {
			return 0, err
		}
	}
	if _, err := fmt.Fprintf(x.Stdout, "ran %s\n", strings.Join(x.Command, " ")); err != nil {
		return 0, err
	}
	if x.Command[0] == "wait" {
		w.goesOn <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if x.Command[0] == "false" {
		_, err := fmt.Fprintln(x.Stderr, "it failed")
		return 3, err
	}
	if x.Command[0] == "interrupted" {
		return -1073741510, nil // 0xc000013a, as Windows says it
	}
	return 0, nil
}

func (w *world) PortForward(ctx context.Context, _ state.NodeName, _ state.UID, port uint16, conn io.ReadWriteCloser) error {
	if port == 9 { // goes on until either end closes
		w.goesOn <- struct{}{}
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		_, err := io.Copy(io.Discard, conn)
		return err
	}
	if _, err := fmt.Fprintf(conn, "port %d\n", port); err != nil {
		return err
	}
	return conn.Close()
}

// template stores a template of a pod with one container.
func (w *world) template(os state.OS, app, image string) *state.Template {
	t, _ := state.NewTemplate(os, podTemplate(os, app, image), []state.Image{{Name: image, Index: state.DigestOf([]byte(image)), Assumed: true}})
	w.templates[t.Digest] = t
	return t
}

func podTemplate(os state.OS, app, image string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			OS: &corev1.PodOS{Name: corev1.OSName(os)},
			Containers: []corev1.Container{{
				Name: app, Image: image, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: quantity.MustParse("64Mi")}},
			}},
		},
	}
}

func deployment(os state.OS, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Labels: map[string]string{"app": "web"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: *podTemplate(os, "web", "shop.example/web:1"),
		},
	}
}

func variant(os state.OS, b state.Body, path string, line int32) state.Variant {
	raw := mustJSON(b)
	return state.Variant{OS: os, Body: b, Digest: state.DigestOf(raw), Origin: state.Origin{Path: path, Line: line, Col: 1}}
}

const secretValue = "correct horse battery staple"

// shop is a world in which a shop runs: web on both systems, db in order.
func shop(t testing.TB) *world {
	w := newWorld(t)
	three := int32(3)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &three, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: *podTemplate(state.Linux, "db", "shop.example/db:1"),
		},
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web-config", Namespace: "shop"}, Data: map[string]string{"greeting": "hello"}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-key", Namespace: "shop"}, Data: map[string][]byte{"key": []byte(secretValue)}}
	ref := func(kind, name string) state.Ref { return state.Ref{Kind: kind, Namespace: "shop", Name: name} }
	m := &state.Manifest{App: state.RootApp, Digest: state.DigestOf([]byte("shop")), Objects: []*state.Object{
		{Ref: ref("ConfigMap", "web-config"), Variants: []state.Variant{variant("", config, "base/config.yaml", 1)}},
		{Ref: ref("Deployment", "web"), Variants: []state.Variant{
			variant(state.Linux, deployment(state.Linux, 2), "base/web.yaml", 3), variant(state.Windows, deployment(state.Windows, 1), "base/web.yaml", 3),
		}},
		{Ref: ref("Secret", "web-key"), Variants: []state.Variant{variant("", secret, "base/secret.yaml", 1)}},
		{Ref: ref("Service", "web"), Variants: []state.Variant{variant("", service, "base/web.yaml", 40)}},
		{Ref: ref("StatefulSet", "db"), Variants: []state.Variant{variant(state.Linux, set, "base/db.yaml", 1)}},
	}}
	w.manifests[m.Digest] = m
	var changes []state.Change
	for _, o := range m.Objects {
		changes = append(changes, state.Change{Ref: o.Ref, Verb: state.Create, Digest: o.Digest()})
	}
	facts := func(os state.OS, build string) state.NodeFacts {
		r := state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 100 << 30, Pods: 110}
		return state.NodeFacts{OS: os, Arch: "amd64", OSVersion: build, Capacity: r, Allocatable: r, Simulated: true, Agent: "0.1.0", Runtime: "simulated://0.1.0", Address: "10.0.0.1"}
	}
	commit := state.Commit{Hash: "3f2a91c", Author: w.Text("Ada <ada@shop.example>"), Message: w.Text("two more")}
	revision := state.Revision("main@sha1:3f2a91c000000000000000000000000000000000")
	w.write("", &state.LogStarted{ID: state.DigestOf([]byte("log")), Format: 1}, &state.ControllerStarted{Version: "0.1.0"},
		&state.NodeJoined{Node: "linux-1", Facts: facts(state.Linux, ""), BootID: "a"}, &state.NodeReady{Node: "linux-1", BootID: "a"},
		&state.NodeJoined{Node: "windows-1", Facts: facts(state.Windows, "10.0.20348"), BootID: "b"}, &state.NodeReady{Node: "windows-1", BootID: "b"},
		&state.AppDeclared{Application: state.Application{Name: state.RootApp, Source: state.AppSource{Repo: "https://git.example/shop.git", Ref: "main"}, Path: "."}})
	w.write(state.RootApp, &state.RevisionApplied{Revision: revision, Commit: commit, Manifest: m.Digest, Changes: changes})
	linux, windows, db := w.template(state.Linux, "web", "shop.example/web:1"), w.template(state.Windows, "web", "shop.example/web:1"), w.template(state.Linux, "db", "shop.example/db:1")
	w.write(state.RootApp,
		&state.Revised{Workload: ref("Deployment", "web"), OS: state.Linux, Template: linux.Digest, Number: 1},
		&state.Revised{Workload: ref("Deployment", "web"), OS: state.Windows, Template: windows.Digest, Number: 1},
		&state.Revised{Workload: ref("StatefulSet", "db"), OS: state.Linux, Template: db.Digest, Number: 1})
	w.run(ref("Deployment", "web"), "web-"+linux.Hash+"-aaaaa", "linux-1", state.Linux, linux, -1)
	w.run(ref("Deployment", "web"), "web-"+linux.Hash+"-bbbbb", "linux-1", state.Linux, linux, -1)
	w.run(ref("Deployment", "web"), "web-"+windows.Hash+"-ccccc", "windows-1", state.Windows, windows, -1)
	w.run(ref("StatefulSet", "db"), "db-0", "linux-1", state.Linux, db, 0)
	w.write(state.RootApp, &state.Held{ID: "h-41c2", Object: ref("StatefulSet", "db"), Code: state.HoldNoRoom, OS: state.Linux, Count: 2})
	return w
}

// run places a pod and makes it ready.
func (w *world) run(workload state.Ref, name string, node state.NodeName, os state.OS, t *state.Template, ordinal int32) {
	w.write(state.RootApp, &state.PodPlaced{Pod: state.PodKey{Namespace: "shop", Name: name}, Workload: workload, OS: os, Ordinal: ordinal, Template: t.Digest, Node: node})
	uid := state.NewUID(w.state.LogID, w.state.Seq, "shop", name)
	w.write(state.RootApp, &state.PodObserved{UID: uid, Phase: state.Running, Ready: true, IP: fmt.Sprintf("10.1.0.%d", w.state.Seq), Containers: []state.ContainerStatus{{
		Name: t.Spec.Spec.Containers[0].Name, State: state.ContainerRunning, Ready: true, Started: true, Since: start().UnixNano(),
	}}})
}

// serve starts the API of a world, and gives a kubeconfig for it.
func serve(t *testing.T, w *world) (kubeconfig string, server *httptest.Server, store *access.Store) {
	t.Helper()
	return serveAs(t, w, w)
}

// serveRuled is the same for a world that a machine rules.
func serveRuled(t *testing.T, w *ruled) string {
	t.Helper()
	config, _, _ := serveAs(t, w, w.world)
	return config
}

func serveAs(t *testing.T, c Controller, nodes Nodes) (kubeconfig string, server *httptest.Server, store *access.Store) {
	t.Helper()
	dir := t.TempDir()
	store, err := access.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	server = httptest.NewUnstartedServer(New(Config{Controller: c, Nodes: nodes, Access: store, Logger: slog.New(slog.DiscardHandler), Version: "test"}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	kubeconfig = dir + "/kubeconfig"
	if _, err := store.WriteKubeconfig(kubeconfig, server.URL, pemOf(server)); err != nil {
		t.Fatal(err)
	}
	return kubeconfig, server, store
}
