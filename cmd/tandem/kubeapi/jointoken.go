package kubeapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// A JoinTokenRequest asks for a join token.
type JoinTokenRequest struct {
	For    string         `json:"for"`  // "1h"
	Uses   int            `json:"uses"` // 0: any number
	Node   state.NodeName `json:"node,omitempty"`
	Reason string         `json:"reason,omitempty"`
}

// A JoinTokenAnswer has the token in clear, this once.
type JoinTokenAnswer struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// tokenMost is the longest life of a join token.
const tokenMost = 30 * 24 * time.Hour

// listTokens lists the join tokens that are good.
func (a *api) listTokens(c *call) error {
	list, err := a.Tokens.List()
	if err != nil {
		return fmt.Errorf("list join tokens: %w", err)
	}
	for i := range list {
		list[i].Hash = state.Digest{}
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

func (a *api) makeToken(c *call) error {
	var in JoinTokenRequest
	if err := readJSON(c.r, &in); err != nil {
		return err
	}
	life, err := time.ParseDuration(in.For)
	if err != nil || life <= 0 || life > tokenMost || in.Uses < 0 || in.Uses > 100_000 {
		return apierrors.NewBadRequest(fmt.Sprintf("a join token for %q, %d uses: want up to %s, and 0 (any number) to 100000", in.For, in.Uses, tokenMost))
	}
	x, text, err := a.Tokens.Draw(c.user.Name, life, in.Uses, in.Node)
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	told, err := a.tokenIntent(c, &state.Command{Verb: state.CmdMakeToken, Until: x.Expires.UnixNano()}, x, in.Reason)
	if err != nil {
		return err
	}
	err = a.Tokens.Keep(x)
	told(state.TokenMade, err)
	if err != nil {
		return fmt.Errorf("keep a join token: %w", err)
	}
	writeJSON(c.w, http.StatusCreated, JoinTokenAnswer{ID: x.ID, Token: text, Expires: x.Expires})
	return nil
}

func (a *api) revokeToken(c *call) error {
	id := c.name
	told, err := a.tokenIntent(c, &state.Command{Verb: state.CmdRevokeToken}, join.Token{ID: id}, c.r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	err = a.Tokens.Revoke(id)
	told(state.TokenRevoked, err)
	if errors.Is(err, runtimes.ErrNotFound) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "jointokens"}, id)
	}
	if err != nil {
		return fmt.Errorf("revoke a join token: %w", err)
	}
	writeJSON(c.w, http.StatusOK, struct{}{})
	return nil
}

// tokenIntent records what is about to be done with a token, durably. What it
// returns records what became of it.
func (a *api) tokenIntent(c *call, cmd *state.Command, x join.Token, reason string) (told func(state.TokenOutcome, error), err error) {
	cmd.Object = state.Ref{Kind: "JoinToken", Name: x.ID}
	reply, err := a.ask(c.r.Context(), c.user, cmd, reason)
	if err != nil {
		return nil, err
	}
	return func(o state.TokenOutcome, err error) {
		if err != nil {
			o = state.TokenFailed
		}
		a.Controller.Submit(&state.JoinTokenTold{Cause: reply.Seq, Actor: cmd.Actor, JoinTokenNoted: TokenNoted(x, o)})
	}, nil
}

// TokenNoted is the outcome of what was done with a token.
func TokenNoted(x join.Token, o state.TokenOutcome) state.JoinTokenNoted {
	out := state.JoinTokenNoted{ID: x.ID, Outcome: o, Uses: int32(x.Uses), Many: x.Many, Node: x.Node} //nolint:gosec // bounded when it is made
	if !x.Expires.IsZero() {
		out.Expires = x.Expires.UnixNano()
	}
	return out
}
