package kubeapi

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// acts is the verb and the resource for which the role is looked up. They follow
// from what the command does: a request that names anything else, whose role might
// be a lower one or another application's, is refused.
func (in *CommandRequest) acts(verb state.CommandVerb) (word, resource string, err error) {
	word = verb.String()
	if verb == state.CmdApprove || verb == state.CmdReject {
		if in.Hold == "" || in.Object != (state.Ref{}) {
			return "", "", apierrors.NewBadRequest(word + " wants the hold or the promotion alone")
		}
		if strings.HasPrefix(in.Hold, "p-") {
			return word, "pipelines", nil
		}
		return word, "holds", nil
	}
	if in.Hold != "" {
		return "", "", apierrors.NewBadRequest(word + " is of no hold and no promotion")
	}
	kind, wants := in.Object.Kind, ""
	switch verb { //nolint:exhaustive // those that people can give here
	case state.CmdDown:
		if in.Object != (state.Ref{}) {
			return "", "", apierrors.NewBadRequest("down is of everything, and names no object")
		}
		return word, "workloads", nil
	case state.CmdRotateKey:
		if in.Object != (state.Ref{}) {
			return "", "", apierrors.NewBadRequest(word + " is of the log, and names no object")
		}
		return word, "history", nil
	case state.CmdSync:
		wants = "Application"
	case state.CmdSuspend, state.CmdResume:
		if wants = "Application"; kind == "Pipeline" {
			wants = kind
		}
	case state.CmdPromote, state.CmdRollback:
		wants = "Pipeline"
	case state.CmdCordon, state.CmdUncordon, state.CmdDrain, state.CmdRemoveNode:
		wants = "Node"
	case state.CmdDeletePod:
		word, wants = "delete", "Pod"
	case state.CmdEvict:
		wants = "Pod"
	case state.CmdRestart:
		if wants = "workload"; state.IsWorkload(kind) {
			wants = kind
		}
	}
	if kind != wants || kind == "" {
		return "", "", apierrors.NewBadRequest(fmt.Sprintf("%s wants the kind %s, not %q", verb, wants, kind))
	}
	return word, strings.ToLower(kind) + "s", nil
}
