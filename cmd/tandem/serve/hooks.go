package serve

import (
	"net/http"
	"path/filepath"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources/webhooks"
)

// hookPath is where Git hosts call: /hooks/github and so on.
const hookPath = "/hooks/"

// hooks answers Git hosts. Each has its secret in a file of DATA/hooks; without
// the file it is not listened to.
func (s *Server) hooks() http.Handler {
	return webhooks.New(webhooks.Options{Secrets: filepath.Join(s.opts.Data, "hooks"), Hint: s.hinted, Logger: s.opts.Logger})
}

// hinted lets the sources of a repository look now. The ref is not looked at:
// a source that has nothing new costs one list of refs.
func (s *Server) hinted(repo, _ string) {
	if s.feeds == nil {
		return
	}
	s.feeds.HintWhere(func(source state.AppSource) bool {
		return webhooks.Key(s.origins.spec(source).Where) == repo
	})
}
