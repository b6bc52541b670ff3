package kubeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Tandem's own endpoints, below /tandem/v1. Each answers with the value that
// the command line prints.
const (
	StatusPath    = "/tandem/v1/status"
	WhyPath       = "/tandem/v1/why"
	HistoryPath   = "/tandem/v1/history"
	PlanPath      = "/tandem/v1/plan"
	CommandsPath  = "/tandem/v1/commands"
	PipelinesPath = "/tandem/v1/pipelines"
)

// A CommandRequest is what POST CommandsPath takes.
type CommandRequest struct {
	Verb   string    `json:"verb"` // as on the command line: "approve"
	Object state.Ref `json:"object,omitzero"`
	Hold   string    `json:"hold,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`

	// Of promotions.
	Commit   string `json:"commit,omitempty"`
	Override bool   `json:"override,omitempty"`
	Now      bool   `json:"now,omitempty"`
}

// A CommandAnswer says which record a command became.
type CommandAnswer struct {
	Seq       state.Seq `json:"seq"`
	Promotion string    `json:"promotion,omitempty"` // that was opened
}

// A route is one of Tandem's own endpoints.
type route struct {
	method, path   string // below /tandem/v1; a path that ends with / has a name after it
	verb, resource string // that its user must be allowed; none: the endpoint asks itself, by what is in the request
	serve          func(*call) error
}

// routes are all of them.
func (a *api) routes() []route {
	get, post := http.MethodGet, http.MethodPost
	out := []route{
		{get, "status", "get", "applications", a.status},
		{get, "pipelines", "get", "pipelines", a.pipelines},
		{get, "why", "get", "history", a.why},
		{get, "history", "get", "history", a.history},
		{get, "history/at", "get", "history", a.at},
		{get, "history/diff", "get", "history", a.diff},
		{get, "history/stats", "get", "history", a.stats},
		{get, "history/keys", "get", "history", a.keys},
		{get, "history/proof", "get", "history", a.proof},
		{get, "history/export", "", "", a.export},
		{post, "plan", "", "", a.plan},
		{post, "commands", "", "", a.command},
	}
	if a.Tokens != nil {
		out = append(out,
			route{get, "jointokens", "list", "jointokens", a.listTokens},
			route{post, "jointokens", "create", "jointokens", a.makeToken},
			route{http.MethodDelete, "jointokens/", "delete", "jointokens", a.revokeToken},
		)
	}
	return out
}

func (a *api) tandem(c *call, rest []string) error {
	path := strings.Join(rest, "/")
	for _, r := range a.routes() {
		name, below := strings.CutPrefix(path, r.path)
		if r.method != c.r.Method || !below || (name != "") != strings.HasSuffix(r.path, "/") {
			continue
		}
		if c.name = name; r.verb == "" {
			return r.serve(c)
		}
		return a.answer(c, r.verb, r.resource, r.serve)
	}
	return notFound(c.r.URL.Path)
}

// answer serves who may, for as long as they may.
func (a *api) answer(c *call, verb, resource string, serve func(*call) error) error {
	at := access.Where{Name: c.name}
	if err := access.Authorize(c.user, verb, resource, at); err != nil {
		return denied(err)
	}
	if lasts(c, "") {
		return a.guard(c, verb, resource, at, func() error { return serve(c) })
	}
	return serve(c)
}

func denied(err error) error {
	e := apierrors.NewForbidden(schemaNone(), "", nil)
	e.ErrStatus.Message = err.Error()
	return e
}

// object reads the query's object: KIND/NAME or a pod's name.
func (a *api) object(q url.Values) (state.Ref, error) {
	var ref state.Ref
	var problem error
	a.Controller.View(func(s *state.State) {
		ref, problem = report.Find(s, q.Get("object"), q.Get("namespace"))
	})
	if problem != nil {
		return ref, apierrors.NewBadRequest(problem.Error())
	}
	return ref, nil
}

func (a *api) status(c *call) error {
	q := c.r.URL.Query()
	if q.Get("object") == "" {
		var v report.Status
		var base *forecast.Base
		wanted := q.Get("inventory") == "true" && access.Authorize(c.user, "plan", "applications", access.Where{}) == nil
		a.Controller.View(func(s *state.State) {
			v = report.NewStatus(s, a.Controller.Words)
			if wanted {
				base = forecast.Copy(s)
			}
		})
		if wanted {
			var err error
			if v.Inventory, err = report.NewInventory(base); err != nil {
				return err
			}
		}
		writeJSON(c.w, http.StatusOK, v)
		return nil
	}
	ref, err := a.object(q)
	if err != nil {
		return err
	}
	var v report.Detail
	a.Controller.View(func(s *state.State) { v = report.NewDetail(s, ref, a.Controller.Words) })
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func (a *api) why(c *call) error {
	if c.r.URL.Query().Get("time") != "" {
		return a.whyThen(c)
	}
	ref, err := a.object(c.r.URL.Query())
	if err != nil {
		return err
	}
	// The records are read first: View may not be held while the log is read.
	asked := report.NewInquiry(ref)
	a.Controller.View(asked.Begin)
	for r, err := range a.Controller.Records(c.r.Context(), 1) {
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		asked.Read(r)
	}
	var v report.Why
	a.Controller.View(func(s *state.State) { v = asked.Answer(s, a.Controller.Words) })
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

// history streams lines of JSON, one a record, in the order of the log.
func (a *api) history(c *call) error {
	f, err := report.ParseFilter(c.r.URL.Query(), time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	c.w.Header().Set("Content-Type", "application/jsonl")
	c.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(c.w)
	out := json.NewEncoder(c.w)
	gone := errors.New("the client has gone")
	say := func(l report.Line) error {
		if out.Encode(l) != nil {
			return gone
		}
		return nil
	}
	teller, next, err := a.lines(c.r.Context(), f, say)
	for err == nil && f.Follow && flush.Flush() == nil {
		select {
		case <-c.r.Context().Done():
			return nil
		case <-a.Controller.Changed(next - 1):
		}
		for r, rerr := range a.Controller.Records(c.r.Context(), next) {
			if err = rerr; err != nil {
				break
			}
			next = r.Seq + 1
			if l := teller.Tell(r); f.Match(&l) {
				if err = say(l); err != nil {
					break
				}
			}
		}
	}
	if err != nil && !errors.Is(err, gone) {
		panic(http.ErrAbortHandler) // the status is sent: breaking off is the only way left to say it
	}
	return nil
}

// lines tells the past; a server without one reads all that its controller has.
func (a *api) lines(ctx context.Context, f report.Filter, say func(report.Line) error) (report.Teller, state.Seq, error) {
	if a.Past != nil {
		return a.Past.Lines(ctx, f, say)
	}
	teller, next, pick := report.NewTeller(nil, a.Controller.Words), state.Seq(1), report.NewPicker(f)
	for r, err := range a.Controller.Records(ctx, next) {
		if err != nil {
			return teller, next, err
		}
		next = r.Seq + 1
		for _, l := range pick.Take(teller.Tell(r)) {
			if err := say(l); err != nil {
				return teller, next, err
			}
		}
	}
	for _, l := range pick.Rest() {
		if err := say(l); err != nil {
			return teller, next, err
		}
	}
	return teller, next, nil
}

// plan compares what a client rendered with what runs.
func (a *api) plan(c *call) error {
	var in report.PlanRequest
	if err := readJSON(c.r, &in); err != nil {
		return err
	}
	if err := access.Authorize(c.user, "plan", "applications", access.Where{App: in.App.Name, Name: string(in.App.Name)}); err != nil {
		return denied(err)
	}
	var base *forecast.Base
	a.Controller.View(func(s *state.State) { base = forecast.Copy(s) })
	var known map[string]state.Image
	if a.Look != nil {
		names, err := in.ImageNames()
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		var pulls *report.Pulls
		a.Controller.View(func(s *state.State) { pulls, err = report.NewPulls(&in, s) })
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		known = report.LookUp(c.r.Context(), names, func(ctx context.Context, name string) state.Image {
			var secrets []*state.Object
			a.Controller.View(func(*state.State) { secrets = pulls.Secrets(name) })
			return a.Look(ctx, name, secrets)
		})
		for name, im := range known {
			if im.Assumed {
				delete(known, name) // what was known before is better than nothing
			}
		}
	}
	v, err := report.NewPlan(base, &in, known, false)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func (a *api) pipelines(c *call) error {
	var v report.Pipelines
	a.Controller.View(func(s *state.State) {
		v = report.NewPipelines(s, c.r.URL.Query().Get("name"), time.Now(), a.Controller.Words)
	})
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func readJSON(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the body: %v", err))
	}
	return nil
}

// verbs are the commands that people can give here; exec is recorded by exec
// itself.
func verbs() map[string]state.CommandVerb {
	out := map[string]state.CommandVerb{}
	for _, v := range []state.CommandVerb{
		state.CmdApprove, state.CmdReject, state.CmdSync, state.CmdRestart, state.CmdCordon, state.CmdUncordon, state.CmdDrain, state.CmdEvict, state.CmdRemoveNode, state.CmdDown, state.CmdDeletePod,
		state.CmdPromote, state.CmdRollback, state.CmdSuspend, state.CmdResume, state.CmdRotateKey,
	} {
		out[v.String()] = v
	}
	return out
}

// appsOf are the applications that a command acts on: the user needs the role for
// each. What belongs to none is one empty name.
func (a *api) appsOf(in *CommandRequest) []state.AppName {
	var out []state.AppName
	a.Controller.View(func(s *state.State) {
		ref, hold, promotion := in.Object, s.Holds[in.Hold], s.Promotions[in.Hold]
		stage := ""
		switch {
		case hold != nil:
			out = append(out, hold.App)
			return
		case promotion != nil:
			ref, stage = state.Ref{Kind: "Pipeline", Name: string(promotion.Pipeline)}, promotion.Stage
		case ref.Kind == "Pipeline":
			ref.Name, stage, _ = strings.Cut(ref.Name, "/")
		default:
			out = append(out, appOf(s, ref))
			return
		}
		l := s.Lines[state.PipelineName(ref.Name)]
		if l == nil {
			return
		}
		for i := range l.Spec.Stages {
			if at := &l.Spec.Stages[i]; stage == "" || at.Name == stage {
				out = append(out, at.App)
			}
		}
	})
	if len(out) == 0 {
		out = append(out, "")
	}
	return out
}

func (a *api) command(c *call) error {
	var in CommandRequest
	if err := readJSON(c.r, &in); err != nil {
		return err
	}
	verb, ok := verbs()[in.Verb]
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("there is no command %q here", in.Verb))
	}
	word, resource, err := in.acts(verb)
	if err != nil {
		return err
	}
	for _, app := range a.appsOf(&in) {
		if err := access.Authorize(c.user, word, resource, access.Where{App: app, Namespace: in.Object.Namespace, Name: in.Object.Name}); err != nil {
			return denied(err)
		}
	}
	if in.Reason == "" {
		return apierrors.NewBadRequest(in.Verb + ": give a reason")
	}
	cmd := &state.Command{Verb: verb, Object: in.Object, Hold: in.Hold, Groups: c.user.In(), Commit: in.Commit, Override: in.Override, Now: in.Now}
	if !in.Until.IsZero() {
		cmd.Until = in.Until.UnixNano()
	}
	reply, err := a.ask(c.r.Context(), c.user, cmd, in.Reason)
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, CommandAnswer{Seq: reply.Seq, Promotion: reply.Promotion})
	return nil
}
