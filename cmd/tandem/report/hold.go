package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Hold is something wanted that a rule says not yet.
type Hold struct {
	ID       string         `json:"id"`
	App      state.AppName  `json:"application"`
	Object   state.Ref      `json:"object"`
	Code     state.HoldCode `json:"code"`
	Text     string         `json:"text"`
	Fix      string         `json:"fix,omitempty"`
	Since    time.Time      `json:"since"`
	Approved bool           `json:"approved,omitempty"`
	Seq      state.Seq      `json:"seq"`
}

// Holds are all holds, by ID. An ordered pod's wait for the one before it is
// how a StatefulSet goes, and is left out.
func Holds(s *state.State) []Hold {
	out := []Hold{}
	for _, h := range s.Holds {
		if h.Code == state.HoldPredecessor {
			continue
		}
		out = append(out, NewHold(h))
	}
	slices.SortFunc(out, func(a, b Hold) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// NewHold says what a hold waits for, and what would end it.
func NewHold(h *state.Hold) Hold {
	return Hold{
		ID: h.ID, App: h.App, Object: h.Object, Code: h.Code, Text: HoldText(&h.Held), Fix: holdFix(&h.Held),
		Since: h.Since.Time(), Approved: h.Approved, Seq: h.Seq,
	}
}

// HoldText is what is waited for, in one line.
func HoldText(h *state.Held) string {
	what := strings.Join(h.Params, ", ")
	pods := plural(int(h.Count), "pod")
	if h.OS != state.AnyOS {
		pods = fmt.Sprintf("%d %s pods", h.Count, h.OS)
		if h.Count == 1 {
			pods = fmt.Sprintf("1 %s pod", h.OS)
		}
	}
	switch h.Code {
	case state.HoldImageUnknown:
		return "image could not be looked up: " + what
	case state.HoldImageOS:
		return fmt.Sprintf("image has nothing for %s: %s", orText(string(h.OS), "any node here"), what)
	case state.HoldNoNode:
		return "no node could take " + pods + ", even empty" + after(": ", what)
	case state.HoldNoRoom:
		if what == state.SurgeFirst {
			return "no room for " + pods + " now, and maxUnavailable is 0: no pod may go before it"
		}
		return "no room for " + pods + " now" + after(": ", what)
	case state.HoldNodeLost:
		return "may run on a lost node still, and is not started elsewhere" + after(": ", what)
	case state.HoldVolume:
		return volumeText(h)
	case state.HoldQuarantined, state.HoldRestore:
		return failedText(h)
	case state.HoldMove:
		return "an identity would go to the other OS, and its data does not follow: " + what
	case state.HoldClaimMissing:
		return "no such claim in the text: " + what
	case state.HoldClaimBusy:
		return "the claim is another pod's, or its data is being deleted: " + what
	case state.HoldPrune:
		if len(h.Params) > 0 {
			return fmt.Sprintf("%s left the text, with the data of %s", plural(int(h.Count), "object"), what)
		}
		return fmt.Sprintf("%d objects would be deleted, more than the limit", h.Count)
	case state.HoldUnsupported:
		return fmt.Sprintf("%s cannot honour %s", orText(string(h.OS), "the OS"), orText(what, "a field"))
	case state.HoldPaused:
		if h.Object.Kind == "StatefulSet" {
			return "its annotation tandem.dev/paused is true"
		}
		return "spec.paused is true"
	case state.HoldBudget:
		return budgetText(h)
	case state.HoldPriority:
		return "there is no PriorityClass " + what
	case state.HoldGated:
		return pods + " wait for spec.schedulingGates: " + what
	case state.HoldSuspended:
		return "the application is suspended"
	case state.HoldDependency:
		return "waits for application " + strings.Join(h.Params[min(1, len(h.Params)):], ", ") + " to be as its own text says"
	case state.HoldWindow:
		return "none of its sync windows is open"
	case state.HoldManual:
		return "is synced by hand"
	case state.HoldPredecessor:
		return "waits for " + orText(what, "the pod before it")
	case state.HoldConfigMissing:
		return "not in the text: " + what
	case state.HoldAddress:
		return "cannot have the address that it asks for: " + what
	case state.HoldRewind:
		return rewind(h)
	default:
		return fmt.Sprintf("reason %d, which this version does not know", h.Code)
	}
}

// budgetText says which pods should leave their node, and what keeps them there.
func budgetText(h *state.Held) string {
	var pods, budgets []string
	for _, p := range h.Params {
		if strings.HasPrefix(p, state.BudgetParam) {
			budgets = append(budgets, p)
		} else {
			pods = append(pods, p)
		}
	}
	by := "the workload's own update budget"
	if len(budgets) > 0 {
		by = strings.Join(budgets, " and ")
	}
	return fmt.Sprintf("%s should leave, and %s lets none go now", strings.Join(pods, ", "), by)
}

// rewind says which revision waits, and what it should have followed from.
func rewind(h *state.Held) string {
	if len(h.Params) < 2 {
		return "the branch does not follow from what was there before"
	}
	return state.Revision(h.Params[0]).Short() + " does not follow from " + state.Revision(h.Params[1]).Short() + ", which runs"
}

func after(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// holdFix is what a person can do about it.
func holdFix(h *state.Held) string {
	switch h.Code {
	case state.HoldImageUnknown:
		return "push the image, or make the registry reachable; it is looked up again by itself"
	case state.HoldImageOS:
		return fmt.Sprintf("push an image for %s to the tag and run `tandem sync --resolve-tags`, or let the other OS go alone: tandem approve %s --reason …", orText(string(h.OS), "a node here"), h.ID)
	case state.HoldNoNode, state.HoldUnsupported:
		return "add a node that fits, or change the workload (tandem why says what each node lacks)"
	case state.HoldNoRoom:
		return "add a node, ask for less, or free room (tandem why says what each node has)"
	case state.HoldNodeLost:
		return "bring the node back, or, once it is certain that it runs nothing, remove it: tandem node remove NODE --reason …"
	case state.HoldRewind:
		return "find out who forced the push or moved the tag; if it is right: tandem approve " + h.ID + " --reason …"
	case state.HoldVolume:
		return volumeFix(h)
	case state.HoldQuarantined:
		return "push a newer commit; or, if the cause lay elsewhere, apply it again: tandem approve " + h.ID + " --reason …"
	case state.HoldRestore:
		return "push a newer commit; or, if the older program can read the data, go back: tandem approve " + h.ID + " --reason …"
	case state.HoldMove:
		return "leave the ordinals where they are, or give their data up: tandem approve " + h.ID + " --reason …"
	case state.HoldClaimMissing:
		return "add a PersistentVolumeClaim of that name to the text, in the same namespace"
	case state.HoldClaimBusy:
		return "wait for the pod that has it to end (a claim of mode ReadWriteOncePod is for one pod), or for its data to be deleted"
	case state.HoldPrune:
		return "tandem approve " + h.ID + " --reason …"
	case state.HoldAddress:
		return "ask for another in Git (spec.clusterIP, nodePort), or leave it out: one is given"
	case state.HoldPaused:
		if h.Object.Kind == "StatefulSet" {
			return "take the annotation tandem.dev/paused away in Git"
		}
		return "set spec.paused to false in Git"
	case state.HoldGated:
		return "take the gates out of spec.schedulingGates in Git"
	case state.HoldSuspended:
		return "take spec.suspend out of the Application, or: tandem resume app/" + h.Object.Name + " --reason …"
	case state.HoldDependency:
		return "see  tandem status;  to let it go before them: tandem approve " + h.ID + " --reason …"
	case state.HoldWindow:
		return "wait, or let this revision go now: tandem approve " + h.ID + " --reason …"
	case state.HoldManual:
		return "tandem sync " + h.Object.Name + " --reason …"
	case state.HoldConfigMissing:
		return "add it to the text"
	case state.HoldBudget:
		return "wait until more pods are ready, or raise what the PodDisruptionBudget lets be away"
	case state.HoldPriority:
		return "add the PriorityClass to the text, or name another in priorityClassName"
	case state.HoldPredecessor:
	}
	return ""
}

// Short is an object as people name it: "deploy/web", "db-0", "node/win-1".
func Short(ref state.Ref) string {
	short := map[string]string{
		"Deployment": "deploy/", "StatefulSet": "sts/", "DaemonSet": "ds/", "CronJob": "cj/", "Pod": "", "Node": "node/", "Application": "app/", "Service": "svc/",
		"PodDisruptionBudget": "pdb/", "PriorityClass": "pc/", "ConfigMap": "cm/", "Secret": "secret/", "Namespace": "ns/", state.ClaimKind: "pvc/",
	}
	prefix, ok := short[ref.Kind]
	if !ok {
		prefix = strings.ToLower(ref.Kind) + "/"
	}
	return prefix + ref.Name
}
