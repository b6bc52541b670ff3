package serve

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// A controller dies between a command about a join token and what became of it: the
// next one looks at the tokens, and writes it down.
func TestLostJoinTokensHaveAnOutcome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var kept join.Token
	life := func(do func(s *Server, tokens *join.Tokens, ask func(*state.Command) state.Seq)) {
		t.Helper()
		data, err := OpenData(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		authority, err := join.OpenAuthority(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{Data: data, opts: Options{Logger: slog.New(slog.DiscardHandler)}}
		s.Controller, err = act.New(t.Context(), act.Config{
			Log: data.Store, Library: data.Library, Texts: data.Store.Texts(), Nodes: nowhere{}, LogID: data.Store.ID(), Version: "test", Logger: s.opts.Logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Controller.Run(ctx) }()
		do(s, join.OpenTokens(dir, authority.Pin()), func(c *state.Command) state.Seq {
			r, err := s.Controller.Do(ctx, c)
			if err != nil || r.Code != state.ReplyDone {
				t.Fatalf("%s: %+v, %v", c.Verb, r, err)
			}
			return r.Seq
		})
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	asked := map[state.Seq]state.TokenOutcome{}
	life(func(_ *Server, tokens *join.Tokens, ask func(*state.Command) state.Seq) {
		x, _, err := tokens.Draw("rita", time.Hour, 2, "")
		if err == nil {
			err = tokens.Keep(x)
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = x
		token := func(id string) state.Ref { return state.Ref{Kind: "JoinToken", Name: id} }
		asked[ask(&state.Command{Verb: state.CmdMakeToken, Object: token(x.ID)})] = state.TokenMade
		asked[ask(&state.Command{Verb: state.CmdMakeToken, Object: token("never")})] = state.TokenFailed
		asked[ask(&state.Command{Verb: state.CmdRevokeToken, Object: token("gone")})] = state.TokenRevoked
		asked[ask(&state.Command{Verb: state.CmdRevokeToken, Object: token(x.ID)})] = state.TokenFailed
		asked[ask(&state.Command{Verb: state.CmdJoin, Object: state.Ref{Kind: "Node", Name: "n1"}, Hold: x.ID})] = state.TokenLost
	})
	life(func(s *Server, tokens *join.Tokens, _ func(*state.Command) state.Seq) {
		s.lostTokens(tokens)
		for deadline := time.Now().Add(10 * time.Second); ; {
			open, seq := 0, state.Seq(0)
			s.Controller.View(func(st *state.State) { open, seq = len(st.Sessions), st.Seq })
			if open == 0 {
				break
			}
			select {
			case <-s.Controller.Changed(seq):
			case <-time.After(time.Until(deadline)):
				t.Fatalf("%d commands have no outcome", open)
			}
		}
		got := map[state.Seq]*state.JoinTokenNoted{}
		for r, err := range s.Controller.Records(t.Context(), 1) {
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := r.Fact.(*state.JoinTokenNoted); ok {
				got[r.Cause] = f
			}
		}
		for seq, want := range asked {
			if f := got[seq]; f == nil || f.Outcome != want || want == state.TokenLost && (f.ID != kept.ID || f.Node != "n1") {
				t.Errorf("record %d: %+v, want %s", seq, f, want)
			}
		}
		s.lostTokens(tokens) // there is nothing left to tell
	})
}

// nowhere has no agents.
type nowhere struct{}

func (nowhere) Assign(state.Assignment) {}
