package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// promotion tells what became of pipelines and promotions.
func (t *Teller) promotion(l *Line, fact state.Fact) {
	object := func(pipeline state.PipelineName, stage string) {
		l.Object = state.Ref{Kind: "Pipeline", Name: string(pipeline)}
		if stage != "" {
			l.Object.Name += "/" + stage
		}
	}
	switch f := fact.(type) {
	case *state.PipelineDeclared:
		l.What = "declare"
		object(f.Pipeline.Name, "")
	case *state.PipelineRemoved:
		l.What, l.Outcome = "declare", "removed"
		object(f.Name, "")
	case *state.CandidateReviewed:
		l.What, l.Outcome, l.Bad = "review", plural(int(f.Commits), "commit"), f.Problems > 0
		if f.Problems > 0 {
			l.Reason = plural(int(f.Problems), "problem")
		}
		object(f.Pipeline, f.Stage)
	case *state.PromotionRequested:
		l.What, l.Outcome, l.Reason = "request", f.ID, short7(f.Commit.Hash)
		if f.Rollback {
			l.Reason = "back to what " + l.Reason + " had"
		}
		if f.Override {
			l.Reason += ", though it failed before"
		}
		object(f.Pipeline, f.Stage)
	case *state.PromotionVoted:
		l.What, l.Object, l.Outcome = "vote", state.Ref{Kind: "Promotion", Name: f.ID}, "no"
		if f.Approve {
			l.Outcome = "yes"
		}
	case *state.PromotionStarted:
		l.What, l.Object, l.Outcome = "push", state.Ref{Kind: "Promotion", Name: f.ID}, "begun"
		l.Reason = fmt.Sprintf("%s: %s → %s", f.Source.Ref, short7(f.Old), short7(f.New))
	case *state.PromotionEnded:
		l.What, l.Object, l.Outcome = "push", state.Ref{Kind: "Promotion", Name: f.ID}, f.Outcome.String()
		l.Bad = f.Outcome == state.PromotionConflict || f.Outcome == state.PromotionRefused
		if !f.Detail.IsZero() {
			l.Reason = firstLine(t.words(f.Detail))
		}
	case *state.StageSuspended:
		l.What, l.Outcome = "suspend", "on"
		if !f.On {
			l.Outcome = "off"
		}
		object(f.Pipeline, f.Stage)
	case *state.CheckReported:
		l.What, l.Outcome, l.Bad, l.Reason = "check", "yes", !f.OK, f.Name
		if !f.OK {
			l.Outcome = "no"
		}
		object(f.Pipeline, f.Stage)
	case *state.GateJobStarted:
		l.What, l.Outcome, l.Reason = "gate", Short(f.Job), "for commit "+short7(f.Commit.Hash)
		object(f.Pipeline, f.Stage)
	case *state.GateJobEnded:
		l.What, l.Outcome, l.Bad, l.Reason = "gate", f.Outcome.String(), f.Outcome == state.GateFailed, Short(f.Job)
		if f.Why != 0 {
			l.Reason += ": " + f.Why.String()
		}
		object(f.Pipeline, f.Stage)
	default:
		t.told(l, fact)
	}
}

// keyHash is the part of a public key by which people compare it.
func keyHash(public string) string {
	if parts := strings.SplitN(public, "+", 3); len(parts) == 3 {
		return parts[1]
	}
	return public
}

// tokenText says what a join token is good for, or whom it was good for.
func tokenText(f *state.JoinTokenNoted) string {
	left := plural(int(f.Uses), "use") + " left"
	if f.Many {
		left = "any number of uses"
	}
	if f.Outcome == state.TokenRevoked || f.Outcome == state.TokenFailed {
		left = ""
	}
	if f.Node != "" && (f.Outcome == state.TokenUsed || f.Outcome == state.TokenLost) {
		left = "by " + string(f.Node) + "; " + left
	} else if f.Node != "" {
		left += " by " + string(f.Node)
	}
	if f.Expires != 0 {
		left += ", until " + time.Unix(0, f.Expires).UTC().Format(time.DateTime)
	}
	return left
}

// told tells what the root says of people, and what repositories are told.
func (t *Teller) told(l *Line, fact state.Fact) {
	switch f := fact.(type) {
	case *state.DeploymentNoted:
		l.What, l.Commit, l.Reason = "note", short7(f.Commit), f.Ref
		l.Object = state.Ref{Kind: "Application", Name: string(l.App)}
		if f.Outcome == state.NoteRefused {
			l.Outcome, l.Bad = "refused", true
			l.Reason += ": " + firstLine(t.words(f.Detail))
		}
	case *state.JoinTokenNoted:
		l.What, l.Outcome, l.Bad = "join token", f.Outcome.String(), f.Outcome >= state.TokenFailed
		l.Object = state.Ref{Kind: "JoinToken", Name: f.ID}
		if f.ID == "" {
			l.What, l.Object = "join", state.Ref{Kind: "Node", Name: string(f.Node)}
			l.Reason = "with its expired certificate"
			return
		}
		l.Reason = tokenText(f)
	case *state.AccessDeclared:
		l.What, l.Commit = "access", short7(f.Commit.Hash)
		l.Object = state.Ref{Kind: "Access", Name: string(state.RootApp)}
		l.Reason = plural(len(f.Access.Grants), "grant") + ", " + plural(len(f.Access.Groups), "group")
	case *state.SessionEnded:
		l.What, l.Object, l.Outcome = f.Verb.String(), f.Object, f.Outcome.String()
		l.Bad = f.Outcome != state.SessionDone
		if f.Verb == state.CmdExec && f.Outcome == state.SessionDone {
			l.Outcome = fmt.Sprintf("exit %d", f.Code)
		}
		if !f.Detail.IsZero() {
			l.Reason = firstLine(t.words(f.Detail))
		}
	case *state.SigningKeyRotated:
		l.What, l.Object = "rotate key", state.Ref{Kind: "Log", Name: keyHash(f.Key)}
		l.Outcome = "done"
	case *state.AccessRemoved:
		l.What, l.Outcome, l.Commit = "access", "removed", short7(f.Commit.Hash)
		l.Object = state.Ref{Kind: "Access", Name: string(state.RootApp)}
		l.Reason = "each token's own role counts again"
	default:
		l.What = l.Kind
	}
}
