package kubeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func uidType(s string) types.UID { return types.UID(s) }

// refuse says why something can't be written here, and what to change instead:
// 403, as clients drop the message of a 422 and try a 409 again.
func (a *api) refuse(t target, verb string) error {
	ref := state.Ref{Kind: t.resource.kind, Namespace: t.namespace, Name: t.name}
	var place, repo, branch string
	a.Controller.View(func(s *state.State) {
		place, repo, branch = written(s, ref)
	})
	var message string
	switch {
	case place == "" && t.name != "":
		message = fmt.Sprintf("%s: Tandem's API does not %s %s; it makes them from what Git says", ref, verb, t.resource.plural)
	case place == "":
		message = fmt.Sprintf("Tandem's API does not %s %s: write them in Git, where an Application reads", verb, t.resource.plural)
	default:
		message = fmt.Sprintf("%s is written in Git: change %s in %s, branch %s, and push; Tandem applies it", ref, place, repo, branch)
	}
	err := apierrors.NewForbidden(schemaOf(t), t.name, nil)
	err.ErrStatus.Message = message
	if place != "" {
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: "WrittenInGit", Message: repo + " " + branch + " " + place, Field: place}}
	}
	return err
}

// written is the file, repository and branch that an object comes from.
func written(s *state.State, ref state.Ref) (place, repo, branch string) {
	if ref.Kind == "Application" {
		if a := s.Apps[state.AppName(ref.Name)]; a != nil {
			at := a.Spec.At
			repo, branch = sourceOf(s, state.RootApp)
			at.Revision, at.Via = "", ""
			return orText(at.String(), "the file that declares it"), repo, branch
		}
		return "", "", ""
	}
	o := s.Objects[ref]
	if o == nil {
		return "", "", ""
	}
	at := o.Object.Variants[0].Origin
	at.Revision = ""
	repo, branch = sourceOf(s, o.App)
	return orText(at.String(), "the path of Application "+string(o.App)), repo, branch
}

func sourceOf(s *state.State, name state.AppName) (repo, branch string) {
	a := s.Apps[name]
	if a == nil {
		return "its repository", "unknown"
	}
	src := a.Spec.Source
	ref, _, _ := strings.Cut(string(a.Revision), "@")
	if root := s.Apps[state.RootApp]; root != nil && src.Repo == "" {
		src.Repo = root.Spec.Source.Repo
	}
	return orText(src.Repo, "the root's repository"), orText(orText(src.Ref, ref), "unknown")
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// ask carries out a command for a user.
func (a *api) ask(ctx context.Context, user access.User, c *state.Command, reason string) (state.Reply, error) {
	c.Actor = a.Controller.Person(user.Name)
	if reason != "" {
		c.Reason = a.Controller.Text(reason)
	}
	reply, err := a.Controller.Do(ctx, c)
	if err != nil {
		return reply, apierrors.NewServiceUnavailable(fmt.Sprintf("%s: %v", c.Verb, err))
	}
	switch reply.Code {
	case state.ReplyDone:
		return reply, nil
	case state.ReplyNotFound:
		return reply, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
			Message: fmt.Sprintf("%s: there is no %s", c.Verb, commandObject(c)),
		}}
	case state.ReplyBudget:
		err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget: "+reply.Why+".", 0)
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: policyv1.DisruptionBudgetCause, Message: reply.Why,
		})
		return reply, err
	case state.ReplyRefused:
	}
	if reply.Why != "" {
		return reply, apierrors.NewBadRequest(fmt.Sprintf("%s %s: %s", c.Verb, commandObject(c), reply.Why))
	}
	return reply, apierrors.NewBadRequest(fmt.Sprintf("%s %s: this makes no sense now", c.Verb, commandObject(c)))
}

func commandObject(c *state.Command) string {
	if strings.HasPrefix(c.Hold, "p-") {
		return "promotion " + c.Hold
	}
	if c.Hold != "" {
		return "hold " + c.Hold
	}
	return c.Object.String()
}

// deletePod restarts one pod: its workload makes another.
func (a *api) deletePod(c *call, t target) error {
	var o metav1.DeleteOptions
	if err := a.decode(c, &o); err != nil {
		return err
	}
	return a.endPod(c, t, &o, "deleted with kubectl")
}

// evict restarts one pod, as drain asks for.
func (a *api) evict(c *call, t target) error {
	var e policyv1.Eviction
	if err := a.decode(c, &e); err != nil {
		return err
	}
	if e.DeleteOptions == nil {
		e.DeleteOptions = &metav1.DeleteOptions{}
	}
	return a.endPod(c, t, e.DeleteOptions, "evicted with kubectl")
}

func (a *api) endPod(c *call, t target, o *metav1.DeleteOptions, reason string) error {
	e := a.caches[t.resource].find(key{t.namespace, t.name})
	if e == nil {
		return noSuch(t)
	}
	if o.Preconditions != nil && o.Preconditions.UID != nil && string(*o.Preconditions.UID) != e.uid {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s has the UID %s, not %s", t.name, e.uid, *o.Preconditions.UID))
	}
	if len(o.DryRun) == 0 && (e.object.GetDeletionTimestamp() == nil || o.GracePeriodSeconds != nil) {
		verb := state.CmdDeletePod
		if t.sub == "eviction" {
			verb = state.CmdEvict
		}
		cmd := &state.Command{Verb: verb, Object: state.Ref{Kind: "Pod", Namespace: t.namespace, Name: t.name}, Grace: graceOf(o)}
		if _, err := a.ask(c.r.Context(), c.user, cmd, reason); err != nil {
			return err
		}
	}
	if t.sub == "eviction" {
		writeJSON(c.w, http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated})
		return nil
	}
	if now := a.caches[t.resource].find(key{t.namespace, t.name}); now != nil {
		e = now
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(e.JSON())
	return nil
}

// graceMost is the longest grace period that counts: a year.
const graceMost = 365 * 24 * 60 * 60

// graceOf is the time that a client wants to give a pod; 0: none that it says. A
// pod that is to go at once gets a second: its name is free when it has ended, and
// not before, whatever a client forces.
func graceOf(o *metav1.DeleteOptions) time.Duration {
	if o.GracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(min(max(*o.GracePeriodSeconds, 1), graceMost)) * time.Second
}

// patchNode takes what cordon and uncordon send: spec.unschedulable alone.
func (a *api) patchNode(c *call, t target) error {
	raw, err := io.ReadAll(c.r.Body)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the patch: %v", err))
	}
	on, ok := unschedulable(raw)
	if !ok {
		return forbidden(t, "of a node only spec.unschedulable can be changed here (cordon, uncordon); labels and taints are the agent's: tandem agent run --label, --taint")
	}
	e := a.caches[t.resource].find(key{"", t.name})
	if e == nil {
		return noSuch(t)
	}
	if c.r.URL.Query().Get("dryRun") == "" {
		verb := state.CmdUncordon
		if on {
			verb = state.CmdCordon
		}
		if _, err := a.ask(c.r.Context(), c.user, &state.Command{Verb: verb, Object: nodeRef(state.NodeName(t.name))}, "asked with kubectl"); err != nil {
			return err
		}
		e = a.caches[t.resource].find(key{"", t.name})
	}
	if e == nil {
		return noSuch(t)
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(e.JSON())
	return nil
}

// unschedulable reads a merge patch or strategic patch that says nothing else.
func unschedulable(raw []byte) (on, ok bool) {
	var patch map[string]any
	if err := yaml.Unmarshal(raw, &patch); err != nil || len(patch) != 1 {
		return false, false
	}
	spec, _ := patch["spec"].(map[string]any)
	v, found := spec["unschedulable"]
	if len(spec) != 1 || !found {
		return false, false
	}
	if v == nil {
		return false, true // kubectl uncordon removes the field
	}
	on, ok = v.(bool)
	return on, ok
}

// decode reads a body in JSON, YAML or protobuf; none at all is an empty value.
func (a *api) decode(c *call, into runtime.Object) error {
	raw, err := io.ReadAll(c.r.Body)
	if err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("want at most %d bytes", tooLarge.Limit))
		}
		return apierrors.NewBadRequest(fmt.Sprintf("read the body: %v", err))
	}
	if len(raw) == 0 {
		return nil
	}
	if o, ok := into.(*metav1.DeleteOptions); ok && json.Unmarshal(raw, o) == nil {
		return nil
	}
	if _, _, err := a.decoder.Decode(raw, nil, into); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the body: %v", err))
	}
	return nil
}
