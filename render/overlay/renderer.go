package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/sources"
)

// Options are what a Renderer needs besides a tree.
type Options struct {
	Tokens manifest.Tokens // keyed; stands for secret values in digests
	Keys   *sops.Keys      // open encrypted Secrets; nil: they are refused
}

// Renderer is the render.Renderer: kustomize, per operating system. It holds no
// state and may be used from several goroutines.
type Renderer struct{ options Options }

var _ render.Renderer = (*Renderer)(nil)

// New makes a Renderer.
func New(options Options) *Renderer { return &Renderer{options: options} }

// Render implements render.Renderer.
func (r *Renderer) Render(ctx context.Context, snap sources.Snapshot, app state.Application) (render.Result, error) {
	limited, cancel := context.WithTimeout(ctx, MaxTime)
	defer cancel()
	run := &run{options: r.options, snap: snap, app: app, trace: &trace{reads: map[string]string{}}}
	run.path = path.Clean(app.Path)
	if app.Path == "" {
		run.path = "."
	}
	result := run.render(limited)
	if ctx.Err() != nil {
		return render.Result{}, fmt.Errorf("render %s: %w", app.Name, ctx.Err())
	}
	if limited.Err() != nil {
		return render.Result{Problems: []state.Problem{{
			At: state.Origin{Path: run.path, Revision: snap.Revision}, Cause: fmt.Sprintf("takes longer than %s to render", MaxTime), Remedy: "split it into several Applications",
		}}}, nil
	}
	return result, nil
}

// run is one call of Render.
type run struct {
	options  Options
	snap     sources.Snapshot
	app      state.Application
	path     string
	trace    *trace
	problems []state.Problem
	warnings []state.Problem
}

func (r *run) fail(at state.Origin, cause, remedy string) {
	r.problems = append(r.problems, state.Problem{At: at, Cause: cause, Remedy: remedy})
}

func (r *run) render(ctx context.Context) render.Result {
	here := state.Origin{Path: r.path, Revision: r.snap.Revision}
	if strings.HasPrefix(r.path, "/") || r.path == ".." || strings.HasPrefix(r.path, "../") {
		r.fail(r.app.At, fmt.Sprintf("path %q leads out of the tree", r.path), "give a path inside the repository")
		return r.result(nil, nil)
	}
	info, err := r.snap.FS.Stat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.fail(here, "there is no such directory", "correct spec.path of the Application, or add the directory")
		return r.result(nil, nil)
	case err != nil:
		r.fail(here, "can't be read: "+err.Error(), "commit an ordinary directory inside the repository")
		return r.result(nil, nil)
	case !info.IsDir():
		r.fail(here, "is a file, not a directory", "give its directory as the Application's path")
		return r.result(nil, nil)
	}
	first := r.read(newView(ctx, r.snap.FS, r.trace))
	second, pairs, from := r.other(first)
	return r.merge(first, second, pairs, from)
}

// read walks and renders one view of the path.
func (r *run) read(v *view) *walker {
	w := &walker{view: v, keys: r.options.Keys, root: r.path, revision: r.snap.Revision, index: &index{}}
	here := w.at(r.path)
	file := w.kustomization(r.path, here)
	switch {
	case file != "":
		w.index.via = w.real(file)
		w.dir(r.path, here, false, nil)
		w.isKustomization = true
		if !r.app.Helm.IsZero() {
			w.fail(r.app.At, "spec.helm", "there is a "+path.Base(file)+" at the path: it is rendered with kustomize, not with Helm", "remove spec.helm, or name the chart's own directory as the path")
		}
	case len(w.problems) > 0:
	case w.isFile(path.Join(r.path, chartFile)):
		w.index.via = w.real(path.Join(r.path, chartFile))
		w.objectsOfPlain = w.chart(r.app)
	case !r.app.Helm.IsZero():
		w.fail(r.app.At, "spec.helm", "there is no "+chartFile+" in "+w.real(r.path), "name the chart's directory as the path, or remove spec.helm")
	default:
		w.index.via = w.real(r.path)
		w.objectsOfPlain = w.plain()
	}
	return w
}

// other finds the pairs and walks the path as the other operating system sees
// it, again until there is no new pair. It is nil where there is none.
func (r *run) other(first *walker) (*walker, map[string]bool, state.OS) {
	if len(r.app.Variants) == 1 && !r.namesOther(first) {
		return nil, nil, state.AnyOS
	}
	found := first.newPairs()
	if len(found) == 0 {
		if len(r.app.Variants) > 1 {
			r.fail(r.app.At, "variants are linux and windows, but no path goes through linux/ or windows/ with the other beside it", "add the missing directory, or remove spec.variants")
		}
		return nil, nil, state.AnyOS
	}
	from := found[0].os
	pairs := map[string]bool{}
	for _, s := range found {
		pairs[s.dir] = true
		if s.os != from {
			r.fail(first.at(path.Join(s.dir, string(s.os))), fmt.Sprintf("the render reads %s, but %s of %s: it is neither's", path.Join(s.dir, string(s.os)), from, found[0].dir), "name the same operating system's directory everywhere")
			return nil, nil, state.AnyOS
		}
	}
	first.os, first.from = from, string(from)
	for range MaxRounds {
		second := r.read(first.exchanged(from, pairs))
		more := second.newPairs()
		if len(more) == 0 {
			return second, pairs, from
		}
		for _, s := range more {
			pairs[s.dir] = true
		}
	}
	r.fail(first.at(r.path), fmt.Sprintf("still finds new pairs of linux/ and windows/ after %d renders", MaxRounds), "nest them less")
	return nil, nil, state.AnyOS
}

// namesOther says whether the one variant that is wanted is not the one whose
// directories the files name.
func (r *run) namesOther(first *walker) bool {
	found := first.newPairs()
	return len(found) > 0 && found[0].os != r.app.Variants[0]
}

// merge builds what the walks found sound, decodes it and makes one manifest.
func (r *run) merge(first, second *walker, pairs map[string]bool, from state.OS) render.Result {
	a := r.side(first, from)
	if second == nil {
		return r.result(&merger{run: r, a: a, pairs: nil}, nil)
	}
	b := r.side(second, from.Other())
	if len(r.app.Variants) == 1 { // the other one is wanted, alone
		r.problems = slices.DeleteFunc(r.problems, func(p state.Problem) bool { return slices.Contains(a.problems, p) && !slices.Contains(b.problems, p) })
		return r.result(&merger{run: r, a: b}, pairNames(from, pairs))
	}
	m := &merger{run: r, a: a, b: b, pairs: slices.Sorted(maps.Keys(pairs))}
	return r.result(m, pairNames(from, pairs))
}

// half is what one operating system's render came to.
type half struct {
	os        state.OS
	objects   map[state.Ref]*decoded
	order     []state.Ref
	apps      []state.Application
	pipelines []state.Pipeline
	access    []declaredAccess
	problems  []state.Problem
}

type decoded struct {
	ref    state.Ref
	body   state.Body
	digest state.Digest
	at     state.Origin
	place  manifest.Place
}

func (r *run) side(w *walker, os state.OS) *half {
	h := &half{os: os, objects: map[state.Ref]*decoded{}}
	objects := w.objectsOfPlain
	if w.isKustomization && len(w.problems) == 0 && !w.stopped {
		objects = w.build()
	}
	h.problems = w.problems
	decoder := manifest.NewDecoder(manifest.Options{Namespace: r.app.Namespace, Root: r.app.Name == state.RootApp, IgnoreKinds: r.app.IgnoreKinds})
	var sets []*manifest.Set
	for _, o := range objects {
		o, problems := r.substituted(o)
		if len(problems) > 0 {
			h.problems = append(h.problems, problems...)
			continue
		}
		d, problems := decoder.Decode(o.value, o.place)
		h.problems = append(h.problems, problems...)
		if len(problems) > 0 || d.Ignored {
			continue
		}
		if d.Set != nil {
			sets = append(sets, d.Set)
			continue
		}
		if d.App != nil {
			h.apps = append(h.apps, *d.App)
			continue
		}
		if d.Pipeline != nil {
			h.pipelines = append(h.pipelines, *d.Pipeline)
			continue
		}
		if d.Access != nil {
			h.access = append(h.access, declaredAccess{d.Ref, *d.Access})
			continue
		}
		if before, ok := h.objects[d.Ref]; ok {
			h.problems = append(h.problems, state.Problem{
				Object: d.Ref, At: o.at, Cause: fmt.Sprintf("is there twice; the first is in %s:%d", before.at.Path, before.at.Line), Remedy: "remove one of them, or give it another name",
			})
			continue
		}
		digest, err := manifest.VariantDigest(d.Body, r.options.Tokens)
		if err != nil {
			h.problems = append(h.problems, state.Problem{Object: d.Ref, At: o.at, Cause: "can't be written as JSON", Remedy: "remove what is not text"})
			continue
		}
		h.objects[d.Ref] = &decoded{ref: d.Ref, body: d.Body, digest: digest, at: o.at, place: o.place}
		h.order = append(h.order, d.Ref)
		w.warnings = append(w.warnings, d.Notes...)
		w.warnings = append(w.warnings, longGrace(&o, &d)...)
	}
	members, problems := r.members(w, decoder, sets, h.apps)
	h.apps, h.problems = append(h.apps, members...), append(h.problems, problems...)
	r.problems = append(r.problems, h.problems...)
	r.warnings = append(r.warnings, w.warnings...)
	return h
}

// saidOnce sorts warnings. What both renders read is said as the first one has it.
func saidOnce(warnings []state.Problem) []state.Problem {
	all := slices.CompactFunc(state.SortProblems(warnings), func(a, b state.Problem) bool {
		a.At.Via, b.At.Via = "", ""
		return a == b
	})
	if more := len(all) - MaxProblems; more > 0 {
		all = append(all[:MaxProblems:MaxProblems], state.Problem{Cause: fmt.Sprintf("and %d more warnings", more), Remedy: "attend to the first ones"})
	}
	return all
}

// result sorts and finishes. m is nil where nothing could be read.
func (r *run) result(m *merger, pairs []string) render.Result {
	var res render.Result
	var objects []*state.Object
	if m != nil {
		objects = m.objects()
		res.Apps, res.Pipelines, res.Access = m.apps(), m.pipelines(), m.access()
	}
	if len(r.problems) > 0 {
		problems := state.SortProblems(r.problems)
		if more := len(problems) - MaxProblems; more > 0 {
			problems = append(problems[:MaxProblems:MaxProblems], state.Problem{Cause: fmt.Sprintf("and %d more problems", more), Remedy: "correct the first ones"})
		}
		return render.Result{Problems: problems}
	}
	res.Manifest = &state.Manifest{
		App: r.app.Name, Objects: objects, Reads: r.trace.sorted(), Pairs: pairs, Warnings: saidOnce(r.warnings), Digest: manifest.Digest(objects),
	}
	return res
}
