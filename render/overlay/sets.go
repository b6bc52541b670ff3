package overlay

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// members are the Applications that the sets of one side have for the
// directories of the tree. An Application that is written for the same path and
// source stands in for the set's.
func (r *run) members(w *walker, decoder *manifest.Decoder, sets []*manifest.Set, written []state.Application) (out []state.Application, problems []state.Problem) {
	type place struct {
		path   string
		source state.AppSource
	}
	explicit := map[place]bool{}
	for i := range written {
		explicit[place{path.Clean(written[i].Path), written[i].Source}] = true
	}
	f := finder{view: newView(w.ctx, w.tree, w.trace)}
	owner := map[place]string{}
	for _, set := range sets {
		found := f.find(set, r.path)
		if f.err != nil {
			return out, append(problems, state.Problem{Object: state.Ref{Kind: "ApplicationSet", Name: set.Name}, At: set.At, Cause: f.err.Error(), Remedy: "make the patterns narrower"})
		}
		if len(found) == 0 {
			r.warnings = append(r.warnings, state.Problem{Object: state.Ref{Kind: "ApplicationSet", Name: set.Name}, At: set.At, Cause: "finds no directory", Remedy: "correct spec.paths: they are paths from the root of the repository"})
		}
		names := map[state.AppName]string{}
		for _, d := range found {
			m, bad := decoder.Member(set, d.path, d.stars)
			if problems = append(problems, bad...); m.App == nil {
				continue
			}
			at := place{path.Clean(m.App.Path), m.App.Source}
			switch {
			case explicit[at]:
				continue
			case owner[at] != "":
				problems = append(problems, state.Problem{Object: m.Ref, At: m.App.At, Cause: fmt.Sprintf("%s is found by ApplicationSet %s and by %s", d.path, owner[at], set.Name), Remedy: "exclude it in one of them"})
				continue
			case names[m.App.Name] != "":
				problems = append(problems, state.Problem{Object: m.Ref, At: m.App.At, Cause: fmt.Sprintf("%s and %s get the same name", names[m.App.Name], d.path), Remedy: "put every {n} of the pattern into the name"})
				continue
			}
			owner[at], names[m.App.Name] = set.Name, d.path
			out = append(out, *m.App)
		}
	}
	return out, problems
}

// finder looks for directories. What it lists is a read: a commit that adds one
// is noticed.
type finder struct {
	*view
	err error
}

type match struct {
	path  string
	stars []string
}

// find gives the directories of a set, sorted, without the root's own.
func (f *finder) find(set *manifest.Set, root string) []match {
	found := map[string][]string{}
	for i := range set.Paths {
		f.below(".", &set.Paths[i], 0, found)
	}
	var out []match
	for p, stars := range found {
		excluded := p == root || slices.ContainsFunc(set.Exclude, func(x manifest.Pattern) bool { return x.Covers(p) })
		if !excluded {
			out = append(out, match{p, stars})
		}
	}
	slices.SortFunc(out, func(a, b match) int { return strings.Compare(a.path, b.path) })
	return out
}

// below matches the pattern's parts from the given one on with what is in dir.
func (f *finder) below(dir string, p *manifest.Pattern, part int, found map[string][]string) {
	if f.err != nil {
		return
	}
	if part == len(p.Parts) {
		if stars, ok := p.Match(dir); ok && found[dir] == nil {
			if found[dir] = append([]string{}, stars...); len(found) > MaxApplications {
				f.err = fmt.Errorf("finds more than %d directories", MaxApplications)
			}
		}
		return
	}
	entries, err := f.list(dir)
	if err != nil {
		if f.ctx.Err() != nil {
			f.err = f.ctx.Err()
		}
		return
	}
	for _, e := range entries {
		if ok, err := path.Match(p.Parts[part], e.Name()); err == nil && ok && e.IsDir() && (e.Name()[0] != '.' || p.Parts[part][0] == '.') {
			f.below(path.Join(dir, e.Name()), p, part+1, found)
		}
	}
}
