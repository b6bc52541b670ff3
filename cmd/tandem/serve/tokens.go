package serve

import (
	"context"
	"log/slog"
	"slices"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// lostTokens tells what became of join tokens about which the controller before was
// asked, and ended before it said. It looks at the tokens: whether a machine got its
// certificate is known to nobody here.
func (s *Server) lostTokens(tokens *join.Tokens) {
	var open []state.Session
	s.Controller.View(func(st *state.State) {
		for _, x := range st.SortedSessions() {
			if x.Verb.OfToken() {
				open = append(open, *x)
			}
		}
	})
	if len(open) == 0 {
		return
	}
	list, err := tokens.List()
	if err != nil {
		s.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "could not look at the join tokens; the next start does", slog.Any("err", err))
		return
	}
	for _, x := range open {
		id := x.Token
		if x.Verb != state.CmdJoin {
			id = x.Object.Name
		}
		token := join.Token{ID: id}
		i := slices.IndexFunc(list, func(t join.Token) bool { return t.ID == id })
		if i >= 0 {
			token = list[i]
		}
		told := &state.JoinTokenTold{Cause: x.Seq, JoinTokenNoted: kubeapi.TokenNoted(token, lostToken(x.Verb, i >= 0))}
		if x.Verb == state.CmdJoin {
			told.Node = state.NodeName(x.Object.Name)
		}
		s.Controller.Submit(told)
	}
}

// lostToken is the outcome of a command by what is there afterwards.
func lostToken(verb state.CommandVerb, there bool) state.TokenOutcome {
	switch {
	case verb == state.CmdMakeToken && there:
		return state.TokenMade
	case verb == state.CmdRevokeToken && !there:
		return state.TokenRevoked
	case verb == state.CmdJoin:
		return state.TokenLost
	}
	return state.TokenFailed
}
