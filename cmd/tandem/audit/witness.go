package audit

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/sources/git"
)

// NotesPrefix is where deployment notes lie in a repository.
const NotesPrefix = "refs/notes/tandem/"

// signedHead is a checkpoint among other words.
var signedHead = regexp.MustCompile(`(?m)^tandem\.dev/log/[0-9a-f]+\n[0-9]+\n[A-Za-z0-9+/=]+\n\n— [^\n]+\n`)

// Witnesses reads the checkpoints that a repository's deployment notes hold.
// Those who can write there can take notes away, but not make any.
func Witnesses(ctx context.Context, repo string) ([]history.Witnessed, error) {
	notes, err := git.Notes(ctx, git.Options{URL: repo}, NotesPrefix)
	if err != nil {
		return nil, err
	}
	var out []history.Witnessed
	for _, n := range notes {
		for _, text := range signedHead.FindAll(append(n.Text, '\n'), -1) {
			out = append(out, history.Witnessed{Where: fmt.Sprintf("the note of commit %.7s at %s", n.Commit, n.Ref), Text: text})
		}
	}
	if len(out) == 0 {
		return nil, errors.New(repo + " has no deployment notes below " + NotesPrefix + ": an Application's spec.notes has them written")
	}
	return out, nil
}
