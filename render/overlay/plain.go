package overlay

import (
	"path"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// plain reads a directory without a kustomization: its *.yaml, *.yml and *.json
// files as they are, none of its subdirectories, as `kubectl apply -f DIR` does.
func (w *walker) plain() []object {
	at := state.Origin{Path: w.real(w.root), Revision: w.revision}
	entries, err := w.list(w.root)
	if err != nil {
		w.fail(at, "", "can't be read: "+err.Error(), "give a directory of the repository")
		return nil
	}
	var out []object
	for _, e := range entries {
		switch path.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
		default:
			continue
		}
		file := path.Join(w.root, e.Name())
		if w.isDir(file) {
			continue
		}
		raw, ok := w.load(file, at)
		if !ok {
			continue
		}
		docs, problems := manifest.Parse(w.at(file), raw)
		w.problems = append(w.problems, problems...)
		for _, doc := range docs {
			out = append(out, w.written(file, doc)...)
		}
	}
	if len(out) == 0 && len(w.problems) == 0 {
		w.warnings = append(w.warnings, state.Problem{At: at, Cause: "holds no object", Remedy: "add a kustomization.yaml or YAML files; subdirectories are not read"})
	}
	return out
}

// written is a document of a file as an object, or the elements of a List.
func (w *walker) written(file string, doc *manifest.Value) []object {
	place := func(p manifest.Path, v *manifest.Value) state.Origin {
		at := w.at(file)
		val, line, col, ok := doc.Lookup(p)
		switch {
		case ok && val.Kind != manifest.Map && val.Kind != manifest.List:
			at.Line, at.Col = val.Line, val.Col
		case ok:
			at.Line, at.Col = line, col
		case v != nil:
			at.Line, at.Col = v.Line, v.Col
		}
		return at
	}
	if doc.Str("kind") == "List" && strings.HasPrefix(doc.Str("apiVersion"), "v1") {
		var out []object
		if items := doc.Find("items"); items != nil {
			for _, item := range items.Items {
				out = append(out, w.written(file, item)...)
			}
		}
		return out
	}
	at := w.at(file)
	at.Line, at.Col = doc.Line, doc.Col
	return []object{{value: doc, place: place, at: at}}
}
