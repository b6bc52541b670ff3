package overlay

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/sops"
)

// walker reads what kustomize would read, before kustomize does: it refuses
// what would leave the tree, finds mistakes with their lines, and remembers
// where every object and patch is written.
type walker struct {
	*view
	keys     *sops.Keys
	root     string // the rendered path
	revision state.Revision
	index    *index
	problems []state.Problem
	warnings []state.Problem
	secrets  []string // values that no message may hold
	visited  int
	stopped  bool
	sorts    bool // kustomize sorts what it builds
	tells    bool // kustomize writes into objects where they come from

	namespace string // that kustomize gives to the charts of what is being read

	isKustomization bool
	objectsOfPlain  []object // of a directory without a kustomization
}

// kustomizationNames are what kustomize looks for, in its order.
func kustomizationNames() []string {
	return []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}
}

func (w *walker) at(virtual string) state.Origin {
	return state.Origin{Path: w.real(virtual), Revision: w.revision}
}

// mark is the place of a value in a file, seen from the rendered path.
func (w *walker) mark(virtual string, v *manifest.Value) state.Origin {
	at := w.at(virtual)
	if v != nil {
		at.Line, at.Col = v.Line, v.Col
	}
	return w.index.seenFrom(at)
}

func (w *walker) fail(at state.Origin, field, cause, remedy string) {
	w.problems = append(w.problems, state.Problem{At: at, Field: field, Cause: cause, Remedy: remedy})
}

// kustomization finds the kustomization file of a directory; "" where there is
// none.
func (w *walker) kustomization(dir string, from state.Origin) string {
	var found []string
	for _, name := range kustomizationNames() {
		if p := path.Join(dir, name); w.isFile(p) {
			found = append(found, p)
		}
	}
	if len(found) > 1 {
		w.fail(from, "", fmt.Sprintf("%s has %d kustomization files: %s and %s", w.real(dir), len(found), path.Base(found[0]), path.Base(found[1])), "keep one of them")
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// dir reads the kustomization in a directory and everything that it names.
// stack holds the directories on the way to it.
func (w *walker) dir(dir string, from state.Origin, component bool, stack []string) {
	if w.visited++; w.visited > MaxDirectories || len(stack) > MaxNesting {
		if !w.stopped {
			w.fail(from, "", fmt.Sprintf("reads more than %d kustomizations, or nests them deeper than %d", MaxDirectories, MaxNesting), "use fewer overlays")
		}
		w.stopped = true
		return
	}
	file := w.kustomization(dir, from)
	if file == "" {
		w.fail(from, "", "there is no kustomization.yaml in "+w.real(dir)+w.twin(dir+"/kustomization.yaml"), "add one, or name the files in it")
		return
	}
	raw, ok := w.load(file, from)
	if !ok {
		return
	}
	docs, problems := manifest.Parse(w.mark(file, nil), raw)
	w.problems = append(w.problems, problems...)
	if len(problems) > 0 {
		return
	}
	if len(docs) != 1 || docs[0].Kind != manifest.Map || len(docs[0].Fields) == 0 {
		w.fail(w.mark(file, nil), "", "want one kustomization in the file", "write apiVersion, kind and resources; objects go into files of their own")
		return
	}
	k := &kustomization{walker: w, dir: dir, file: file, stack: append(slices.Clone(stack), dir), value: docs[0]}
	if len(stack) == 0 && k.value.Find("sortOptions") != nil {
		w.sorts = true // it would complain of an order that we don't need
	}
	if len(stack) == 0 {
		for _, v := range k.strings("buildMetadata") {
			w.tells = w.tells || v.Text != types.ManagedByLabelOption
		}
	}
	outer := w.namespace
	w.namespace = cmp.Or(k.value.Str("namespace"), outer)
	if k.valid(component, from) {
		k.references()
		k.helmCharts()
		k.warnDeprecated()
	}
	w.namespace = outer
}

// load reads a file and turns what goes wrong into a problem at the reference.
func (w *walker) load(virtual string, from state.Origin) ([]byte, bool) {
	raw, err := w.read(virtual)
	switch {
	case err == nil && bytes.HasPrefix(raw, []byte("version https://git-lfs.github.com/spec/")):
		w.fail(w.mark(virtual, nil), "", "is a pointer to Git LFS, whose files are not fetched", "commit the file itself")
	case err == nil:
		return w.decrypted(virtual, raw)
	case w.ctx.Err() != nil:
		w.stopped = true
	case errors.Is(err, fs.ErrNotExist):
		w.fail(from, "", "there is no file or directory "+w.real(virtual)+w.twin(virtual), "add it, or correct the path")
	case errors.Is(err, errTooLarge):
		w.fail(w.mark(virtual, nil), "", strings.TrimPrefix(err.Error(), errTooLarge.Error()+": "), "split it, or keep it out of the manifests")
	default:
		w.fail(w.mark(virtual, nil), "", "can't be read: "+err.Error(), "commit an ordinary file inside the repository")
	}
	return nil, false
}

// twin says that the other OS's directory has what this one lacks.
func (w *walker) twin(virtual string) string {
	if real := w.real(virtual); real != virtual {
		if _, err := w.tree.Stat(virtual); err == nil {
			return ", though there is " + virtual
		}
	}
	return ""
}

// kustomization is one kustomization file being walked.
type kustomization struct {
	*walker
	dir, file string
	stack     []string
	value     *manifest.Value
}

func (k *kustomization) failAt(v *manifest.Value, field, cause, remedy string) {
	k.fail(k.mark(k.file, v), field, cause, remedy)
}

// refusedKustomizeFields are what Tandem does not do with kustomize, and why.
func refusedKustomizeFields() map[string][2]string {
	return map[string][2]string{
		"helmChartInflationGenerator": {"is deprecated in kustomize and not supported", "use helmCharts and helmGlobals"},
		"openapi":                     {"not supported: it would change how all other kustomizations merge", "write lists that can be merged, or a JSON patch"},
	}
}

func (k *kustomization) valid(component bool, from state.Origin) bool {
	before := len(k.problems)
	refused := refusedKustomizeFields()
	for i := range k.value.Fields {
		f := &k.value.Fields[i]
		if why, ok := refused[f.Key]; ok {
			k.failAt(&manifest.Value{Line: f.Line, Col: f.Col}, f.Key, why[0], why[1])
		}
	}
	place := func(p manifest.Path, v *manifest.Value) state.Origin {
		val, line, col, ok := k.value.Lookup(p)
		if !ok {
			return k.mark(k.file, v)
		}
		if val.Kind != manifest.Map && val.Kind != manifest.List {
			line, col = val.Line, val.Col
		}
		return k.mark(k.file, &manifest.Value{Line: line, Col: col})
	}
	if len(k.problems) == before {
		k.problems = append(k.problems, manifest.Check(asTagged(k.value), reflect.TypeFor[types.Kustomization](), place)...)
	}
	kind := k.value.Str("kind")
	switch {
	case kind != "" && kind != types.KustomizationKind && kind != types.ComponentKind:
		k.failAt(k.value.Find("kind"), "kind", "want Kustomization or Component", "an object goes into a file of its own, named under resources")
	case component && kind != types.ComponentKind:
		k.fail(from, "components", k.real(k.dir)+" is a Kustomization, not a Component", "set  kind: Component  and  apiVersion: "+types.ComponentVersion+"  in "+k.real(k.file)+", or name it under resources")
	case !component && kind == types.ComponentKind:
		k.fail(from, "resources", k.real(k.dir)+" is a Component", "name it under components")
	}
	want := types.KustomizationVersion
	if kind == types.ComponentKind {
		want = types.ComponentVersion
	}
	if v := k.value.Find("apiVersion"); v != nil && v.Text != want {
		k.failAt(v, "apiVersion", "want "+want, "apiVersion: "+want)
	}
	return len(k.problems) == before
}

// asTagged is a kustomization whose vars write fieldPath as kustomize's code does:
// its documents, and so most people, write fieldpath, and both are read.
func asTagged(v *manifest.Value) *manifest.Value {
	vars := v.Find("vars")
	if vars == nil {
		return v
	}
	renamed := func(v *manifest.Value, key string, to func(*manifest.Field)) *manifest.Value {
		out := *v
		out.Fields = slices.Clone(v.Fields)
		for i := range out.Fields {
			if out.Fields[i].Key == key {
				to(&out.Fields[i])
			}
		}
		return &out
	}
	return renamed(v, "vars", func(f *manifest.Field) {
		list := *f.Value
		list.Items = nil
		for _, item := range f.Value.Items {
			list.Items = append(list.Items, renamed(item, "fieldref", func(f *manifest.Field) {
				f.Value = renamed(f.Value, "fieldpath", func(f *manifest.Field) { f.Key = "fieldPath" })
			}))
		}
		f.Value = &list
	})
}

// strings are the string elements of a list field.
func (k *kustomization) strings(field string) []*manifest.Value {
	var out []*manifest.Value
	if list := k.value.Find(field); list != nil {
		for _, item := range list.Items {
			if item.Kind == manifest.String {
				out = append(out, item)
			}
		}
	}
	return out
}

func (k *kustomization) references() {
	for _, field := range []string{"resources", "bases"} {
		for _, v := range k.strings(field) {
			k.resource(field, v)
		}
	}
	for _, v := range k.strings("components") {
		if p, ok := k.local("components", v); ok {
			k.base("components", v, p, true)
		}
	}
	for _, field := range []string{"configurations", "crds"} {
		for _, v := range k.strings(field) {
			k.yaml(field, v, nil)
		}
	}
	for _, field := range []string{"patches", "patchesStrategicMerge", "patchesJson6902"} {
		if list := k.value.Find(field); list != nil {
			for _, item := range list.Items {
				k.patch(field, item)
			}
		}
	}
	if list := k.value.Find("replacements"); list != nil {
		for _, item := range list.Items {
			if p := item.Find("path"); p != nil {
				k.yaml("replacements", p, nil)
			}
		}
	}
	for _, g := range []string{"configMapGenerator", "secretGenerator"} {
		if list := k.value.Find(g); list != nil {
			for _, item := range list.Items {
				k.generator(g, item)
			}
		}
	}
	for _, field := range []string{"generators", "transformers", "validators"} {
		for _, v := range k.strings(field) {
			k.plugin(field, v)
		}
	}
}

// local resolves a reference and refuses what leads out of the tree.
func (k *kustomization) local(field string, v *manifest.Value) (string, bool) {
	ref := v.Text
	switch p, ok := join(k.dir, ref); {
	case ref == "":
		k.failAt(v, field, "an empty path", "name a file or directory, or remove the entry")
	case isRemote(ref):
		k.failAt(v, field, fmt.Sprintf("%q is remote: a render reads nothing outside the tree", ref), "copy it into the repository and name its directory")
	case path.IsAbs(ref):
		k.failAt(v, field, fmt.Sprintf("%q is absolute", ref), "give a path relative to "+k.real(k.dir))
	case !ok:
		k.failAt(v, field, fmt.Sprintf("%q leads out of the tree", ref), "copy it into the repository")
	default:
		return p, true
	}
	return "", false
}

// resource is a file of objects, or another kustomization.
func (k *kustomization) resource(field string, v *manifest.Value) {
	p, ok := k.local(field, v)
	switch {
	case !ok:
	case k.isDir(p):
		k.base(field, v, p, false)
	default:
		k.yaml(field, v, func(doc *manifest.Value, at state.Origin) {
			_, ref := manifest.Identify(doc)
			k.index.add(source{kind: ref.Kind, namespace: ref.Namespace, name: ref.Name, value: doc, at: at})
			k.secretValues(doc)
		})
	}
}

func (k *kustomization) base(field string, v *manifest.Value, p string, component bool) {
	from := k.mark(k.file, v)
	if !k.isDir(p) {
		k.fail(from, field, "there is no directory "+k.real(p)+k.twin(p), "add it, or correct the path")
		return
	}
	for _, above := range k.stack {
		if below(above, p) {
			k.fail(from, field, fmt.Sprintf("%s refers to %s, which refers to it: a cycle", k.real(k.dir), k.cycleName(v.Text, p)), "put what they share beside them, in a directory that both name")
			return
		}
	}
	k.walker.dir(p, from, component, k.stack)
}

// cycleName is the directory that a reference was meant for: a variant that
// names its twin reads itself.
func (k *kustomization) cycleName(ref, p string) string {
	if meant := path.Join(k.real(k.dir), ref); meant != k.real(p) && k.tree != nil {
		return meant + " (which is itself, rendered for " + k.to + ")"
	}
	return k.real(p)
}

// inside refuses a file that does not lie in or below the kustomization's
// directory, as kustomize does.
func (k *kustomization) inside(field string, v *manifest.Value, p string) bool {
	if !below(p, k.dir) {
		k.failAt(v, field, fmt.Sprintf("%s is not in or below %s: kustomize refuses it", k.real(p), k.real(k.dir)), "name its directory (with a kustomization.yaml) in place of the file, or move the file")
		return false
	}
	return true
}

// yaml reads a YAML file and hands on its documents.
func (k *kustomization) yaml(field string, v *manifest.Value, each func(*manifest.Value, state.Origin)) {
	p, ok := k.local(field, v)
	if !ok || !k.inside(field, v, p) {
		return
	}
	raw, ok := k.load(p, k.mark(k.file, v))
	if !ok {
		return
	}
	docs, problems := manifest.Parse(k.mark(p, nil), raw)
	k.problems = append(k.problems, problems...)
	for _, doc := range docs {
		if each != nil {
			at := k.at(p)
			each(doc, at)
		}
	}
}
