package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/open"
	"github.com/tandem-gitops/tandem/sources/webhooks"
)

// origins opens the sources that applications name. A directory stands for
// every ref of its own repository.
type origins struct {
	root     open.Spec
	kind     string
	isDir    bool
	cache    string
	interval time.Duration
	logger   *slog.Logger
	known    git.Credentials
	// checkpoint is the log's signed head.
	checkpoint func() ([]byte, error)
}

func newOrigins(o *Options) (*origins, error) {
	g := &origins{cache: filepath.Join(o.Data, "sources"), interval: o.Interval, logger: o.Logger, known: o.Credentials}
	g.root = open.Spec{Where: o.Where, Ref: o.Ref, Interval: o.Interval, Logger: o.Logger}
	if abs, err := filepath.Abs(o.Data); err == nil {
		g.root.Ignore = []string{abs}
	}
	// Opening it once says at the start what is wrong with the argument.
	_, kind, err := open.Source(g.spec(state.AppSource{}))
	if err != nil {
		return nil, err
	}
	g.kind, g.isDir = kind.String(), kind == open.Directory
	return g, nil
}

// spec is what an application's source means.
func (g *origins) spec(s state.AppSource) open.Spec {
	spec := g.root
	if s.Repo != "" && s.Repo != g.root.Where {
		spec = open.Spec{Where: s.Repo, Interval: g.interval, Logger: g.logger}
	}
	if !g.isDir || spec.Where != g.root.Where {
		if cmp.Or(s.Ref, s.Tag, s.Semver, s.Commit) != "" {
			spec.Ref, spec.Tag, spec.Semver, spec.Commit = s.Ref, s.Tag, s.Semver, s.Commit
		}
	}
	spec.Credentials, spec.Auth = g.known, g.known.For(spec.Where)
	key := g.key(spec)
	spec.Cache = filepath.Join(g.cache, state.DigestOf([]byte(key)).Short())
	return spec
}

func (g *origins) key(spec open.Spec) string {
	return strings.Join([]string{spec.Where, spec.Ref, spec.Commit, spec.Tag, spec.Semver}, "\x00")
}

// SameRepo says whether two sources are of one repository.
func (g *origins) SameRepo(a, b state.AppSource) bool {
	one, other := g.spec(a).Where, g.spec(b).Where
	key := webhooks.Key(one)
	return one == other || key != "" && key == webhooks.Key(other)
}

// Move implements act.Mover.
func (g *origins) Move(ctx context.Context, p *state.Push) (state.PromotionOutcome, string, error) {
	spec := g.spec(p.Source)
	if g.isDir && spec.Where == g.root.Where {
		return state.PromotionRefused, "", errors.New("a directory stands for every branch: there is none to move; run Tandem on the repository")
	}
	err := git.Push(ctx, git.Options{URL: spec.Where, Auth: spec.Auth, Logger: g.logger}, git.Move{Branch: p.Source.Ref, Old: p.Old, New: p.New, Object: p.Object})
	var moved *git.MovedError
	var refused *git.RefusedError
	switch {
	case err == nil:
		return state.PromotionDone, p.New, nil
	case errors.As(err, &moved):
		return state.PromotionConflict, moved.Found, err
	case errors.As(err, &refused):
		return state.PromotionRefused, p.Old, err
	case errors.Is(err, sources.ErrUnavailable):
		return 0, "", err
	default:
		return state.PromotionRefused, "", err // it can never work
	}
}

// Note implements act.Noter: what is deployed since when, and the log's signed
// head, of which the repository becomes a witness.
func (g *origins) Note(ctx context.Context, w *state.NoteWanted) (state.NoteOutcome, string, error) {
	spec := g.spec(w.Source)
	if g.isDir && spec.Where == g.root.Where {
		return state.NoteRefused, "", errors.New("a directory is no repository with commits to note: run Tandem on the repository")
	}
	head, err := g.checkpoint()
	if err != nil {
		return 0, "", err
	}
	said := fmt.Sprintf("Tandem: %s runs this commit, all of it since %s (record %d)\n", w.App, w.At.Time().Format(time.RFC3339), w.Seq)
	note := git.Note{Ref: w.Ref, Commit: w.Commit, Text: append([]byte(said+"\n"), head...), Once: []byte(said)}
	found, err := git.Annotate(ctx, git.Options{URL: spec.Where, Auth: spec.Auth, Logger: g.logger}, note, w.At.Time())
	var moved *git.MovedError
	var refused *git.RefusedError
	switch {
	case err == nil:
		return state.NoteWritten, found, nil
	case errors.As(err, &refused):
		return state.NoteRefused, "", err
	case errors.As(err, &moved), errors.Is(err, sources.ErrUnavailable):
		return 0, "", err
	default:
		return state.NoteRefused, "", err // it can never work
	}
}

// Open implements act.Origins.
func (g *origins) Open(s state.AppSource) (string, func() (sources.Source, error), error) {
	spec := g.spec(s)
	return g.key(spec), func() (sources.Source, error) {
		src, _, err := open.Source(spec)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", spec.Where, err)
		}
		return src, nil
	}, nil
}
