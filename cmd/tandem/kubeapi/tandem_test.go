package kubeapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A caller sends requests as one user.
type caller struct {
	t      *testing.T
	server *httptest.Server
	token  string
}

func callerOf(t *testing.T, server *httptest.Server, store *access.Store, role access.Role) *caller {
	t.Helper()
	token, err := store.Issue(access.User{Name: "eva-" + string(role), Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, server: server, token: token}
}

func (c *caller) do(method, path string, body any) (code int, answer []byte) {
	c.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.server.URL+path, bytes.NewReader(raw))
	if err != nil {
		c.t.Fatal(err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.server.Client().Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// get reads a value, and wants 200.
func (c *caller) get(path string, into any) {
	c.t.Helper()
	code, raw := c.do(http.MethodGet, path, nil)
	if code != http.StatusOK {
		c.t.Fatalf("GET %s: %d %s", path, code, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		c.t.Fatalf("GET %s: %v", path, err)
	}
}

func TestStatusAndWhy(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Viewer)
	var s report.Status
	c.get(StatusPath, &s)
	var text strings.Builder
	s.Text(&text)
	for _, want := range []string{"root         main@3f2a91c  held: no room for 2 linux pods now  4/6", "h-41c2  root sts/db", "windows-1  yes, simulated  windows/amd64 10.0.20348", "taken to exist"} {
		if want == "taken to exist" {
			continue // images are recorded by the machine; this world has none
		}
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	var d report.Detail
	c.get(StatusPath+"?object=deploy/web", &d)
	if d.Ref.Namespace != "shop" || d.Workload == nil || d.Workload.Linux != (report.Ratio{Ready: 2, Wanted: 2}) || len(d.Pods) != 3 {
		t.Errorf("deploy/web: %+v", d)
	}
	decided := &state.Decided{
		Workload: state.Ref{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, OS: state.Linux, Template: w.state.Workloads[state.Ref{Kind: "StatefulSet", Namespace: "shop", Name: "db"}].Variants[0].Update.Digest,
		Asked: 2, Groups: []state.ReasonGroup{{Reason: state.NodeShortMemory, Nodes: []uint32{0}}, {Reason: state.NodeOtherOS, Nodes: []uint32{1}}},
	}
	w.write(state.RootApp, decided)
	var why report.Why
	c.get(WhyPath+"?object=sts/db&namespace=shop", &why)
	text.Reset()
	why.Text(&text)
	for _, want := range []string{"scheduler placed 0 of 2 linux pods", "linux-1   memory", "windows-1   OS windows", "fits if  1 more linux node", `main@3f2a91c "two more" by Ada <ada@shop.example>`, "base/db.yaml:1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if code, raw := c.do(http.MethodGet, WhyPath+"?object=deploy/nope", nil); code != http.StatusBadRequest || !bytes.Contains(raw, []byte("there is no Deployment nope")) {
		t.Errorf("why deploy/nope: %d %s", code, raw)
	}
}

func TestHistoryFollows(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Viewer)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+HistoryPath+"?follow=true&limit=2&object="+url.QueryEscape("node/linux-1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (l report.Line) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("history ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if a, b := next(), next(); a.Seq >= b.Seq || b.What != "pod" || b.Outcome != "ready" || b.Node != "linux-1" {
		t.Errorf("the newest two: %+v %+v", a, b)
	}
	w.write("", &state.NodeLost{Node: "linux-1", Since: state.Instant{Wall: start().UnixNano()}})
	if l := next(); l.What != "node" || l.Outcome != "lost" || !l.Bad {
		t.Errorf("followed: %+v", l)
	}
}

func TestCommandsAreRecordedWithActor(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	viewer, operator := callerOf(t, server, store, access.Viewer), callerOf(t, server, store, access.Operator)
	approve := CommandRequest{Verb: "approve", Hold: "h-41c2", Reason: "smoke tests seen"}
	if code, raw := viewer.do(http.MethodPost, CommandsPath, approve); code != http.StatusForbidden || !bytes.Contains(raw, []byte("needs the role operator")) {
		t.Errorf("viewer: %d %s", code, raw)
	}
	if code, raw := (&caller{t: t, server: server}).do(http.MethodPost, CommandsPath, approve); code != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", code, raw)
	}
	if code, raw := operator.do(http.MethodPost, CommandsPath, approve); code != http.StatusOK {
		t.Errorf("operator: %d %s", code, raw)
	}
	if code, _ := operator.do(http.MethodPost, CommandsPath, CommandRequest{Verb: "approve", Hold: "h-0", Reason: "seen"}); code != http.StatusNotFound {
		t.Errorf("unknown hold: %d, want 404", code)
	}
	if code, _ := operator.do(http.MethodPost, CommandsPath, CommandRequest{Verb: "down"}); code != http.StatusForbidden {
		t.Errorf("down as operator: %d, want 403", code)
	}
	if code, _ := operator.do(http.MethodPost, CommandsPath, map[string]string{"verb": "approve", "holdd": "h"}); code != http.StatusBadRequest {
		t.Errorf("unknown field: %d, want 400", code)
	}
	if len(w.commands) != 2 {
		t.Fatalf("%d commands reached the controller, want 2", len(w.commands))
	}
	if got := w.Words(w.commands[0].Actor) + ": " + w.Words(w.commands[0].Reason); got != "eva-operator: smoke tests seen" {
		t.Errorf("recorded %q", got)
	}
}

func TestPlanShowsFieldsPerOSAndNoSecrets(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Operator)
	next := &state.Manifest{}
	for _, o := range w.manifests[state.DigestOf([]byte("shop"))].Objects {
		changed := *o
		switch o.Ref.Kind {
		case "Deployment":
			linux, windows := deployment(state.Linux, 2), deployment(state.Windows, 4)
			linux.Spec.Template.Spec.Containers[0].Image, windows.Spec.Template.Spec.Containers[0].Image = "shop.example/web:2", "shop.example/web:2"
			changed.Variants = []state.Variant{variant(state.Linux, linux, "", 0), variant(state.Windows, windows, "", 0)}
		case "Secret":
			s := o.First().DeepCopyObject().(object)                                     //nolint:forcetypeassert // it is a Secret
			raw := bytes.Replace(mustJSON(s), []byte("Y29ycmVj"), []byte("aW5jb3Jy"), 1) // another value
			if err := json.Unmarshal(raw, s); err != nil {
				t.Fatal(err)
			}
			changed.Variants = []state.Variant{variant("", s, "", 0)}
		case "ConfigMap":
			continue
		}
		next.Objects = append(next.Objects, &changed)
	}
	request, err := report.NewPlanRequest(state.Application{Name: state.RootApp}, "feature-x@77d0f12", next)
	if err != nil {
		t.Fatal(err)
	}
	code, raw := c.do(http.MethodPost, PlanPath, request)
	if code != http.StatusOK {
		t.Fatalf("plan: %d %s", code, raw)
	}
	var p report.Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	p.Text(&text)
	want := `root  main@3f2a91c → feature-x@77d0f12
- ConfigMap shop/web-config
~ Deployment shop/web
    both     spec.template.spec.containers[web].image  shop.example/web:1 → shop.example/web:2
    windows  spec.replicas                             1 → 4
~ Secret shop/web-key
    any  data.key  (secret) → (secret)
= 2 objects unchanged
image   shop.example/web:2: could not be looked up (registry does not answer)
order   deploy/web: 2 linux, 7 windows pods start, 6 stop; ≤ 1 unavailable, ≤ 8 in all; 3 rounds
        sts/db: 1 linux pod starts
places  deploy/web windows on windows-1 ×7, process isolation
        deploy/web linux on linux-1 ×2
        sts/db linux on linux-1
nodes   linux-1 +3 −2 (5)  windows-1 +7 −4 (4)
removes 1 object. 10 pods to start, all fit.
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

func TestOldPositionsExpire(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	c := callerOf(t, server, store, access.Viewer)
	for _, version := range []string{"1", "999999"} {
		code, raw := c.do(http.MethodGet, "/api/v1/pods?watch=true&resourceVersion="+version, nil)
		if code != http.StatusGone || !bytes.Contains(raw, []byte(`"reason":"Expired"`)) {
			t.Errorf("watch from %s: %d %s", version, code, raw)
		}
	}
	if code, _ := c.do(http.MethodGet, "/api/v1/pods?watch=true&sendInitialEvents=true", nil); code != http.StatusBadRequest {
		t.Errorf("sendInitialEvents without resourceVersionMatch: %d, want 400", code)
	}
	if code, _ := c.do(http.MethodGet, "/api/v1/pods?fieldSelector=spec.nope%3Dx", nil); code != http.StatusBadRequest {
		t.Errorf("unknown field selector: %d, want 400", code)
	}
	code, raw := c.do(http.MethodGet, "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1", nil)
	if code != http.StatusOK || !bytes.Contains(raw, []byte(`"k8s.io/initial-events-end":"true"`)) || bytes.Count(raw, []byte(`"type":"ADDED"`)) != 4 {
		t.Errorf("streaming list: %d %s", code, raw)
	}
}

func TestKubectlPortForward(t *testing.T) {
	w := shop(t)
	config, _, _ := serve(t, w)
	k := stockKubectl(t, config)
	cmd := k.command("port-forward", "pod/db-0", ":8080", "-n", "shop", "--address", "127.0.0.1")
	out := &lines{seen: make(chan string, 100)}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var port int
	select {
	case line := <-out.seen:
		if _, err := fmt.Sscanf(line, "Forwarding from 127.0.0.1:%d ->", &port); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("port-forward says nothing")
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	if err != nil || string(said) != "port 8080\n" {
		t.Errorf("%q, %v", said, err)
	}
	// It was recorded before, and how it ended is when the client goes.
	w.mu.Lock()
	c := w.commands[len(w.commands)-1]
	if c.Verb != state.CmdPortForward || w.words[c.Actor] != "admin" || w.words[c.Detail] != "port 8080" {
		t.Errorf("recorded %s by %q: %q", c.Verb, w.words[c.Actor], w.words[c.Detail])
	}
	w.mu.Unlock()
	_ = cmd.Process.Kill()
	if ends := w.ended(1); ends[0].Outcome != state.SessionDone {
		t.Errorf("it ended as %+v", ends[0])
	}
}

// A connection that comes as its client goes begins no session: none would end it.
func TestNoForwardAfterTheEnd(t *testing.T) {
	w := shop(t)
	f := &forwarder{api: &api{Config: Config{Controller: w}}, call: &call{}, ports: map[int32]*forwarded{}}
	f.over()
	if err := f.begin(t.Context(), 8080); err == nil || len(w.commands) > 0 {
		t.Errorf("%v, %d commands", err, len(w.commands))
	}
}

// Roles that the root gives are the API's at once, and those of tokens no longer.
func TestRolesAreTheRoots(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	viewer, operator := callerOf(t, server, store, access.Viewer), callerOf(t, server, store, access.Operator)
	admin := callerOf(t, server, store, access.Admin)
	ask := func(c *caller, ref state.Ref) int {
		code, _ := c.do(http.MethodPost, CommandsPath, CommandRequest{Verb: "restart", Object: ref, Reason: "new certificate"})
		return code
	}
	var web, other state.Ref
	w.View(func(s *state.State) {
		for ref, o := range s.Workloads {
			if ref.Name == "web" {
				web = ref
				other = state.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: "gone"}
				w.t.Logf("%s is of %s", ref, o.App)
			}
		}
	})
	if a, b := ask(viewer, web), ask(operator, web); a != http.StatusForbidden || b == http.StatusForbidden {
		t.Errorf("by their tokens: viewer %d, operator %d", a, b)
	}
	var app state.AppName
	w.View(func(s *state.State) { app = s.Workloads[web].App })
	w.write("", &state.AccessDeclared{Access: state.Access{Grants: []state.AccessGrant{
		{Role: state.RoleOperator, Users: []state.Text{w.Person("eva-viewer")}, Apps: []string{string(app)}},
	}}})
	if a, b, c, d := ask(viewer, web), ask(viewer, other), ask(operator, web), ask(admin, web); a == http.StatusForbidden || b != http.StatusForbidden || c != http.StatusForbidden || d == http.StatusForbidden {
		t.Errorf("by the root: operator of the application %d, of another %d, nobody %d, admin %d", a, b, c, d)
	}
	if code, _ := operator.do(http.MethodGet, StatusPath, nil); code != http.StatusForbidden {
		t.Errorf("somebody without a role reads the status: %d", code)
	}
	if code, _ := viewer.do(http.MethodGet, ExportPath+"?format=bundle", nil); code != http.StatusForbidden {
		t.Errorf("an operator takes a bundle: %d", code)
	}
	w.write("", &state.AccessRemoved{})
	if a, b := ask(viewer, web), ask(operator, web); a != http.StatusForbidden || b == http.StatusForbidden {
		t.Errorf("by their tokens again: viewer %d, operator %d", a, b)
	}
	if code, raw := operator.do(http.MethodPost, CommandsPath, CommandRequest{Verb: "restart", Object: web}); code != http.StatusBadRequest || !bytes.Contains(raw, []byte("give a reason")) {
		t.Errorf("without a reason: %d %s", code, raw)
	}
}

// What a request claims to be about gives nobody a right that the command needs.
func TestCommandsByAnotherName(t *testing.T) {
	w := shop(t)
	_, server, store := serve(t, w)
	callers := map[access.Role]*caller{}
	for _, r := range access.Roles() {
		callers[r] = callerOf(t, server, store, r)
	}
	for _, x := range []struct {
		who access.Role
		CommandRequest
	}{
		{access.Viewer, CommandRequest{Verb: "down", Object: state.Ref{Kind: "SelfSubjectReview"}}},
		{access.Viewer, CommandRequest{Verb: "approve", Hold: "h-41c2", Object: state.Ref{Kind: "SelfSubjectReview"}}},
		{access.Viewer, CommandRequest{Verb: "cordon", Object: state.Ref{Kind: "SelfSubjectAccessReview", Name: "linux-1"}}},
		{access.Operator, CommandRequest{Verb: "down", Object: state.Ref{Kind: "JoinToken"}}},
		{access.ReleaseManager, CommandRequest{Verb: "down", Object: state.Ref{Kind: "Pipeline"}}},
		{access.ReleaseManager, CommandRequest{Verb: "approve", Hold: "h-41c2", Object: state.Ref{Kind: "Pipeline", Name: "shop"}}},
		{access.ReleaseManager, CommandRequest{Verb: "cordon", Object: state.Ref{Kind: "Pipeline", Name: "linux-1"}}},
		{access.ReleaseManager, CommandRequest{Verb: "cordon", Hold: "p-1", Object: state.Ref{Kind: "Node", Name: "linux-1"}}},
		{access.Operator, CommandRequest{Verb: "sync", Hold: "h-41c2", Object: state.Ref{Kind: "Application", Name: "root"}}}, // the hold's application isn't the one that is synced
		{access.Operator, CommandRequest{Verb: "restart", Object: state.Ref{Kind: "ConfigMap", Namespace: "default", Name: "x"}}},
	} {
		x.Reason = "a reason"
		if code, raw := callers[x.who].do(http.MethodPost, CommandsPath, x.CommandRequest); code != http.StatusForbidden && code != http.StatusBadRequest {
			t.Errorf("%s of %+v as %s: %d %s", x.Verb, x.Object, x.who, code, raw)
		}
	}
	if len(w.commands) > 0 {
		t.Errorf("%d commands reached the controller", len(w.commands))
	}
}
