package join

import (
	"context"
	"log/slog"
	"net/http"

	"google.golang.org/grpc"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// maxMessage bounds one message of an agent: a report of a full node.
const maxMessage = 64 << 20

// Sessions is the controller's end of the agents' streams: agent.Hub.
type Sessions interface {
	Register(s grpc.ServiceRegistrar, identify func(context.Context) (state.NodeName, error))
}

// Handler serves agents over HTTP/2: their streams, joining and renewing. The
// listener in front of it must be of Authority.TLS.
func Handler(sessions Sessions, a *Authority, t *Tokens, ledger Ledger, logger *slog.Logger) http.Handler {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	sessions.Register(s, Identify)
	Register(s, a, t, ledger, logger)
	return s
}
