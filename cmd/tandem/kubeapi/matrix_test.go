package kubeapi

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// A right is who may do something, and whether a grant for the application that it
// belongs to is enough.
type right struct {
	roles []access.Role // nil: nobody, Git owns it
	app   bool
}

func rights() (all, audit, release, operate, operateApp, releaseApp, admin, nobody right) {
	all = right{access.Roles(), true} // who has any role reads everything
	audit = right{[]access.Role{access.Auditor, access.Admin}, false}
	release = right{[]access.Role{access.ReleaseManager, access.Admin}, false}
	operate = right{[]access.Role{access.Operator, access.Admin}, false}
	operateApp, releaseApp = right{operate.roles, true}, right{release.roles, true}
	admin = right{[]access.Role{access.Admin}, false}
	return all, audit, release, operate, operateApp, releaseApp, admin, right{}
}

// kubeRights are the rights on every kind and subresource of the API by Kubernetes's
// verbs; a word that isn't here is nobody's.
func kubeRights() map[string]map[string]right {
	all, _, _, operate, operateApp, _, admin, _ := rights()
	reads := func(more map[string]right) map[string]right {
		out := map[string]right{"get": all, "list": all, "watch": all}
		maps.Copy(out, more)
		return out
	}
	adminApp := right{admin.roles, true}
	return map[string]map[string]right{
		"pods": reads(map[string]right{"delete": operateApp}), "pods/log": {"get": all}, "pods/exec": {"create": operateApp, "get": operateApp},
		"pods/portforward": {"create": operateApp, "get": operateApp}, "pods/eviction": {"create": operateApp},
		"nodes": reads(map[string]right{"patch": operate}), "persistentvolumeclaims": reads(map[string]right{"delete": adminApp}),
		"services": reads(nil), "configmaps": reads(nil), "serviceaccounts": reads(nil), "secrets": reads(nil), "namespaces": reads(nil), "events": reads(nil),
		"deployments": reads(nil), "statefulsets": reads(nil), "replicasets": reads(nil), "controllerrevisions": reads(nil), "daemonsets": reads(nil),
		"jobs": reads(nil), "cronjobs": reads(nil), "poddisruptionbudgets": reads(nil), "priorityclasses": reads(nil), "endpointslices": reads(nil), "applications": reads(nil),
	}
}

// routeRights are those on Tandem's own endpoints; what asks by its body or query is in
// the table of commands, or has a row for each.
func routeRights() map[string]right {
	all, audit, _, operate, operateApp, _, _, _ := rights()
	return map[string]right{
		"GET status": all, "GET pipelines": all, "GET why": all, "GET history": all, "GET history/at": all, "GET history/diff": all, "GET history/stats": all,
		"GET history/keys": all, "GET history/proof": all, "GET history/export?format=jsonl": all, "GET history/export?format=bundle": audit,
		"POST plan": operateApp, "GET jointokens": all, "POST jointokens": operate, "DELETE jointokens/": operate,
	}
}

// A commanded is a command as a client sends it, and who may.
type commanded struct {
	CommandRequest
	right
}

// commandRights has a row, or more, for each command that the API takes.
func commandRights() []commanded {
	_, _, release, operate, operateApp, releaseApp, admin, _ := rights()
	web := state.Ref{Kind: "Deployment", Namespace: "shop", Name: "web"}
	node, pod := state.Ref{Kind: "Node", Name: "linux-1"}, state.Ref{Kind: "Pod", Namespace: "shop", Name: "db-0"}
	app, line := state.Ref{Kind: "Application", Name: string(state.RootApp)}, state.Ref{Kind: "Pipeline", Name: "line/prod"}
	of := func(verb state.CommandVerb, ref state.Ref, r right) commanded {
		return commanded{CommandRequest{Verb: verb.String(), Object: ref}, r}
	}
	hold := func(verb state.CommandVerb, id string, r right) commanded {
		return commanded{CommandRequest{Verb: verb.String(), Hold: id}, r}
	}
	return []commanded{
		hold(state.CmdApprove, "h-41c2", operateApp), hold(state.CmdReject, "h-41c2", operateApp),
		hold(state.CmdApprove, "p-1", releaseApp), hold(state.CmdReject, "p-1", releaseApp),
		hold(state.CmdApprove, "p-404", release), hold(state.CmdReject, "h-404", operate), // of nothing that is known: for everything, or not at all
		of(state.CmdSync, app, operateApp), of(state.CmdSuspend, app, operateApp), of(state.CmdResume, app, operateApp), of(state.CmdRestart, web, operateApp),
		of(state.CmdSuspend, line, releaseApp), of(state.CmdResume, line, releaseApp), of(state.CmdPromote, line, releaseApp), of(state.CmdRollback, line, releaseApp),
		of(state.CmdSuspend, state.Ref{Kind: "Pipeline", Name: "gone/prod"}, release),
		of(state.CmdDeletePod, pod, operateApp), of(state.CmdEvict, pod, operateApp),
		of(state.CmdCordon, node, operate), of(state.CmdUncordon, node, operate), of(state.CmdDrain, node, operate), of(state.CmdRemoveNode, node, admin),
		of(state.CmdDown, state.Ref{}, admin), of(state.CmdRotateKey, state.Ref{}, admin),
	}
}

// elsewhere are the commands that the API doesn't take as such, and where their rights are.
func elsewhere() map[state.CommandVerb]string {
	return map[state.CommandVerb]string{
		state.CmdExec: "pods/exec", state.CmdPortForward: "pods/portforward", state.CmdDropClaim: "persistentvolumeclaims",
		state.CmdMakeToken: "POST jointokens", state.CmdRevokeToken: "DELETE jointokens/", state.CmdJoin: "the join token itself", state.CmdErase: "a stopped log's files",
	}
}

// refusing is a world that notes commands and carries none out: it stays as it is.
type refusing struct{ *world }

func (r refusing) Do(_ context.Context, c *state.Command) (state.Reply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = append(r.commands, c)
	return state.Reply{Code: state.ReplyRefused, Why: "not in this test"}, nil
}

// A rightsWorld is a server with somebody of each role, for everything and for one
// application alone.
type rightsWorld struct {
	t    *testing.T
	w    *world
	api  *api
	as   map[string]*caller     // by role, "ROLE root", "ROLE other", "nobody"
	role map[string]access.Role // of each
}

func newRights(t *testing.T) *rightsWorld {
	w := shop(t)
	claim := state.Ref{Kind: state.ClaimKind, Namespace: "shop", Name: "data-db-0"}
	w.write(state.RootApp, &state.ClaimBound{Claim: claim, Node: "linux-1", Capacity: 5 << 30, Workload: state.Ref{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, Template: "data"})
	w.write("", &state.PipelineDeclared{Pipeline: state.Pipeline{Name: "line", Stages: []state.Stage{{Name: "dev", App: "dev"}, {Name: "prod", App: state.RootApp, After: []string{"dev"}}}}})
	w.write(state.RootApp, &state.PromotionRequested{ID: "p-1", Pipeline: "line", Stage: "prod"})
	dir := t.TempDir()
	store, err := access.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{
		Controller: refusing{w}, Nodes: w, Access: store, Logger: slog.New(slog.DiscardHandler), Version: "test",
		Tokens: join.OpenTokens(dir, state.Digest{}), Metrics: http.NotFoundHandler(),
	})
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	r := &rightsWorld{t: t, w: w, api: h.(*api), as: map[string]*caller{}, role: map[string]access.Role{}}
	said := state.Access{}
	somebody := func(name string, role access.Role, apps []string) {
		token, err := store.Issue(access.User{Name: strings.ReplaceAll(name, " ", "-"), Role: access.Viewer})
		if err != nil {
			t.Fatal(err)
		}
		r.as[name], r.role[name] = &caller{t: t, server: server, token: token}, role
		if role != "" {
			said.Grants = append(said.Grants, state.AccessGrant{Role: string(role), Users: []state.Text{w.Person(strings.ReplaceAll(name, " ", "-"))}, Apps: apps})
		}
	}
	for _, role := range access.Roles() {
		somebody(string(role), role, nil)
		somebody(string(role)+" root", role, []string{string(state.RootApp)})
		somebody(string(role)+" other", role, []string{"other*"})
	}
	somebody("nobody", "", nil)
	w.write("", &state.AccessDeclared{Access: said})
	return r
}

// may says whether somebody has the right: by a role for everything, or one for the
// application where that is enough. Reading needs any role.
func (r *rightsWorld) may(name string, x right) bool {
	role := r.role[name]
	if role == "" || !slices.Contains(x.roles, role) {
		return false
	}
	read := slices.Contains(x.roles, access.Viewer)
	return read || name == string(role) || x.app && strings.HasSuffix(name, " root")
}

// try sends a request as everybody.
func (r *rightsWorld) try(what, method, path string, body any, x right) {
	r.t.Helper()
	for name, c := range r.as {
		before := len(r.w.commands)
		code, raw := c.do(method, path, body)
		refused := code == http.StatusForbidden && strings.Contains(string(raw), "it needs the role")
		switch {
		case x.roles == nil && (code < 400 || len(r.w.commands) > before):
			r.t.Errorf("%s as %s: %d %.200s, want it refused to all", what, name, code, raw)
		case x.roles != nil && refused == r.may(name, x):
			r.t.Errorf("%s as %s: %d %.200s, want allowed %t", what, name, code, raw, r.may(name, x))
		case refused && len(r.w.commands) > before:
			r.t.Errorf("%s as %s: refused, and done all the same", what, name)
		}
	}
	if code, raw := (&caller{t: r.t, server: r.as["nobody"].server}).do(method, path, body); code != http.StatusUnauthorized {
		r.t.Errorf("%s without a token: %d %s", what, code, raw)
	}
}

// TestEveryVerbByEveryRole asks for all that the API has, each as everybody, over the
// wire. What is new there and has no row here fails it.
func TestEveryVerbByEveryRole(t *testing.T) {
	r := newRights(t)
	t.Run("kinds", r.kinds)
	t.Run("endpoints", r.endpoints)
	t.Run("commands", r.commands)
	t.Run("others", func(t *testing.T) {
		all, _, _, _, _, _, _, _ := rights()
		for _, path := range []string{"/metrics"} {
			r.try("GET "+path, http.MethodGet, path, nil, all)
		}
		for _, path := range []string{"/version", "/api", "/apis", "/api/v1", "/openapi/v3"} { // what kubectl needs before it asks for anything
			if code, _ := r.as["nobody"].do(http.MethodGet, path, nil); code != http.StatusOK {
				t.Errorf("%s: %d for somebody who has a token and no role", path, code)
			}
		}
	})
}

// names are objects of the world, so that it is known which application they are of.
func names() map[string]string {
	return map[string]string{"pods": "db-0", "nodes": "linux-1", "persistentvolumeclaims": "data-db-0", "deployments": "web", "statefulsets": "db", "applications": string(state.RootApp)}
}

func (r *rightsWorld) kinds(t *testing.T) {
	table := kubeRights()
	methods := map[string]string{
		"get": http.MethodGet, "list": http.MethodGet, "create": http.MethodPost, "update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete,
	}
	for _, res := range r.api.resources {
		whats := []string{res.plural}
		for _, s := range res.subresources {
			whats = append(whats, res.plural+"/"+s.name)
		}
		for _, what := range whats {
			rows, ok := table[what]
			if !ok {
				t.Errorf("%s has no row: who may do what with it?", what)
				continue
			}
			for verb, method := range methods {
				path := "/apis/" + res.apiVersion()
				if res.group == "" {
					path = "/api/v1"
				}
				if res.namespaced {
					path += "/namespaces/shop"
				}
				path += "/" + res.plural
				_, sub, below := strings.Cut(what, "/")
				if named := verb != "list" && verb != "deletecollection" && (verb != "create" || below); named {
					name := names()[res.plural]
					if name == "" {
						name = "some"
					}
					path += "/" + name
				} else if below {
					continue
				}
				if below {
					path += "/" + sub
				}
				x := rows[verb]
				if what == "pods/log" && verb == "get" {
					path += "?tailLines=1"
				}
				r.try(verb+" "+what, method, path, map[string]any{}, x)
			}
		}
	}
}

func (r *rightsWorld) endpoints(t *testing.T) {
	table := routeRights()
	left := map[string]bool{}
	for row := range table {
		left[row] = true
	}
	for _, route := range r.api.routes() {
		if route.path == "commands" {
			continue // each has rows of its own
		}
		key := route.method + " " + route.path
		found := false
		for row, x := range table {
			if row != key && !strings.HasPrefix(row, key+"?") {
				continue
			}
			found = true
			delete(left, row)
			path := "/tandem/v1/" + strings.TrimPrefix(row, route.method+" ")
			if strings.HasSuffix(path, "/") {
				path += "some"
			}
			body := any(map[string]any{})
			if route.path == "plan" {
				body = map[string]any{"application": map[string]any{"name": state.RootApp}}
			}
			r.try(row, route.method, path, body, x)
		}
		if !found {
			t.Errorf("%s has no row: who may?", key)
		}
	}
	for row := range left {
		t.Errorf("%s is no endpoint any more", row)
	}
}

func (r *rightsWorld) commands(t *testing.T) {
	had := map[string]bool{}
	for _, x := range commandRights() {
		had[x.Verb] = true
		x.Reason = "why"
		r.try(fmt.Sprintf("%s %s%s", x.Verb, x.Object, x.Hold), http.MethodPost, CommandsPath, x.CommandRequest, x.right)
	}
	for n := range 256 {
		v := state.CommandVerb(n) //nolint:gosec // below 256
		word := v.String()
		if word == "" || word == "unknown" {
			continue
		}
		_, given := verbs()[word]
		where := elsewhere()[v]
		if given != had[word] || given == (where != "") {
			t.Errorf("%s: taken here %t, has a row %t, is elsewhere %q", word, given, had[word], where)
		}
		if body := (CommandRequest{Verb: word, Reason: "why"}); !given {
			if code, _ := r.as["admin"].do(http.MethodPost, CommandsPath, body); code != http.StatusBadRequest {
				t.Errorf("%s by an admin: %d, want it refused here", word, code)
			}
		}
	}
}
