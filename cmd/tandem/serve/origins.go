package serve

import (
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
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
}

func newOrigins(o *Options) (*origins, error) {
	g := &origins{cache: filepath.Join(o.Data, "sources"), interval: o.Interval, logger: o.Logger}
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
