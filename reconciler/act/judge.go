package act

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/verify"
)

const (
	judgeAgain    = 10 * time.Second // after a history could not be read
	maxUnsigned   = 20               // commits that one rejection lists
	maxSignerFile = 100              // files of a directory of signers
)

// errNotYet is a judgement that waits for the root, which has the signers.
var errNotYet = errors.New("the root was not read yet")

// verdict is what is thought of a commit before it is rendered.
type verdict struct {
	rewound  bool
	signer   string
	problems []state.Problem
}

// judge says whether a snapshot follows from what the application has, and
// whether those signed it who must. It fails closed: an error means that the
// snapshot isn't used.
func (f *Feeds) judge(ctx context.Context, s *subscriber, snap *sources.Snapshot) (verdict, error) {
	var v verdict
	var had state.Revision
	f.c.View(func(st *state.State) {
		if a := st.Apps[s.app.Name]; a != nil {
			had = a.Revision
		}
	})
	if s.moved || snap.Commit.Hash == "" || refOf(had) != refOf(snap.Revision) {
		had = "" // there is nothing to follow from
	}
	var err error
	if v.rewound, err = f.rewound(ctx, s, snap, had); err != nil {
		return v, err
	}
	if v.rewound {
		had = ""
	}
	if s.app.Source.Verify.Mode == 0 {
		return v, nil
	}
	err = f.signed(ctx, s, snap, had, &v)
	return v, err
}

// refOf is "main" of "main@sha1:…".
func refOf(r state.Revision) string {
	ref, _, _ := strings.Cut(string(r), "@")
	return ref
}

// rewound says whether a commit doesn't follow from the one before it. A tag
// never moves.
func (f *Feeds) rewound(ctx context.Context, s *subscriber, snap *sources.Snapshot, had state.Revision) (bool, error) {
	before := had.Commit()
	switch {
	case before == "" || before == snap.Commit.Hash || slices.Contains(snap.Commit.Parents, before):
		return false, nil
	case strings.HasPrefix(refOf(had), "refs/tags/"):
		return true, nil
	}
	h, ok := s.feed.source.(sources.Historian)
	if !ok {
		return false, nil
	}
	follows, err := h.Descends(ctx, snap.Commit.Hash, before)
	if errors.Is(err, sources.ErrNotFound) {
		// A shallow clone on this machine: what it lacks can't be asked for.
		f.logger.LogAttrs(ctx, slog.LevelWarn, "could not tell whether a branch was rewound", slog.String("app", string(s.app.Name)), slog.Any("err", err))
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("see whether %s follows from %s: %w", snap.Revision.Short(), had.Short(), err)
	}
	return !follows, nil
}

// signed adds to the verdict who signed the commit, or what is wrong with it.
func (f *Feeds) signed(ctx context.Context, s *subscriber, snap *sources.Snapshot, had state.Revision, v *verdict) error {
	fail := func(cause, remedy string) {
		v.problems = append(v.problems, state.Problem{
			Object: state.Ref{Kind: "Application", Name: string(s.app.Name)}, Field: "spec.source.verify", At: s.app.At, Cause: cause, Remedy: remedy,
		})
	}
	root := f.accepted()
	if root == nil {
		return errNotYet
	}
	if snap.Commit.Hash == "" {
		fail("a directory is signed by nobody", "follow a branch of a repository, or remove verify")
		return nil
	}
	if f.sameRepo(s.app.Source) && refOf(snap.Revision) == refOf(root.Revision) {
		fail("the list of signers lies on the branch that is judged: whoever pushes there can add to it", "follow another branch than the root's")
		return nil
	}
	lists, err := signerFiles(root.FS, s.app.Source.Verify.Signers)
	if err != nil {
		fail("the list of signers can't be read: "+err.Error(), "add it to the root's repository, or correct verify.signers")
		return nil //nolint:nilerr // told as a problem
	}
	signers, err := verify.ParseSigners(lists...)
	if err != nil {
		fail("the list of signers "+s.app.Source.Verify.Signers+": "+err.Error(), "write an allowed_signers file as ssh-keygen reads it, or an armored OpenPGP keyring")
		return nil //nolint:nilerr // told as a problem
	}
	if cause := disagreement(&snap.Commit); cause != "" {
		fail(cause, "make the commit anew with git")
		return nil
	}
	by, err := signers.Commit(snap.Commit.Raw, time.Now())
	if err != nil {
		fail(fmt.Sprintf("commit %.7s by %s: %v", snap.Commit.Hash, person(snap.Commit.Author), err), "sign it with a key of "+s.app.Source.Verify.Signers+" (git commit -S), or add the key there")
	}
	v.signer = by.String()
	if s.app.Source.Verify.Mode != state.VerifyStrict || len(v.problems) > 0 {
		return nil
	}
	h, ok := s.feed.source.(sources.Historian)
	if !ok {
		fail("its source has no history to verify", "use mode: head")
		return nil
	}
	err = h.Since(ctx, snap.Commit.Hash, had.Commit(), func(hash string, raw []byte) error {
		if hash == snap.Commit.Hash {
			return nil
		}
		if _, err := signers.Commit(raw, time.Time{}); err != nil && len(v.problems) < maxUnsigned {
			fail(fmt.Sprintf("commit %.7s, which it follows from: %v", hash, err), "have every commit signed, or use mode: head")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify what %s follows from: %w", snap.Revision.Short(), err)
	}
	return nil
}

// disagreement says where two parsers read one commit differently.
func disagreement(c *sources.Commit) string {
	p, err := verify.Parse(c.Raw)
	if err != nil {
		return fmt.Sprintf("commit %.7s is not as Git writes them: %v", c.Hash, err)
	}
	if p.Tree != c.Tree || !slices.Equal(p.Parents, c.Parents) {
		return fmt.Sprintf("commit %.7s can be read in two ways", c.Hash)
	}
	return ""
}

// signerFiles are the lists of signers: a file, or the files of a directory.
func signerFiles(tree sources.Tree, name string) ([][]byte, error) {
	info, err := tree.Stat(name)
	if err != nil {
		return nil, err
	}
	names := []string{name}
	if info.IsDir() {
		entries, err := fs.ReadDir(tree, name)
		if err != nil {
			return nil, err
		}
		if len(entries) > maxSignerFile {
			return nil, fmt.Errorf("%s has more than %d files", name, maxSignerFile)
		}
		names = nil
		for _, e := range entries {
			names = append(names, path.Join(name, e.Name()))
		}
	}
	var out [][]byte
	for _, n := range names {
		raw, err := tree.ReadFile(n)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

// sameRepo says whether a source is of the root's repository.
func (f *Feeds) sameRepo(s state.AppSource) bool {
	if o, ok := f.origins.(interface {
		SameRepo(a, b state.AppSource) bool
	}); ok {
		return o.SameRepo(s, state.AppSource{})
	}
	return s.Repo == ""
}

// accepted is the root's snapshot that the machine took; signers are read there
// and never in the commit that they judge.
func (f *Feeds) accepted() *sources.Snapshot {
	var had state.Revision
	f.c.View(func(st *state.State) {
		if a := st.Apps[state.RootApp]; a != nil {
			had = a.Revision
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if root := f.subs[state.RootApp]; root != nil && root.feed != nil && root.feed.latest != nil && root.feed.latest.Revision == had {
		f.trusted = root.feed.latest
	}
	return f.trusted
}

// trust takes the root's snapshot as the one with the signers, and has those
// judged anew who are verified.
func (f *Feeds) trust(snap *sources.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trusted = snap
	for _, s := range f.subs {
		if s.app.Source.Verify.Mode != 0 {
			s.anew = true
			s.wake()
		}
	}
}
