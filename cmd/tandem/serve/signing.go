package serve

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// signing is the controller as the API sees it: asked for another signing key, it makes
// one before the machine is told.
type signing struct {
	*act.Controller
	store *history.Store

	mu   sync.Mutex // one change at a time
	lost bool       // nobody knows whether the last change will be recorded
}

// rotationPatience is how long a change of the key may take: a group commit, as a rule.
const rotationPatience = time.Minute

// Do implements kubeapi.Controller.
func (s *signing) Do(ctx context.Context, cmd *state.Command) (state.Reply, error) {
	if cmd.Verb != state.CmdRotateKey {
		return s.Controller.Do(ctx, cmd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return state.Reply{}, errors.New("whether the last change of the signing key was recorded isn't known; start the controller again")
	}
	var err error
	if cmd.Key, err = s.store.NextKey(); err != nil {
		return state.Reply{}, fmt.Errorf("make another signing key: %w", err)
	}
	// Who asked may go; the key is taken or not all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rotationPatience)
	defer cancel()
	reply, err := s.Controller.Do(ctx, cmd)
	switch {
	case err != nil:
		s.lost = true
	case reply.Code != state.ReplyDone:
		err = s.store.ForgetNextKey()
	}
	return reply, err
}
