package kubeapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A call is a request whose user is known.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	user access.User
	name string // of what one of Tandem's own endpoints is asked about, where its path has one
}

// A target is what the path of a request names.
type target struct {
	resource  *resource
	namespace string
	name      string
	sub       string
}

// ServeHTTP answers one request.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz", "/livez", "/readyz":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok")
		return
	}
	if strings.HasPrefix(r.URL.Path, ChecksPath) {
		if err := a.check(w, r); err != nil {
			a.fail(&call{w: w, r: r}, err) //nolint:contextcheck // a call holds its request, and that the context
		}
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	user, err := a.Access.Authenticate(r)
	if err != nil {
		a.fail(&call{w: w, r: r}, apierrors.NewUnauthorized(err.Error())) //nolint:contextcheck // a call holds its request, and that the context
		return
	}
	c := &call{w: w, r: r, user: a.govern(user)}
	if err := a.route(c); err != nil { //nolint:contextcheck // a call holds its request, and that the context
		a.fail(c, err) //nolint:contextcheck // likewise
	}
}

// route finds who answers. An error is written as a Status.
func (a *api) route(c *call) error {
	path := strings.Trim(c.r.URL.Path, "/")
	parts := strings.Split(path, "/")
	switch {
	case path == "version":
		return a.version(c)
	case path == "metrics" && a.Metrics != nil:
		return a.answer(c, "get", "metrics", a.metrics)
	case path == "api", path == "apis":
		return a.discover(c, path)
	case parts[0] == "openapi":
		return a.openapi(c, parts[1:])
	case parts[0] == "tandem" && len(parts) >= 3 && parts[1] == "v1":
		return a.tandem(c, parts[2:])
	case parts[0] == "api" && len(parts) >= 2:
		return a.group(c, "", parts[1], parts[2:])
	case parts[0] == "apis" && len(parts) == 2:
		return a.discoverGroup(c, parts[1])
	case parts[0] == "apis" && len(parts) >= 3:
		return a.group(c, parts[1], parts[2], parts[3:])
	}
	return notFound(c.r.URL.Path)
}

// metrics answers a scrape.
func (a *api) metrics(c *call) error {
	a.Metrics.ServeHTTP(c.w, c.r)
	return nil
}

// group answers below /api/v1 and /apis/GROUP/VERSION.
func (a *api) group(c *call, group, version string, rest []string) error {
	if len(rest) == 0 {
		return a.discoverVersion(c, group, version)
	}
	if group == "authorization.k8s.io" || group == "authentication.k8s.io" {
		return a.review(c, group, rest)
	}
	t, err := a.target(group, version, rest)
	if err != nil {
		return err
	}
	verb := verbOf(c.r, t)
	what := t.resource.plural
	if t.sub != "" {
		what += "/" + t.sub
	}
	at := a.where(t)
	if err := access.Authorize(c.user, verb, what, at); err != nil && (t.resource.acts[what+" "+verb] || isRead(verb) || streams(t.sub)) {
		return forbidden(t, err.Error())
	}
	if lasts(c, t.sub) {
		return a.guard(c, verb, what, at, func() error { return a.serve(c, t, verb) })
	}
	return a.serve(c, t, verb)
}

// govern gives a user what the root in Git says of them.
func (a *api) govern(u access.User) access.User {
	var governed bool
	a.Controller.View(func(s *state.State) { governed = s.Access != nil })
	if !governed {
		return u
	}
	who := a.Controller.Person(u.Name)
	a.Controller.View(func(s *state.State) { u = access.Govern(u, s.Access, who) })
	return u
}

// where finds the application that a target belongs to.
func (a *api) where(t target) access.Where {
	out := access.Where{Namespace: t.namespace, Name: t.name}
	if t.name != "" {
		a.Controller.View(func(s *state.State) {
			out.App = appOf(s, state.Ref{Kind: t.resource.kind, Namespace: t.namespace, Name: t.name})
		})
	}
	return out
}

// appOf is the application of an object, or "".
func appOf(s *state.State, ref state.Ref) state.AppName {
	switch ref.Kind {
	case "Application":
		return state.AppName(ref.Name)
	case "Pod":
		if p := s.ByName[state.PodKey{Namespace: ref.Namespace, Name: ref.Name}]; p != nil {
			ref = p.Workload
		}
	}
	if w := s.Workloads[ref]; w != nil {
		return w.App
	}
	if c := s.Claims[ref]; c != nil {
		return c.App
	}
	if o := s.Objects[ref]; o != nil {
		return o.App
	}
	return ""
}

// serve does what an authorized user may do; what Git owns is refused to all.
func (a *api) serve(c *call, t target, verb string) error {
	switch {
	case t.sub == "" && verb == "watch":
		return a.watch(c, t)
	case t.sub == "" && verb == "list":
		return a.list(c, t)
	case (t.sub == "" || t.sub == "status") && verb == "get":
		return a.get(c, t)
	case t.resource.plural == "pods" && t.sub == "log" && verb == "get":
		return a.log(c, t)
	case t.resource.plural == "pods" && t.sub == "exec":
		return a.exec(c, t)
	case t.resource.plural == "pods" && t.sub == "portforward":
		return a.portForward(c, t)
	case t.resource.plural == "pods" && t.sub == "eviction" && verb == "create":
		return a.evict(c, t)
	case t.resource.plural == "pods" && t.sub == "" && verb == "delete":
		return a.deletePod(c, t)
	case t.resource.plural == "persistentvolumeclaims" && t.sub == "" && verb == "delete":
		return a.deleteClaim(c, t)
	case t.resource.plural == "nodes" && t.sub == "" && verb == "patch":
		return a.patchNode(c, t)
	case isRead(verb):
		return notFound(c.r.URL.Path)
	}
	return a.refuse(t, verb)
}

func isRead(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

// streams says whether a subresource is reached by GET but isn't a reading.
func streams(sub string) bool { return sub == "exec" || sub == "attach" || sub == "portforward" }

// target reads [namespaces NS] RESOURCE [NAME [SUB]].
func (a *api) target(group, version string, rest []string) (target, error) {
	var t target
	if rest[0] == "namespaces" && len(rest) > 2 && rest[2] != "status" && rest[2] != "finalize" {
		t.namespace, rest = rest[1], rest[2:]
	}
	t.resource = a.find(group, version, rest[0])
	if t.resource == nil || len(rest) > 3 || t.namespace != "" && !t.resource.namespaced {
		return t, notFound(strings.Join(rest, "/"))
	}
	if len(rest) > 1 {
		t.name = rest[1]
	}
	if len(rest) > 2 {
		t.sub = rest[2]
	}
	return t, nil
}

// verbOf is Kubernetes's word for a method.
func verbOf(r *http.Request, t target) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		switch {
		case t.name != "":
			if streams(t.sub) {
				return "create"
			}
			return "get"
		case isTrue(r.URL.Query().Get("watch")):
			return "watch"
		default:
			return "list"
		}
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if t.name == "" {
			return "deletecollection"
		}
		return "delete"
	default:
		return strings.ToLower(r.Method)
	}
}

func isTrue(s string) bool { return s == "true" || s == "1" }

func notFound(what string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: fmt.Sprintf("Tandem serves no %s", what),
	}}
}

func forbidden(t target, message string) error {
	e := apierrors.NewForbidden(schema.GroupResource{Group: t.resource.group, Resource: t.resource.plural}, t.name, nil)
	e.ErrStatus.Message = message
	return e
}

// fail writes an error as a Status.
func (a *api) fail(c *call, err error) {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		a.Logger.LogAttrs(c.r.Context(), slog.LevelWarn, "answered a request with an error",
			slog.String("path", c.r.URL.Path), slog.String("err", err.Error()))
		s = apierrors.NewInternalError(err)
	}
	status := s.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	writeJSON(c.w, int(status.Code), status)
}

// writeJSON sends a value. Where the client has gone there is nobody to tell.
func writeJSON(w http.ResponseWriter, code int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer does not marshal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(raw)
}

func asStatus(err error, s *apierrors.APIStatus) bool { return errors.As(err, s) }
