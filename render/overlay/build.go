package overlay

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// object is one object of a render, as text.
type object struct {
	value *manifest.Value
	place manifest.Place
	at    state.Origin
}

// build renders the path that w walked. Nothing remote is left in it.
func (w *walker) build() []object {
	m, err := w.kustomize()
	if err != nil {
		w.problems = append(w.problems, w.translate(err)...)
		return nil
	}
	if m.Size() > MaxObjects {
		w.fail(state.Origin{Path: w.index.via, Revision: w.revision}, "", fmt.Sprintf("renders %d objects, more than %d", m.Size(), MaxObjects), "split it into several Applications")
		return nil
	}
	var out []object
	size := 0
	for _, r := range m.Resources() {
		raw, err := r.AsYAML()
		if err != nil {
			w.problems = append(w.problems, w.translate(err)...)
			continue
		}
		if size += len(raw); size > MaxOutputBytes {
			w.fail(state.Origin{Path: w.index.via, Revision: w.revision}, "", fmt.Sprintf("renders more than %d bytes", MaxOutputBytes), "split it into several Applications")
			return nil
		}
		out = append(out, w.objects(raw)...)
	}
	return out
}

// objects parses kustomize's output; the places are those of the sources.
func (w *walker) objects(raw []byte) []object {
	docs, problems := manifest.Parse(state.Origin{Path: w.index.via, Revision: w.revision}, raw)
	for _, p := range problems {
		p.At.Line, p.At.Col = 0, 0 // lines of the output, not of a file
		w.problems = append(w.problems, p)
	}
	var out []object
	for _, doc := range docs {
		_, ref := manifest.Identify(doc)
		out = append(out, object{
			value: doc, at: w.index.origin(ref),
			place: func(p manifest.Path, v *manifest.Value) state.Origin { return w.index.find(ref, p, v) },
		})
	}
	return out
}

// kustomize runs kustomize's own code. A panic in it is a mistake of the text
// that kustomize did not foresee.
func (w *walker) kustomize() (m resmap.ResMap, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kustomize panicked: %v", r)
		}
	}()
	options := krusty.MakeDefaultOptions()
	// A manifest is sorted by itself, and kustomize's sorting compares every object
	// with every other one.
	options.Reorder = krusty.ReorderOptionNone
	if w.sorts {
		options.Reorder = krusty.ReorderOptionUnspecified
	}
	return krusty.MakeKustomizer(options).Run(kustomizeFS{w.view}, filepath.FromSlash(path.Join("/", w.root)))
}

var (
	registered = regexp.MustCompile(`may not add resource with an already registered id: ([^.\s]+)(?:\.[^\s/]*)*/([^.\s]+)\.`)
	noMatches  = regexp.MustCompile(`no (?:matches for Id|resource matches strategic merge patch) "?([^.\s"]+)[^/]*/([^.\s"]+)\.`)
	mergeInto  = regexp.MustCompile(`id resid\.ResId\{.*?Kind:"(\w+)".*?Name:"([^"]+)".*?does not exist; cannot (merge|replace)`)
)

// translate says in a person's words what kustomize refused. What it doesn't
// know is kustomize's innermost message, with secret values taken out.
func (w *walker) translate(err error) []state.Problem {
	msg := w.redact(err.Error())
	root := state.Origin{Path: w.index.via, Revision: w.revision}
	if m := registered.FindStringSubmatch(msg); m != nil {
		ref := state.Ref{Kind: m[1], Name: m[2]}
		at, others := w.writers(ref, false)
		return []state.Problem{{Object: ref, At: at, Cause: "is there twice" + others, Remedy: "remove one of them, or give it another name"}}
	}
	if m := noMatches.FindStringSubmatch(msg); m != nil {
		ref := state.Ref{Kind: m[1], Name: m[2]}
		at, _ := w.writers(ref, true)
		return []state.Problem{{Object: ref, At: at, Cause: "a patch is for an object that is not there", Remedy: "correct the patch's kind, name and namespace"}}
	}
	if m := mergeInto.FindStringSubmatch(msg); m != nil {
		ref := state.Ref{Kind: m[1], Name: m[2]}
		at, _ := w.writers(ref, true)
		return []state.Problem{{Object: ref, At: at, Cause: "behavior: " + m[3] + ", but there is nothing to " + m[3] + " with", Remedy: "remove behavior, or name a generator of the base"}}
	}
	return []state.Problem{{At: root, Cause: "kustomize refuses it: " + innermost(msg), Remedy: "try it with  kustomize build " + w.real(w.root)}}
}

// writers names the places where an object, or patches of it, are written.
func (w *walker) writers(ref state.Ref, patches bool) (state.Origin, string) {
	var places []state.Origin
	for _, s := range w.index.sources {
		if s.kind == ref.Kind && s.name == ref.Name && s.patch == patches {
			places = append(places, s.place(s.value.Line, s.value.Col))
		}
	}
	if len(places) == 0 {
		return state.Origin{Path: w.index.via, Revision: w.revision}, ""
	}
	last := places[len(places)-1]
	if len(places) == 1 {
		return w.index.seenFrom(last), ""
	}
	first := places[0]
	return w.index.seenFrom(last), fmt.Sprintf("; the first is in %s:%d", first.Path, first.Line)
}

// innermost keeps the last part of kustomize's chain of messages, on one line,
// without configurations that it quotes.
func innermost(msg string) string {
	msg, _, _ = strings.Cut(msg, " with config:")
	if i := strings.LastIndex(msg, "' : "); i >= 0 {
		msg = msg[i+4:]
	}
	if i := strings.LastIndex(msg, `': `); i >= 0 && i+3 < len(msg) {
		msg = msg[i+3:]
	}
	return clip(msg)
}

// redact takes every value of a Secret out of a message.
func (w *walker) redact(msg string) string {
	for _, s := range w.secrets {
		if s != "" && len(s) < 3 {
			return "(its message is left out: it may hold a secret)"
		}
		for _, form := range []string{s, strings.TrimSpace(s), fmt.Sprintf("%q", s)} {
			if len(form) >= 3 {
				msg = strings.ReplaceAll(msg, form, "(secret)")
			}
		}
	}
	return msg
}
